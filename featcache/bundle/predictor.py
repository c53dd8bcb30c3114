"""`Predictor`: a bundle with its backbone loaded, for a service that predicts all day."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..backbones import preprocessing
from ..backbones.keras_types import BackboneLike
from ..backbones.model import Backbone
from ..backbones.onnx.backbone import OnnxBackbone
from ..backbones.resolve import build
from ..backbones.weights import WeightsLike
from ..data.urls import URL_REASON, is_url
from ..errors import InvalidRequest
from ..extraction.row_check import unusable_reasons
from ..images.decode import Pixels, Resize, pixels_of, pixels_of_image
from ..images.image_file import BadImage, read_file
from ..images.limits import MAX_PIXELS, MemoryBudget
from .bundle import Bundle, Prediction, load_bundle

# What `Predictor.predict` accepts as one image.
ImageLike = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | Pixels
_ONE_IMAGE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
_EXPECTED = "a path, bytes, a PIL image or an array of uint8 of shape (height, width, 3)"
_ON_ACCELERATOR = 16


class Predictor:
    """A bundle that is ready to predict: its backbone is loaded and compiled once.

    `Bundle.predict` is for many photos, whose embeddings it stores. A predictor is for photos that
    come one by one: it opens no store, writes no file and works on a machine whose disks are
    read-only. Threads may share it; it decodes in parallel and runs the backbone for one of
    them at a time.

    Parameters
    ----------
    bundle : Bundle or path
        A bundle, or the file of one.
    backbone : keras.Model or path of a .keras or .onnx file, optional
        Needed if the bundle was made with a model that is not in the table.
    weights : path, optional
        Needed if the bundle was made with weights in a file.
    preprocessing : str or callable, optional
        Needed if the bundle was made with a preprocessing function.

    Raises
    ------
    BundleError
        If the file is not a bundle.
    BundleMismatch
        If a model or a weights file is needed and not passed, or is not the bundle's.
    WeightsUnavailable
        If the ImageNet weights of the backbone are not on this machine and cannot be downloaded.

    Examples
    --------
    >>> import featcache, heads
    >>> features = featcache.extract("pocket")
    >>> bundle = featcache.make_bundle(features, heads.LogisticHead().fit(features.X, features.y))
    >>> with featcache.Predictor(bundle) as predictor:
    ...     first = predictor.predict(features.paths[0], top=1)[0]
    >>> first.top_classes[0][0] == features.classes[features.y[0]]
    True
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str],
        *,
        backbone: BackboneLike | None = None,
        weights: WeightsLike = None,
        preprocessing: preprocessing.Rule | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        given = {"weights": weights, "preprocessing": preprocessing}
        chosen, arguments = self.bundle.extract_arguments(
            backbone, {name: value for name, value in given.items() if value is not None}
        )
        request = self.bundle.backbone_request(chosen, arguments)
        built = build(request, None)
        self.bundle.check_spec(built.spec)
        self._size = request.image_size
        self._resize: Resize = request.resize
        self._backbone: Backbone | OnnxBackbone | None = built.backbone
        # Always the same number of images, so that Keras compiles the model once: a graph for any
        # number is slower than one for a fixed number.
        self._count = _ON_ACCELERATOR if built.backbone.on_accelerator else 1
        self._memory = MemoryBudget()
        self._lock = threading.Lock()
        self._forward([np.zeros((*self._size, 3), np.uint8)])

    def __repr__(self) -> str:
        state = "closed " if self._backbone is None else ""
        return f"<{state}Predictor of {self.bundle!r}>"

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the backbone; a prediction that is running in another thread ends first."""
        with self._lock:
            self._backbone = None

    @property
    def classes(self) -> Sequence[Any]:
        """Labels in the order of the columns of `predict_proba`."""
        return self.bundle.classes

    def predict(self, images: ImageLike | Iterable[ImageLike], top: int = 5) -> list[Prediction]:
        """Predict the classes of images.

        Parameters
        ----------
        images : image, or iterable of images
            An image is the path of a file, the bytes of a file, a `PIL.Image.Image`, or RGB pixels
            of shape (h, w, 3), uint8.
        top : int
            Number of classes per image.

        Returns
        -------
        list of Prediction
            One per image, in their order, also for a single image. `Prediction.path` of an image
            without a path is ``"image 0"``, and so on. An image that cannot be used has
            a `reason`, and changes nothing for the others.

        Raises
        ------
        InvalidRequest
            If `top` is below 1, `images` is something else, or the predictor was closed.
        """
        if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
            raise InvalidRequest(f"top={top!r} must be a whole number from 1.", received=top)
        listed = _listed(images)
        names = [
            os.fsdecode(image) if isinstance(image, (str, os.PathLike)) else f"image {number}"
            for number, image in enumerate(listed)
        ]
        proba, reasons = self._proba(listed)
        predictions = []
        for name, row, reason in zip(names, proba, reasons, strict=True):
            best = np.argsort(-row, kind="stable")[: top if reason is None else 0]
            found = [(self.classes[i], float(row[i])) for i in best.tolist()]
            predictions.append(Prediction(name, found, reason))
        return predictions

    def predict_proba(self, images: ImageLike | Iterable[ImageLike]) -> NDArray[np.float64]:
        """Return the class probabilities of images.

        Parameters
        ----------
        images : image, or iterable of images
            As for `predict`.

        Returns
        -------
        ndarray (n, k), float64
            Rows sum to 1; columns in the order of `classes`. The row of an image that cannot be
            used is NaN; `predict` says why.

        Raises
        ------
        InvalidRequest
            As `predict`.
        """
        return self._proba(_listed(images))[0]

    def _proba(self, images: Sequence[ImageLike]) -> tuple[NDArray[np.float64], list[str | None]]:
        """Return the probabilities of images, and why an image has none."""
        reasons: list[str | None] = [None] * len(images)
        rows = np.full((len(images), self.bundle.classifier.width), np.nan, np.float32)
        for positions in _chunks(range(len(images)), self._count):
            pixels: dict[int, Pixels] = {}
            for i in positions:
                try:
                    pixels[i] = self._pixels(images[i])
                except BadImage as bad:
                    reasons[i] = bad.reason
            if pixels:
                rows[list(pixels)] = self._forward(list(pixels.values()))
        dtype = np.dtype(self.bundle.spec.row_dtype)
        unusable = unusable_reasons(rows, dtype)
        reasons = [one or other for one, other in zip(reasons, unusable, strict=True)]
        usable = np.array([reason is None for reason in reasons], bool)
        proba = np.full((len(images), len(self.classes)), np.nan)
        if usable.any():
            rounded = rows[usable].astype(dtype).astype(np.float32)  # as in training
            proba[usable] = self.bundle.classifier.predict_proba(rounded)
        return proba, reasons

    def _forward(self, pixels: list[Pixels]) -> NDArray[np.float32]:
        """Return the embeddings of up to `_count` images."""
        padded = preprocessing.padded(np.stack(pixels), self._count)
        with self._lock:  # Keras' models are not safe to call from several threads
            if self._backbone is None:
                raise InvalidRequest("The predictor was closed; make another one.")
            return self._backbone.embed(padded)[: len(pixels)]

    def _pixels(self, image: ImageLike) -> Pixels:
        """Return the pixels of an image at the size of the backbone; raise `BadImage`."""
        if isinstance(image, Image.Image):
            return pixels_of_image(image, self._size, self._resize)
        if isinstance(image, np.ndarray):
            return pixels_of_image(_image_of(image), self._size, self._resize)
        with self._memory.reservation() as held:
            return pixels_of(_bytes_of(image, held.for_file), self._size, self._resize, None, held)


def _listed(images: Any) -> list[Any]:
    """Return the images as a list; a single one as a list of one."""
    if isinstance(images, _ONE_IMAGE):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype.kind not in "OSU":
        return [images]
    if not isinstance(images, Iterable):
        raise InvalidRequest(
            f"An image is {_EXPECTED}, not {type(images).__name__}; pass one, or a list of them.",
            received=type(images).__name__,
        )
    return list(images)


def _chunks(positions: Iterable[int], count: int) -> Iterator[list[int]]:
    rest = iter(positions)
    while chunk := list(islice(rest, count)):
        yield chunk


def _bytes_of(image: Any, reserve: Any) -> bytes:
    """Return the bytes of an image's file."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if not isinstance(image, (str, os.PathLike)):
        raise BadImage(f"is of type {type(image).__name__}; expected {_EXPECTED}")
    if is_url(image):
        raise BadImage(URL_REASON)
    return read_file(Path(image), reserve)[0]


def _image_of(pixels: NDArray[Any]) -> Image.Image:
    """Return an image of RGB pixels (h, w, 3), uint8."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise BadImage(
            f"is an array of {pixels.dtype} of shape {pixels.shape}; expected RGB pixels of uint8, "
            "0 to 255, of shape (height, width, 3)"
        )
    if not 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS:
        raise BadImage(f"is an array of {pixels.shape}; the limit is {MAX_PIXELS:,} pixels")
    return Image.fromarray(np.ascontiguousarray(pixels))
