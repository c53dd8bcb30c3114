"""Synthetic embeddings with the properties of real ones: skewed, correlated, not negative."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LATENT = 96
# Standard deviation of the class centres; that within a class is 1. Linear classifiers separate
# such classes well, trees less so.
_SPREAD = 0.62


def synthetic_embeddings(
    rows: int, width: int, classes: int, random_state: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw latent vectors around class centres and apply a random linear layer with ReLU.

    The variance of the latent dimensions decreases like the spectrum of real embeddings.

    Returns
    -------
    (ndarray (rows, width) float32, ndarray (rows,) int64)
        Embeddings and class codes; the classes are of equal size.
    """
    generator = np.random.default_rng(random_state)
    codes = np.arange(rows) % classes
    generator.shuffle(codes)
    centres = generator.normal(0, _SPREAD, (classes, _LATENT))
    latent = centres[codes] + generator.normal(size=(rows, _LATENT))
    latent *= (1 + np.arange(_LATENT)) ** -0.4
    mixing = generator.normal(size=(_LATENT, width)) / np.sqrt(8)
    noise = generator.normal(0, 0.3, (rows, width))
    values = latent @ mixing + noise + generator.normal(-0.4, 0.4, width)
    return np.maximum(values, 0).astype(np.float32), codes
