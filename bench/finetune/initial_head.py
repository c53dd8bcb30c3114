"""A trained head as the start of a fine-tune's last layer.

A random last layer distorts what the backbone has learned while it is far from right; one that is
trained on the frozen features first does not (Kumar et al. 2022, "Fine-Tuning can Distort
Pretrained Features and Underperform Out-of-Distribution", arXiv:2202.10054).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featcache.errors import InvalidRequest
from heads import LogisticHead

from ..contenders.base import Training
from ..contenders.frozen_backbone import FrozenBackbone

InitialHead = Literal["logistic"]
_UNSEEN = 5.0  # how much lower the score of a class without images starts


@dataclass(frozen=True)
class TrainedHead:
    """A logistic regression on frozen features, and what it cost.

    Attributes
    ----------
    kernel : ndarray (d, k), float32
    bias : ndarray (k,), float32
        Both are calibrated: divided by the head's temperature.
    frozen : FrozenBackbone
        The features that it was trained on.
    fit_seconds : float
        Wall time of training.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    frozen: FrozenBackbone
    fit_seconds: float


def train_initial_head(
    backbone: Any, options: dict[str, Any], training: Training, class_weight: Any = None
) -> TrainedHead | None:
    """Train a logistic regression on the frozen features of a fine-tune's images.

    Parameters
    ----------
    backbone : str or keras.Model
    options : dict
        Arguments of `featcache.extract` for the layer that feeds the last one.
    training : Training
    class_weight : {None, "balanced"}

    Returns
    -------
    TrainedHead, or None
        None if all images are of one class.
    """
    if len(set(training.codes.tolist())) < 2:
        return None
    frozen = FrozenBackbone(backbone, **options)
    frozen.prepare(training.images, training.progress)
    rows = frozen.embeddings(training.images)
    started = time.perf_counter()
    head = LogisticHead(class_weight=class_weight).fit(
        rows, training.codes, groups=training.images.photos
    )
    seconds = time.perf_counter() - started
    (step,) = head.to_classifier().steps
    intercept = step.arrays["bias"]
    kernel = np.zeros((rows.shape[1], training.n_classes), np.float32)
    bias = np.full(training.n_classes, intercept.min() - _UNSEEN, np.float32)
    kernel[:, head.classes_] = step.arrays["weights"] / head.temperature_
    bias[head.classes_] = intercept / head.temperature_
    return TrainedHead(kernel, bias, frozen, seconds)


def check_initial_head(name: object, units: tuple[int, ...]) -> InitialHead | None:
    """Return what the last layer starts from; raise if that does not fit the layers before it."""
    if name == "auto":
        return None if units else "logistic"
    if name not in ("logistic", None):
        raise InvalidRequest(
            f"initial_head={name!r} must be 'logistic', or None for random weights.", received=name
        )
    if name and units:
        raise InvalidRequest(
            f"initial_head={name!r} starts the last layer from a head on the backbone's features, "
            f"which does not fit behind the dense layers units={units}. Use units=(), or "
            "initial_head=None.",
            received=name,
        )
    return "logistic" if name else None
