"""Runner of an ONNX network with ONNX Runtime, on the processor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..backbones.onnx.backbone import OnnxBackbone


class OnnxRuntimeRunner:
    """Runs an `OnnxBackbone` in micro-batches.

    Attributes
    ----------
    candidates : tuple of int
        Micro-batch sizes to try, the default first.
    trial : int
        Number of images to compare sizes with.
    most : int
        Initial number of images per batch.
    width : int
        Length of an embedding.
    """

    name = "onnxruntime"
    candidates: tuple[int, ...] = (8, 4, 16)
    trial = 16
    most = 32

    def __init__(self, backbone: OnnxBackbone) -> None:
        self._backbone = backbone
        self.width = backbone.width

    def size_within(self, batch_size: int) -> int:
        """Return the micro-batch size for a batch size chosen by the user."""
        return min(batch_size, max(self.candidates))

    def run(self, pixels: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        """Compute embeddings (b, width) of pixels (b, h, w, 3), `size` images at a time."""
        starts = range(0, len(pixels), size)
        return np.concatenate([self._backbone.embed(pixels[i : i + size]) for i in starts])

    def provenance(self) -> dict[str, str]:
        """Return engine and versions, stored with the rows; not part of the key."""
        return {"engine": self.name, **self._backbone.provenance()}
