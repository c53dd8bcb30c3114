"""Pixels that are in memory already, as bytes of their own format.

An array has no file. It is given the bytes of one, so that everything that works on an image's
bytes works on it as well: the image id is their SHA-256, `featcache.images.decode` checks their
limits and decodes them, and a mistake is a quarantined image like any other.

The format: `SIGNATURE`, height and width as little-endian uint32, then the RGB pixels row by row.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import limits
from .image_file import BadImage

SIGNATURE = b"\x93FEATCACHE-RGB-1\n"
_SIZE = struct.Struct("<II")
_HEADER_BYTES = len(SIGNATURE) + _SIZE.size


def encode_pixels(pixels: NDArray[np.uint8]) -> bytes:
    """Return the bytes of an image.

    Parameters
    ----------
    pixels : ndarray (h, w, 3) or (h, w, 1), uint8
        RGB, or grey, which is stored as RGB: both have the same image id.

    Examples
    --------
    >>> data = encode_pixels(np.zeros((2, 5, 1), np.uint8))
    >>> len(data), decode_pixels(data).size
    (55, (5, 2))
    """
    height, width, channels = pixels.shape
    rgb = np.broadcast_to(pixels, (height, width, 3)) if channels == 1 else pixels
    return SIGNATURE + _SIZE.pack(height, width) + rgb.tobytes()


def is_raw_pixels(data: bytes) -> bool:
    """Return whether bytes begin as `encode_pixels` writes them."""
    return data.startswith(SIGNATURE)


def decode_pixels(data: bytes, reserved: limits.Reservation | None = None) -> Image.Image:
    """Return the image of bytes that `encode_pixels` wrote, mode "RGB".

    Raises
    ------
    BadImage
        If the size in the header is not that of the pixels, or exceeds the limits.
    """
    if len(data) < _HEADER_BYTES:
        raise BadImage("is damaged: its header is cut off")
    height, width = _SIZE.unpack_from(data, len(SIGNATURE))
    if not 0 < height * width <= limits.MAX_PIXELS:
        raise BadImage(too_large(height, width))
    if len(data) != _HEADER_BYTES + 3 * height * width:
        raise BadImage(
            f"is damaged: {len(data) - _HEADER_BYTES:,} bytes of pixels do not make "
            f"{height:,} x {width:,}"
        )
    if reserved is not None:
        reserved.for_decoding(len(data), 4 * height * width)
    return Image.frombytes("RGB", (width, height), data[_HEADER_BYTES:])


def too_large(height: int, width: int) -> str:
    """Return the reason for an image without pixels, or with too many."""
    if not height * width:
        return f"has no pixels ({height} x {width})"
    return f"has {height:,} x {width:,} pixels; the limit is {limits.MAX_PIXELS:,} in all"


def pixels_from(values: Any, value_range: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Return an image's values as uint8, the only type that is computed with.

    Parameters
    ----------
    values : ndarray (h, w, 3), (h, w, 1) or (h, w)
        RGB or grey; uint8, or floats in `value_range`.
    value_range : (float, float), optional
        The values of black and white. Floats are scaled and rounded to 256 steps.

    Returns
    -------
    ndarray (h, w, 3) or (h, w, 1), uint8

    Raises
    ------
    BadImage
        With the reason, if shape, type or range differ. The same array would fail again.

    Examples
    --------
    >>> pixels_from(np.array([[0.0, 0.5, 1.0]]), (0, 1))[..., 0].tolist()
    [[0, 128, 255]]
    """
    array = np.asarray(values)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3):
            hint = "; move the channels to the end: numpy.moveaxis(x, 0, -1)"
        elif array.ndim == 3 and array.shape[2] == 4:
            hint = "; drop the alpha channel: x[..., :3]"
        raise BadImage(
            f"has the shape {array.shape}; expected (height, width, 3) or (height, width, 1){hint}"
        )
    if not 0 < array.shape[0] * array.shape[1] <= limits.MAX_PIXELS:
        raise BadImage(too_large(*array.shape[:2]))
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_ or array.dtype.kind not in "fiu":
        raise BadImage(f"has the dtype {array.dtype}; expected uint8, or floats")
    if value_range is None:
        raise BadImage(
            f"has the dtype {array.dtype}, whose range is unknown; expected uint8, or "
            "value_range=(0, 1) or (0, 255)"
        )
    return _scaled(array, value_range)


def _scaled(array: NDArray[Any], value_range: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = value_range
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise BadImage("has values that are not finite")
    least, largest = float(values.min()), float(values.max())
    # Rounding in float16 or float32, and a resize, may go a little beyond the ends.
    slack = 0.01 * (high - low)
    if least < low - slack or largest > high + slack:
        raise BadImage(
            f"has values from {least:g} to {largest:g}, outside value_range=({low:g}, {high:g})"
        )
    steps = (values - low) * (255.0 / (high - low))
    return np.clip(np.floor(steps + 0.5), 0, 255).astype(np.uint8)
