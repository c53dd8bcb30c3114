"""`LoadedBackbone`: one backbone of a predictor, ready to compute embeddings."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backbones import preprocessing
from ..backbones.model import Backbone
from ..backbones.onnx.backbone import OnnxBackbone
from ..backbones.request import Request
from ..backbones.resolve import build
from ..errors import BundleMismatch, InvalidRequest
from ..images.decode import Pixels, Resize
from .bundle_part import BundlePart

_ON_ACCELERATOR = 16


class LoadedBackbone:
    """A backbone that is built and compiled, for a few images at a time.

    Parameters
    ----------
    part : BundlePart
    request : Request
    width : int or None
        The width that its embeddings must have, if the bundle says it.

    Attributes
    ----------
    form : ((int, int), str)
        Size and resizing of its images.
    count : int
        Images per call.
    width : int
    dtype : dtype
        To which its rows are rounded, as in training.

    Raises
    ------
    BundleMismatch
        If the backbone is not that of the bundle.
    """

    def __init__(self, part: BundlePart, request: Request, width: int | None) -> None:
        built = build(request, None)
        part.check_spec(built.spec)
        if width is not None and built.width != width:
            raise BundleMismatch(
                f"The bundle says that {request.name} gives {width:,} values, but it gives "
                f"{built.width:,}: the bundle was changed after it was made.",
                received=built.width,
            )
        self.form: tuple[tuple[int, int], Resize] = request.image_size, request.resize
        self.width, self.dtype = built.width, np.dtype(part.spec.row_dtype)
        # Always the same number of images, so that Keras compiles the model once: a graph for any
        # number is slower than one for a fixed number.
        self.count = _ON_ACCELERATOR if built.backbone.on_accelerator else 1
        self._backbone: Backbone | OnnxBackbone | None = built.backbone
        self._lock = threading.Lock()
        self.embed([np.zeros((*request.image_size, 3), np.uint8)])

    @property
    def is_closed(self) -> bool:
        """Whether the backbone was released."""
        return self._backbone is None

    def close(self) -> None:
        """Release the backbone; a call in another thread ends first."""
        with self._lock:
            self._backbone = None

    def embed(self, pixels: list[Pixels]) -> NDArray[np.float32]:
        """Return the embeddings of any number of images."""
        return np.concatenate(
            [
                self._embed(pixels[start : start + self.count])
                for start in range(0, len(pixels), self.count)
            ]
        )

    def _embed(self, pixels: list[Pixels]) -> NDArray[np.float32]:
        padded = preprocessing.padded(np.stack(pixels), self.count)
        with self._lock:  # Keras' models are not safe to call from several threads
            if self._backbone is None:
                raise InvalidRequest("The predictor was closed; make another one.")
            return self._backbone.embed(padded)[: len(pixels)]

    def rounded(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Return rows as they are stored."""
        return rows.astype(self.dtype).astype(np.float32)
