"""`Predictor`: a bundle with its backbone loaded, for a service that predicts all day."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..backbones import preprocessing
from ..backbones.keras_types import BackboneLike
from ..backbones.weights import WeightsLike
from ..data.memory import copy_bytes
from ..data.urls import URL_REASON, is_url
from ..errors import InvalidRequest
from ..extraction.derived.spec import DerivedSpec
from ..extraction.derived.steps import apply_steps
from ..extraction.row_check import unusable_reasons
from ..images.decode import Pixels, Resize, pixels_of, pixels_of_image
from ..images.image_file import BadImage, read_file
from ..images.limits import MemoryBudget
from ..images.raw_pixels import pixels_from
from .bundle import Bundle, Prediction, load_bundle
from .bundle_part import requests_of
from .loaded_backbone import LoadedBackbone

# What `Predictor.predict` accepts as one image.
ImageLike = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | Pixels
_ONE_IMAGE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
_EXPECTED = (
    "a path, bytes, a PIL image or an array of uint8 of shape (height, width, 3) or (height, width)"
)


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
        Needed if the bundle was made with a model that is not in the table. Of a bundle of
        several backbones a list: one for each that needs one, in their order.
    weights : path, optional
        Needed if the bundle was made with weights in a file; a list like `backbone`.
    preprocessing : str or callable, optional
        Needed if the bundle was made with a preprocessing function; a list like `backbone`.

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
        backbone: BackboneLike | Sequence[BackboneLike | None] | None = None,
        weights: WeightsLike | Sequence[WeightsLike] = None,
        preprocessing: preprocessing.Rule | Sequence[preprocessing.Rule | None] | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        given = {"weights": weights, "preprocessing": preprocessing}
        asked = requests_of(
            self.bundle.parts,
            backbone,
            {name: value for name, value in given.items() if value is not None},
        )
        spec = self.bundle.spec
        widths = spec.widths if isinstance(spec, DerivedSpec) else (None,)
        self._backbones = [
            LoadedBackbone(part, request, width)
            for part, (_, _, request), width in zip(self.bundle.parts, asked, widths, strict=True)
        ]
        self._memory = MemoryBudget()

    def __repr__(self) -> str:
        state = "closed " if self._backbones[0].is_closed else ""
        return f"<{state}Predictor of {self.bundle!r}>"

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the backbones; a prediction that is running in another thread ends first."""
        for backbone in self._backbones:
            backbone.close()

    @property
    def classes(self) -> Sequence[Any]:
        """Labels in the order of the columns of `predict_proba`."""
        return self.bundle.classes

    def predict(self, images: ImageLike | Iterable[ImageLike], top: int = 5) -> list[Prediction]:
        """Predict the classes of images.

        Parameters
        ----------
        images : image, or iterable of images
            An image is the path of a file, the bytes of a file, a `PIL.Image.Image`, or pixels of
            uint8: RGB of shape (h, w, 3), or grey of shape (h, w) or (h, w, 1).
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
        blocks = [np.full((len(images), b.width), np.nan, np.float32) for b in self._backbones]
        count = max(backbone.count for backbone in self._backbones)
        for start in range(0, len(images), count):
            pixels: dict[int, dict[Any, Pixels]] = {}
            for i in range(start, min(start + count, len(images))):
                try:
                    pixels[i] = self._pixels(images[i])
                except BadImage as bad:
                    reasons[i] = bad.reason
            if pixels:
                for backbone, rows in zip(self._backbones, blocks, strict=True):
                    chosen = [one[backbone.form] for one in pixels.values()]
                    rows[list(pixels)] = backbone.embed(chosen)
        for backbone, rows in zip(self._backbones, blocks, strict=True):
            unusable = unusable_reasons(rows, backbone.dtype)
            reasons = [one or other for one, other in zip(reasons, unusable, strict=True)]
        usable = np.array([reason is None for reason in reasons], bool)
        proba = np.full((len(images), len(self.classes)), np.nan)
        if usable.any():
            # Rounded and transformed as in training.
            rounded = [
                b.rounded(rows[usable]) for b, rows in zip(self._backbones, blocks, strict=True)
            ]
            joined = apply_steps(self.bundle.steps, np.concatenate(rounded, axis=1))
            proba[usable] = self.bundle.classifier.predict_proba(joined)
        return proba, reasons

    def _pixels(self, image: ImageLike) -> dict[Any, Pixels]:
        """Return the pixels of an image in the form of each backbone; raise `BadImage`."""
        return {form: self._decoded(image, *form) for form in {b.form for b in self._backbones}}

    def _decoded(self, image: ImageLike, size: tuple[int, int], resize: Resize) -> Pixels:
        if isinstance(image, Image.Image):
            return pixels_of_image(image, size, resize)
        if isinstance(image, np.ndarray):
            return pixels_of_image(_image_of(image), size, resize)
        with self._memory.reservation() as held:
            return pixels_of(_bytes_of(image, held.for_file), size, resize, None, held)


def _listed(images: Any) -> list[Any]:
    """Return the images as a list; a single one as a list of one."""
    if isinstance(images, _ONE_IMAGE):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim < 4 and images.dtype.kind not in "OSU":
        return [images]
    # The elements of a file are its lines, and those of a dictionary its keys.
    if isinstance(images, (io.IOBase, Mapping)) or not isinstance(images, Iterable):
        hint = " Of an open file, pass file.read()." if isinstance(images, io.IOBase) else ""
        raise InvalidRequest(
            f"An image is {_EXPECTED}, not {type(images).__name__}; pass one, or a list of them."
            f"{hint}",
            received=type(images).__name__,
        )
    return list(images)


def _bytes_of(image: Any, reserve: Any) -> bytes:
    """Return the bytes of an image's file."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return copy_bytes(image, reserve)
    if not isinstance(image, (str, os.PathLike)):
        raise BadImage(f"is of type {type(image).__name__}; expected {_EXPECTED}")
    if is_url(image):
        raise BadImage(URL_REASON)
    return read_file(Path(image), reserve)[0]


def _image_of(values: NDArray[Any]) -> Image.Image:
    """Return an image of RGB or grey pixels, uint8."""
    if values.dtype != np.uint8:  # floats have no known range here
        raise BadImage(f"has the dtype {values.dtype}; expected RGB pixels of uint8, 0 to 255")
    pixels = pixels_from(values)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))
