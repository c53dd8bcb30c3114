"""The model as Keras runs it, on whatever backend and device Keras uses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..backbones.model import Backbone

_ON_PROCESSOR = (32, 16)
_ON_ACCELERATOR = (128, 64, 256)


class KerasRunner:
    """A `Backbone`, some images at a time.

    Attributes
    ----------
    candidates : tuple of int
        Numbers of images that are worth trying, the usual one first.
    trial, most : int
        Images that are enough to compare sizes, and that are handed over and committed together.
    width : int
        Numbers in an embedding.
    """

    name = "keras"

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.candidates: tuple[int, ...] = (
            _ON_ACCELERATOR if backbone.on_accelerator else _ON_PROCESSOR
        )
        self.trial = self.most = max(self.candidates)
        self.width = backbone.width

    def size_within(self, batch_size: int) -> int:
        """Return how many images of a batch of the user's size go into a micro-batch."""
        return batch_size

    def run(self, pixels: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        """Compute embeddings (b, width) of pixels (b, h, w, 3), `size` images at a time."""
        starts = range(0, len(pixels), size)
        return np.concatenate([self._backbone.embed(pixels[i : i + size]) for i in starts])

    def provenance(self) -> dict[str, str]:
        """Return engine and versions, recorded beside the rows; no part of the key."""
        return {"engine": self.name, **self._backbone.provenance()}
