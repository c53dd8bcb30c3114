"""A classifier as operations of any library that runs networks."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from .classifier import Arrays, Classifier

T = TypeVar("T")
_Array = NDArray[Any]


class Operations(Protocol[T]):
    """What a library computes; T is its type of tensors, `x` has one row of float32 per image."""

    def add(self, x: T, values: _Array) -> T:
        """Add one number per column."""
        ...

    def subtract(self, x: T, values: _Array) -> T:
        """Subtract one number per column."""
        ...

    def divide(self, x: T, values: _Array) -> T:
        """Divide by one number per column."""
        ...

    def matmul(self, x: T, weights: _Array) -> T:
        """Multiply with a matrix."""
        ...

    def relu(self, x: T) -> T:
        """Replace negative numbers by 0."""
        ...

    def normalise(self, x: T) -> T:
        """Divide each row by its Euclidean length; rows of 0 stay 0."""
        ...

    def softmax(self, x: T) -> T:
        """Return the softmax of each row."""
        ...

    def as_float16(self, x: T) -> T:
        """Round to float16, and return float32."""
        ...

    def first_nodes(self, x: T, roots: _Array) -> T:
        """Return the same integers for each row."""
        ...

    def take(self, values: _Array, indices: T) -> T:
        """Return the values of one dimension at indices."""
        ...

    def pick(self, x: T, columns: T) -> T:
        """Return from each row its numbers in columns, which differ from row to row."""
        ...

    def choose(self, low: T, high: T, left: T, right: T) -> T:
        """Return `left` where `low` is at most `high`, else `right`."""
        ...

    def sum_groups(self, x: T, count: int) -> T:
        """Return for each row the sums of the columns 0, count, ..., of 1, count + 1, ..."""
        ...


def write_head(
    classifier: Classifier, row_dtype: str, operations: Operations[T], embedding: T
) -> T:
    """Return the probabilities of an embedding.

    Parameters
    ----------
    classifier : Classifier
    row_dtype : str
        Of the rows on which it was trained.
    operations : Operations
    embedding : tensor
    """
    x = operations.as_float16(embedding) if row_dtype == "float16" else embedding
    last = len(classifier.steps) - 1
    temperature = classifier.temperature
    for number, step in enumerate(classifier.steps):
        arrays = step.arrays
        if step.kind == "standardise":
            x = operations.subtract(x, _float32(arrays["mean"]))
            x = operations.divide(x, _float32(arrays["scale"]))
        elif step.kind == "linear":
            # Within the last layer, so that the network ends in a linear layer and a softmax.
            divisor = temperature if number == last else 1.0
            x = operations.matmul(x, _float32(arrays["weights"] / divisor))
            x = operations.add(x, _float32(arrays["bias"] / divisor))
            temperature = 1.0 if number == last else temperature
        elif step.kind == "normalise":
            x = operations.normalise(x)
        elif step.kind == "relu":
            x = operations.relu(x)
        else:
            x = _trees(arrays, len(classifier.classes), operations, x)
    if temperature != 1:
        x = operations.divide(x, _float32(np.full(len(classifier.classes), temperature)))
    return operations.softmax(x)


def _trees(arrays: Arrays, classes: int, operations: Operations[T], x: T) -> T:
    """Descend all trees together, one level per step; leaves lead to themselves."""
    own = np.arange(len(arrays["left"]))
    is_leaf = arrays["left"] < 0
    left = np.where(is_leaf, own, arrays["left"])
    right = np.where(is_leaf, own, arrays["right"])
    thresholds = _rounded_down(arrays["threshold"])
    columns = np.where(is_leaf, 0, arrays["column"])
    node = operations.first_nodes(x, arrays["root"])
    for _ in range(_depth(arrays)):
        node = operations.choose(
            operations.pick(x, operations.take(columns, node)),
            operations.take(thresholds, node),
            operations.take(left, node),
            operations.take(right, node),
        )
    return operations.sum_groups(operations.take(_float32(arrays["value"]), node), classes)


def _depth(arrays: Arrays) -> int:
    """Return the number of levels below the roots."""
    depth, level = 0, np.unique(arrays["root"])
    while len(inner := level[arrays["left"][level] >= 0]):
        level = np.unique(np.concatenate([arrays["left"][inner], arrays["right"][inner]]))
        depth += 1
    return depth


def _rounded_down(thresholds: _Array) -> NDArray[np.float32]:
    """Return float32 that the same numbers of float32 are at most."""
    rounded = _float32(thresholds)
    return np.where(
        rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded
    ).astype(np.float32)


def _float32(values: _Array) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)
