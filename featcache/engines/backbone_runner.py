"""What the runners of a backbone by its own library have in common."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from ..backbones.model import Backbone
from ..backbones.onnx.backbone import OnnxBackbone


class BackboneRunner:
    """Runs a backbone as its library does, in micro-batches.

    Attributes
    ----------
    name : str
        Of the library.
    candidates : tuple of int
        Micro-batch sizes to try, the default first.
    trial : int
        Number of images to compare sizes with.
    most : int
        Initial number of images per batch.
    width : int
        Length of an embedding.
    parallel : int
        Number of batches at a time.
    """

    name: str
    candidates: tuple[int, ...]
    trial: int
    most: int
    parallel = 1

    def __init__(self, backbone: Backbone | OnnxBackbone) -> None:
        self._backbone = backbone
        self.width = backbone.width

    def run(self, pixels: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        """Compute embeddings (b, width) of pixels (b, h, w, 3), `size` images at a time."""
        starts = range(0, len(pixels), size)
        with self._place():
            return np.concatenate([self._backbone.embed(pixels[i : i + size]) for i in starts])

    def _place(self) -> AbstractContextManager[None]:
        """Return a context manager in which the backbone runs."""
        return nullcontext()

    def provenance(self) -> dict[str, str]:
        """Return engine and versions, stored with the rows; not part of the key."""
        return {"engine": self.name, **self._backbone.provenance()}
