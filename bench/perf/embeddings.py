"""Made-up embeddings that behave like real ones: skewed, correlated, never negative."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LATENT = 96
# Of the classes' centres, in units of the noise in a class: hard for trees, easy for planes.
_SPREAD = 0.62


def made_up(
    rows: int, width: int, classes: int, random_state: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw latent vectors around class centres and send them through a random ReLU layer.

    Latent directions weigh less and less, as the spectrum of real embeddings falls off.

    Returns
    -------
    (ndarray (rows, width) float32, ndarray (rows,) int64)
        Embeddings and classes, every class equally often.
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
