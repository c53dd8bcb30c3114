"""`Contender`, the interface of all models under comparison."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import Bundle

from ..splits import Images
from .measure import Estimate, Work, total


@dataclass(frozen=True)
class ContenderInfo:
    """Description of a trained contender, for the results and the cost accounting.

    Attributes
    ----------
    extract_seconds : float
        Wall time of computing the features of all images, even if that was before this run; 0
        for a contender without features.
    backbone : str
        Human-readable name of the backbone.
    weights : str
        Human-readable origin of the weights.
    weights_kind : str
        The origin as a code, as in `featcache.ExtractionSummary`; ``"none"`` without a network,
        "" if unknown.
    trainable_parameters, total_parameters : int
    disk_bytes : int
        Size on disk: store, decoded pixels, checkpoints.
    computed_now : int
        Number of embeddings that were computed in this run.
    fit_seconds : float or None
        Wall time of training, if it was done in an earlier run in whole or in part; None if it
        was done in this run.
    predict_seconds : float or None
        Wall time of predicting the test part, without work that `extract_seconds` has; None for
        the measured time.
    history : mapping of str to list of float
        One value per epoch, for contenders that train in epochs.
    notes : mapping of str to str
        Further facts for reproduction, such as the key of the store.
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
    predict_seconds: float | None = None
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

    def take(self, rows: NDArray[np.int64]) -> Training:
        """Return the training on some of the images."""
        return replace(self, images=self.images.take(rows), codes=self.codes[rows])


class Contender(ABC):
    """Base class of the models under comparison.

    `bench.evaluate` calls `prepare` once with all images, `fit` with the training part and its
    labels, and `predict_proba` with the test part. A contender never gets a test label, and the
    paths are anonymous.

    Attributes
    ----------
    quick : bool
        Whether it trains in seconds. Only quick contenders have few-shot curves.
    """

    quick = True

    def prepare(self, images: Images, progress: bool | None = None) -> Mapping[str, str]:
        """Do the work that needs no labels, such as extraction.

        Parameters
        ----------
        images : Images
            All images, of the training and the test part.
        progress : bool, optional
            Show progress bars. Default: if standard error is a terminal.

        Returns
        -------
        mapping of str to str
            Reason by example id, of the images that cannot be used. They are left out for all
            contenders.
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
        """Return class probabilities (n, n_classes), float64; rows sum to 1."""

    @abstractmethod
    def facts(self) -> ContenderInfo:
        """Describe the trained contender."""

    def estimate(self, images: Images, n_train: int, n_classes: int) -> Estimate | None:
        """Estimate the cost of `prepare` and `fit` from a measured batch; None if negligible."""
        return total(self.works(images, n_train, n_classes))

    def works(self, images: Images, n_train: int, n_classes: int) -> Sequence[Work]:
        """Return the kinds of work that `estimate` is the sum of, if other contenders share some.

        The first `n_train` images are the training part. Default: none.
        """
        return []

    def count_trained(self, trainings: Sequence[Training]) -> int:
        """Return how many of some trainings earlier runs have finished: they are only read."""
        return 0

    def bundle(
        self, classes: Sequence[str], metrics: Mapping[str, float], metadata: Mapping[str, str]
    ) -> Bundle | None:
        """Return the trained contender as a bundle; None if it cannot be one."""
        return None

    def network(self) -> dict[str, Any] | None:
        """Describe its neural network for a report; None if it has none."""
        return None
