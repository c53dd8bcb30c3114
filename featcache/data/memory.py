"""Images in memory: arrays, PIL images, and the bytes of files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DatasetError, InvalidRequest
from ..images.decode import rgb_of_image
from ..images.image_file import BadImage, check_size
from ..images.raw_pixels import encode_pixels, pixels_from
from .sources import ImageSource, Reserve, no_limit

ValueRange = tuple[float, float]
_WANTED = "an array of pixels, a PIL image, or the bytes of a file"


def is_image_in_memory(value: object) -> bool:
    """Return whether a value is one image in memory, other than an array of several."""
    return isinstance(value, (bytes, bytearray, memoryview, Image.Image, np.ndarray))


def check_value_range(value_range: Any) -> ValueRange | None:
    """Return the values of black and white as floats.

    Raises
    ------
    InvalidRequest
        If these are not two finite numbers, the first below the second.
    """
    if value_range is None:
        return None
    try:
        low, high = map(float, () if isinstance(value_range, str) else value_range)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise InvalidRequest(
            f"value_range={value_range!r} must be the values of black and white, such as (0, 1), "
            "(0, 255) or (-1, 1).",
            received=value_range,
        )
    return low, high


class MemorySource(ImageSource):
    """Images in memory.

    The id of pixels is the SHA-256 of height, width and RGB values, so that the same array is
    found again in another order, in a slice or in another session. That of bytes is their
    SHA-256, as for a file of the same content.

    Parameters
    ----------
    images : sequence of ndarray, PIL.Image.Image or bytes
        An array (n, h, w, 3) or (n, h, w, 1) is a sequence of n images. Not copied.
    value_range : (float, float), optional
        The values of black and white in arrays of floats.
    names : sequence of str, optional
        Default: ``"images[0]"``, ``"images[1]"`` ...
    """

    def __init__(
        self,
        images: Sequence[Any],
        value_range: ValueRange | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self._images, self._value_range = images, value_range
        self._names = [f"images[{i}]" for i in range(len(images))] if names is None else names

    @property
    def names(self) -> Sequence[str]:
        """What the images are called."""
        return self._names

    def read(self, position: int, reserve: Reserve = no_limit) -> bytes:
        """Return the bytes of a file, or pixels as bytes; see `featcache.images.raw_pixels`."""
        return bytes_of(self._images[position], self._value_range, reserve)

    def take(self, rows: Sequence[int]) -> MemorySource:
        """Return a source of some of the images."""
        return MemorySource(
            [self._images[i] for i in rows], self._value_range, [self._names[i] for i in rows]
        )


def bytes_of(
    image: Any, value_range: ValueRange | None = None, reserve: Reserve = no_limit
) -> bytes:
    """Return an image in memory as the bytes of a file.

    Parameters
    ----------
    image : ndarray, PIL.Image.Image or bytes
    value_range : (float, float), optional
    reserve : callable
        As for `ImageSource.read`.

    Raises
    ------
    BadImage
        If it is not an image.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return copy_bytes(image, reserve)
    if isinstance(image, Image.Image):
        return encode_pixels(np.asarray(rgb_of_image(image, reserve)))
    if image is None or isinstance(image, (str, dict, set)):
        raise BadImage(f"is {type(image).__name__}; expected {_WANTED}")
    try:
        pixels = pixels_from(image, value_range)
    except (TypeError, ValueError) as error:  # of NumPy, for what is no array
        raise BadImage(f"is {type(image).__name__}; expected {_WANTED}") from error
    reserve(3 * pixels.shape[0] * pixels.shape[1])
    return encode_pixels(pixels)


def copy_bytes(data: bytes | bytearray | memoryview, reserve: Reserve = no_limit) -> bytes:
    """Return a copy of the content of a file; raise `BadImage` if it exceeds the limit."""
    size = memoryview(data).nbytes
    check_size(size)
    reserve(size)
    return bytes(data)


def is_array(data: object) -> bool:
    """Return whether data are an array of images, of NumPy or of a library that converts to it."""
    return isinstance(data, np.ndarray) or (
        hasattr(data, "__array__") and hasattr(data, "shape") and not hasattr(data, "columns")
    )


def images_of_array(data: Any, value_range: ValueRange | None = None) -> Any:
    """Return an array as one of n images.

    Raises
    ------
    DatasetError
        If it has another shape than (n, h, w, 3) or (n, h, w, 1), no image, or values of an
        unknown range.
    """
    array = np.asarray(data)
    if array.dtype == object:
        return list(array)
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        hint = ""
        if array.ndim == 3:
            hint = " One image is a list of one: [x]."
        elif array.ndim == 4 and array.shape[1] in (1, 3):
            hint = " Move the channels to the end: numpy.moveaxis(x, 1, -1)."
        raise DatasetError(
            f"An array of images has the shape (n, height, width, 3) or (n, height, width, 1), "
            f"not {array.shape}.{hint}",
            received=array.shape,
        )
    if not len(array):
        raise DatasetError("The array has no images: its first axis has length 0.")
    if array.dtype != np.uint8 and value_range is None:
        raise DatasetError(
            f"The range of an array of {array.dtype} is unknown. Pass value_range=(0, 1), (0, 255) "
            "or (-1, 1), the values of black and white; or pass uint8.",
            received=str(array.dtype),
        )
    return array
