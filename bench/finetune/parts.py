"""The parts of the training images, and the weights of their classes."""

from __future__ import annotations

import hashlib
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import InvalidRequest
from featcache.toolkit import all_layers, stratified_group_split

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


def describe_mode(body: Any) -> dict[str, str]:
    """Return a component of the key of runs with a backbone that earlier versions trained wrongly.

    Layers such as Dropout, and batch normalisation in a nested model, ran as in training.
    """
    outer = {id(layer) for layer in body.layers}
    affected = any(
        "training" in signature(layer.call).parameters
        for layer in all_layers(body)
        if not hasattr(layer, "layers")
        and not (type(layer).__name__ == "BatchNormalization" and id(layer) in outer)
    )
    return {"mode": "inference"} if affected else {}


def class_weights(codes: NDArray[np.int64], n_classes: int) -> NDArray[np.float32]:
    """Return the weight of each class with which all that occur have the same total weight."""
    counts = np.bincount(codes, minlength=n_classes)
    present = np.maximum(counts, 1)
    weights = len(codes) / (np.count_nonzero(counts) * present)
    return np.asarray(weights, np.float32)
