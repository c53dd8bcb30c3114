"""Traits of drawn breeds as training targets: numeric measures and categorical kinds.

Multitask learning (Caruana 1997, doi:10.1023/A:1007379606734): with few images per breed, a
small network learns better features from several traits than from the breed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.datasets.drawn.breeds import COATS, EARS, FUR, PATTERNS, TAILS, Breed

MEASURES = (
    "leg", "depth", "neck", "head", "muzzle", "muzzle_depth", "ear_size", "tail_length",
)  # fmt: skip
KINDS: dict[str, tuple[str, ...]] = {
    "ear": EARS,
    "tail": TAILS,
    "coat": tuple(COATS),
    "second_coat": tuple(COATS),
    "pattern": PATTERNS,
    "fur": FUR,
}
WIDTH = len(MEASURES) + sum(len(names) for names in KINDS.values())


def targets(labels: Sequence[str], breeds: Sequence[Breed]) -> NDArray[np.float32]:
    """Return the training targets of images.

    Parameters
    ----------
    labels : sequence of str
        The breed of each image.
    breeds : sequence of Breed

    Returns
    -------
    ndarray (n, 14), float32
        The measures with mean 0 and standard deviation 1 over the breeds, then the kinds' indices.
    """
    measures = np.array([[getattr(breed, name) for name in MEASURES] for breed in breeds])
    measures = (measures - measures.mean(axis=0)) / (measures.std(axis=0) + 1e-9)
    kinds = np.array(
        [[names.index(getattr(breed, kind)) for kind, names in KINDS.items()] for breed in breeds]
    )
    table = np.concatenate([measures, kinds], axis=1).astype(np.float32)
    row = {breed.name: number for number, breed in enumerate(breeds)}
    return np.asarray(table[[row[label] for label in labels]])


def keras_loss(keras: Any) -> Any:
    """Return the loss: squared error of the measures plus cross-entropy of the kinds."""
    ops = keras.ops
    n = len(MEASURES)

    def loss(truth: Any, prediction: Any) -> Any:
        total = ops.sum(ops.square(truth[:, :n] - prediction[:, :n]), axis=-1)
        for kind, (start, stop) in enumerate(_ranges()):
            total += keras.losses.sparse_categorical_crossentropy(
                ops.cast(truth[:, n + kind], "int32"), prediction[:, start:stop], from_logits=True
            )
        return total / (n + len(KINDS))

    return loss


def keras_accuracy(keras: Any) -> Any:
    """Return the metric ``accuracy``: the fraction of kinds that are predicted correctly."""
    ops = keras.ops
    n = len(MEASURES)

    def accuracy(truth: Any, prediction: Any) -> Any:
        hits = [
            ops.cast(
                ops.equal(
                    ops.cast(truth[:, n + kind], "int32"),
                    ops.cast(ops.argmax(prediction[:, start:stop], axis=-1), "int32"),
                ),
                "float32",
            )
            for kind, (start, stop) in enumerate(_ranges())
        ]
        return sum(hits) / len(hits)

    return accuracy


def loss_and_accuracy(truth: NDArray[Any], prediction: NDArray[Any]) -> tuple[float, float]:
    """Return the mean values of `keras_loss` and `keras_accuracy`, computed with NumPy.

    Parameters
    ----------
    truth : ndarray (n, 14)
        As from `targets`.
    prediction : ndarray (n, `WIDTH`)
        Measures, then one logit per value of each kind.
    """
    n = len(MEASURES)
    total = np.square(truth[:, :n] - prediction[:, :n]).sum(axis=1)
    hits = np.zeros(len(truth))
    rows = np.arange(len(truth))
    for kind, (start, stop) in enumerate(_ranges()):
        codes = truth[:, n + kind].astype(int)
        logits = prediction[:, start:stop] - prediction[:, start:stop].max(axis=1, keepdims=True)
        total += np.log(np.exp(logits).sum(axis=1)) - logits[rows, codes]
        hits += logits.argmax(axis=1) == codes
    return float(total.mean() / (n + len(KINDS))), float(hits.mean() / len(KINDS))


def _ranges() -> list[tuple[int, int]]:
    edges = np.cumsum([len(MEASURES), *(len(names) for names in KINDS.values())])
    return [(int(a), int(b)) for a, b in itertools.pairwise(edges)]
