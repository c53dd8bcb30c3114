"""The parts of the training images, and the weights of their classes."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import InvalidRequest
from featcache.toolkit import stratified_group_split

from ..contenders.base import Training


def training_parts(
    training: Training, fraction: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return training and validation rows, with copies of a photo in the same part."""
    photos, codes = training.images.photos, training.codes
    try:
        return stratified_group_split(photos, codes.tolist(), fraction, training.random_state)
    except InvalidRequest:
        rows = np.arange(len(codes))  # too few to hold any out: early stopping on training images
        return rows, rows


def describe_training(training: Training) -> dict[str, Any]:
    """Return the components of a run's key that describe what it is trained on."""
    images, codes = training.images, training.codes
    order = np.argsort(np.array(images.ids))
    examples = "".join(f"{images.ids[i]}{codes[i]}," for i in order)
    return {
        "examples": hashlib.sha256(examples.encode()).hexdigest(),
        "order": hashlib.sha256("".join(images.ids).encode()).hexdigest(),
        "classes": training.n_classes,
        "seed": training.random_state,
    }


def class_weights(codes: NDArray[np.int64], n_classes: int) -> NDArray[np.float32]:
    """Return the weight of each class with which all that occur have the same total weight."""
    counts = np.bincount(codes, minlength=n_classes)
    present = np.maximum(counts, 1)
    weights = len(codes) / (np.count_nonzero(counts) * present)
    return np.asarray(weights, np.float32)
