"""`ColourHistogram`: a baseline without a network, for comparison with backbones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from featcache.errors import InvalidRequest
from featcache.toolkit import MemoryBudget, batches, default_workers, progress_bar
from heads import Head, make_head

from ..splits import Images
from .base import Contender, ContenderInfo, Training
from .cached_head import proba_of

_SIDE = 64
_BINS = 8


def colour_histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the colour histogram of an image over 8 x 8 x 8 cells of RGB.

    Swain and Ballard 1991, "Color indexing", doi:10.1007/BF00130487. The values are the square
    roots of the fractions of pixels, which suits a linear head.

    Parameters
    ----------
    pixels : ndarray (h, w, 3), uint8

    Returns
    -------
    ndarray (512,), float32
        Its squares sum to 1.
    """
    cells = (pixels.reshape(-1, 3) // (256 // _BINS)).astype(np.int64)
    index = (cells[:, 0] * _BINS + cells[:, 1]) * _BINS + cells[:, 2]
    counts = np.bincount(index, minlength=_BINS**3)
    return np.asarray(np.sqrt(counts / counts.sum()), np.float32)


class ColourHistogram(Contender):
    """Contender: a head on colour histograms, without a network.

    Parameters
    ----------
    head : str or Head
        A name in `heads.HEADS`, or a head with other parameters.
    """

    def __init__(self, head: str | Head = "logistic") -> None:
        self.head = make_head(head) if isinstance(head, str) else head
        self.quick = self.head.trains_in_seconds
        self._rows: dict[str, NDArray[np.float32]] | None = None
        self._seconds = 0.0

    def prepare(self, images: Images, progress: bool | None = None) -> Mapping[str, str]:
        """Compute the histograms of all images."""
        started = time.perf_counter()
        found: dict[str, NDArray[np.float32]] = {}
        bad: dict[str, str] = {}
        budget = MemoryBudget()

        def load(row: int) -> NDArray[np.uint8]:
            return images.pixels(row, (_SIDE, _SIDE), "stretch", budget)

        stream = batches(range(len(images)), load, 64, default_workers())
        with progress_bar(len(images), "Colours", "images", progress) as bar:
            for batch in stream:
                for row, pixels in zip(batch.items, batch.pixels, strict=False):
                    found[images.ids[row]] = colour_histogram(pixels)
                bad.update({images.ids[row]: failure.reason for row, failure in batch.failures})
                bar.update(len(batch.items) + len(batch.failures))
        self._rows, self._seconds = found, time.perf_counter() - started
        return bad

    def train(self, training: Training) -> None:
        """Train the head on the histograms of the images."""
        self._n_classes = training.n_classes
        head = cast(Head, clone(self.head))
        self._trained = head.fit(self._histograms(training.images), training.codes)

    def predict_proba(self, images: Images) -> NDArray[np.float64]:
        """Predict from the histograms; classes without training images get probability 0."""
        return proba_of(self._trained, self._histograms(images), self._n_classes)

    def facts(self) -> ContenderInfo:
        """Describe the head and the cost of the histograms, which are not stored."""
        weights = self._trained.n_parameters
        return ContenderInfo(
            extract_seconds=self._seconds,
            backbone="colour histogram",
            weights="none",
            weights_kind="none",
            trainable_parameters=weights,
            total_parameters=weights,
            notes={"head": " ".join(repr(self.head).split())},
        )

    def _histograms(self, images: Images) -> NDArray[np.float32]:
        if self._rows is None:
            raise InvalidRequest("Call prepare() with all images before fit() or predict_proba().")
        return np.stack([self._rows[image_id] for image_id in images.ids])
