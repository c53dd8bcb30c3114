"""The interface that every model under comparison implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import Bundle

from ..splits import Images
from .measure import Estimate


@dataclass(frozen=True)
class ContenderInfo:
    """What a trained contender says of itself, for the accounts.

    Attributes
    ----------
    extract_seconds : float
        Wall time that the features of all images took when they were computed, whenever
        that was; 0 for a contender that uses none.
    backbone : str
    weights : str
        Where its weights came from, for people.
    weights_kind : str
        The same, for programs: as in `featcache.ExtractionSummary`, ``"none"`` without a
        network, "" if unknown.
    trainable_parameters, total_parameters : int
    disk_bytes : int
        What it keeps on disk: store, decoded pixels, checkpoints.
    computed_now : int
        Embeddings that were computed in this run, and not stored before.
    fit_seconds : float or None
        What training took where it was done before, in whole or in part; None if it was
        done just now.
    history : mapping of str to list of float
        One value an epoch, for contenders that train in epochs.
    notes : mapping of str to str
        Whatever else helps to repeat it, such as the store's key.
    """

    extract_seconds: float = 0.0
    backbone: str = ""
    weights: str = ""
    weights_kind: str = ""
    trainable_parameters: int = 0
    total_parameters: int = 0
    disk_bytes: int = 0
    computed_now: int = 0
    fit_seconds: float | None = None
    history: Mapping[str, list[float]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """What a contender is trained on, and how.

    Attributes
    ----------
    images : Images
        The training part.
    codes : ndarray (n,)
        Class of each image, 0 to `n_classes` - 1; a class may have none.
    n_classes : int
    random_state : int
        Of all randomness.
    progress : bool or None
        Show a progress bar. None: if standard error is a terminal.
    """

    images: Images
    codes: NDArray[np.int64]
    n_classes: int
    random_state: int = 0
    progress: bool | None = None


class Contender(ABC):
    """A model under comparison.

    `bench.evaluate` calls `prepare` once with all images, then `fit` with the training
    part and its labels, then `predict_proba` with the test part. A contender never gets a
    test label, and paths that tell nothing.

    Attributes
    ----------
    quick : bool
        Whether it trains in seconds, so that curves of many trainings make sense.
    """

    quick = True

    def prepare(self, images: Images, progress: bool | None = None) -> Mapping[str, str]:
        """Do what needs no label, such as extraction.

        Returns
        -------
        mapping of str to str
            Id of an example -> reason, for those that cannot be used. They are left out for all
            contenders alike.
        """
        return {}

    def fit(
        self,
        images: Images,
        codes: NDArray[np.int64],
        n_classes: int,
        *,
        random_state: int = 0,
        progress: bool | None = None,
    ) -> None:
        """Train from scratch; the parameters are the attributes of `Training`."""
        self.train(Training(images, codes, n_classes, random_state, progress))

    @abstractmethod
    def train(self, training: Training) -> None:
        """Train from scratch."""

    @abstractmethod
    def predict_proba(self, images: Images) -> NDArray[np.float64]:
        """Return probabilities (n, n_classes); rows sum to 1."""

    @abstractmethod
    def facts(self) -> ContenderInfo:
        """Describe the trained contender."""

    def estimate(self, images: Images, n_train: int, n_classes: int) -> Estimate | None:
        """Tell what `prepare` and `fit` will take, from a measured batch; None if seconds."""
        return None

    def shared_work(self) -> str | None:
        """Name the work that contenders of the same name share; None if it is all its own."""
        return None

    def bundle(
        self, classes: Sequence[str], metrics: Mapping[str, float], metadata: Mapping[str, str]
    ) -> Bundle | None:
        """Return the trained contender as one that predicts anywhere; None if it cannot be."""
        return None

    def network(self) -> dict[str, Any] | None:
        """Describe its neural network for a report; None if it has none."""
        return None
