"""Decoding of files to RGB pixels of uint8, the same on every machine.

The rules below are part of the cache key through `DECODE_VERSION`: any change of the pixels that
a file gives must increment it. A new format does not: see `featcache.images.formats`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .._io.held_warnings import ignored_warnings
from . import formats, limits
from .dicom import open_dicom, render_dicom
from .heif import open_heif
from .image_file import BadImage, Box, read_expected, read_file, reason_of
from .raw_pixels import decode_pixels, is_raw_pixels

DECODE_VERSION = 1
Resize = Literal["stretch", "crop", "pad"]
RESIZES: tuple[Resize, ...] = get_args(Resize)

_STRIP_PIXELS = 4_000_000
_ORIENTATION = 0x0112  # the EXIF tag

Pixels = NDArray[np.uint8]


def decode(data: bytes, held: limits.Reservation | None = None) -> Image.Image:
    """Decode a file's bytes to an upright 8-bit RGB image.

    Decodes the first frame of the formats in `featcache.images.formats`, recognised by content.
    EXIF orientation is applied, transparent pixels are blended with white, CMYK and palettes are
    converted, 16 bits are scaled to 8 with rounding. Colour profiles are not applied, as in
    `keras.utils.load_img`.

    Parameters
    ----------
    data : bytes
        Content of the file.
    held : limits.Reservation, optional
        Of the `MemoryBudget` that all images decoded at the same time share.

    Returns
    -------
    PIL.Image.Image
        Mode "RGB".

    Raises
    ------
    BadImage
        With the reason: empty, not an image, truncated, too many pixels, unknown layout.

    Examples
    --------
    >>> decode(b"")
    Traceback (most recent call last):
        ...
    featcache.images.image_file.BadImage: the file is empty
    """
    if not data:
        raise BadImage("the file is empty")
    try:
        # The limits below are stricter than Pillow's; unusual metadata is not an error.
        with ignored_warnings(), contextlib.ExitStack() as own:
            reserved = held or own.enter_context(limits.MemoryBudget().reservation())
            if is_raw_pixels(data):
                return decode_pixels(data, reserved)
            if formats.is_dicom(data):
                file, needed = open_dicom(data, reserved)
                reserved.for_decoding(len(data), needed)
                return _to_rgb(render_dicom(file))
            icon = formats.is_icon(data)
            if icon:  # decoded as soon as it is opened
                reserved.for_decoding(len(data), formats.icon_bytes(data))
            image = _open(data)
            needed = _checked_bytes(image, data)
            if not icon:
                reserved.for_decoding(len(data), needed)
            image.load()
            return _upright_rgb(image)
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(f"has too many pixels; the limit is {limits.MAX_PIXELS:,} in all") from error
    except UnidentifiedImageError as error:
        raise BadImage(formats.unidentified_reason(data)) from error
    except MemoryError as error:
        raise BadImage("needs more memory than is available", lasting=False) from error
    except Exception as error:  # codecs raise many types of errors on damaged data
        raise BadImage(f"is damaged: {reason_of(error)}") from error


def resize(image: Image.Image, size: tuple[int, int], how: Resize = "stretch") -> Pixels:
    """Resize an RGB image with Pillow's antialiased bilinear filter.

    Parameters
    ----------
    image : PIL.Image.Image
        RGB.
    size : (int, int)
        Height and width.
    how : {"stretch", "crop", "pad"}
        Ignore the aspect ratio, crop the center to the target's aspect ratio, or pad with black.

    Returns
    -------
    ndarray (h, w, 3), uint8
    """
    target = (size[1], size[0])
    filter_ = Image.Resampling.BILINEAR
    if how == "stretch":
        image = image if image.size == target else image.resize(target, filter_)
    elif how == "crop":
        image = ImageOps.fit(image, target, filter_)
    else:
        image = ImageOps.pad(image, target, filter_, color=(0, 0, 0))
    return np.asarray(image, dtype=np.uint8)


def crop(image: Image.Image, box: Box | None) -> Image.Image:
    """Crop an image to a box, clipped to the image.

    Parameters
    ----------
    image : PIL.Image.Image
    box : (int, int, int, int) or None
        Left, top, right and bottom edge in pixels; None returns the image unchanged.

    Raises
    ------
    BadImage
        If the box lies outside the image.
    """
    if box is None:
        return image
    width, height = image.size
    left, top = max(0, box[0]), max(0, box[1])
    right, bottom = min(width, box[2]), min(height, box[3])
    if left >= right or top >= bottom:
        raise BadImage(f"its box {box} lies outside the image of {width} x {height} pixels")
    return image.crop((left, top, right, bottom))


def load_image(path: str | Path, box: Box | None = None) -> Image.Image:
    """Read and decode a file, and crop it to a box.

    Parameters
    ----------
    path : str or Path
    box : (int, int, int, int), optional
        Left, top, right and bottom edge in pixels of the upright image. Default: no crop.

    Returns
    -------
    PIL.Image.Image
        Upright, mode "RGB", in its own size.

    Raises
    ------
    BadImage
        If the file cannot be read or decoded, exceeds a limit, or the box lies outside it.
    """
    with limits.MemoryBudget().reservation() as held:
        return crop(decode(read_file(path, held.for_file)[0], held), box)


def load_pixels(
    path: str | Path,
    size: tuple[int, int],
    how: Resize,
    expected_id: str,
    box: Box | None = None,
    budget: limits.MemoryBudget | None = None,
) -> Pixels:
    """Read a file, verify its image id, decode, crop and resize it.

    Parameters
    ----------
    path : str or Path
    size : (int, int)
        Height and width of the result in pixels.
    how : {"stretch", "crop", "pad"}
        As for `resize`.
    expected_id : str
        Image id that the file must have: 64 hexadecimal digits of SHA-256. Otherwise pixels
        could be stored under the id of another image.
    box : (int, int, int, int), optional
        Left, top, right and bottom edge in pixels of the upright image. Default: no crop.
    budget : MemoryBudget, optional
        Shared by all threads that decode at the same time: several large images at once would
        need several times the memory. Default: a budget for this image alone.

    Returns
    -------
    ndarray (h, w, 3), uint8
        RGB, 0 to 255.

    Raises
    ------
    BadImage
        As `load_image`, and if the file has another id.
    """
    with (budget or limits.MemoryBudget()).reservation() as held:
        data = read_expected(path, expected_id, held.for_file)
        return pixels_of(data, size, how, box, held)


def pixels_of(
    data: bytes,
    size: tuple[int, int],
    how: Resize,
    box: Box | None = None,
    held: limits.Reservation | None = None,
) -> Pixels:
    """Return `decode`, `crop` and `resize` of a file's bytes; raise `BadImage` as these do."""
    with contextlib.ExitStack() as own:  # memory is reserved until the image is resized
        reserved = held or own.enter_context(limits.MemoryBudget().reservation())
        return resize(crop(decode(data, reserved), box), size, how)


def pixels_of_image(image: Image.Image, size: tuple[int, int], how: Resize) -> Pixels:
    """Return the pixels of an opened image: those that its file would give.

    Parameters
    ----------
    image : PIL.Image.Image
        Of any mode; turned upright if it has an EXIF orientation.
    size : (int, int)
        Height and width of the result in pixels.
    how : {"stretch", "crop", "pad"}
        As for `resize`.

    Returns
    -------
    ndarray (h, w, 3), uint8

    Raises
    ------
    BadImage
        If its file is damaged or closed, or it exceeds a limit.
    """
    return resize(rgb_of_image(image), size, how)


def rgb_of_image(
    image: Image.Image, reserve: Callable[[int], None] = lambda _: None
) -> Image.Image:
    """Return an opened image upright, as 8-bit RGB, by the rules of `decode`.

    Parameters
    ----------
    image : PIL.Image.Image
        Of any mode. One that was opened from a file may be decoded only now.
    reserve : callable
        Called with the number of bytes that this takes, before it takes them.

    Raises
    ------
    BadImage
        If it exceeds a limit, its file is damaged or closed, or the range of its pixels is
        unknown.
    """
    try:
        with ignored_warnings():
            reason = limits.excess(image, b"")
            if reason is not None:
                raise BadImage(reason)
            reserve(8 * image.size[0] * image.size[1])
            image.load()
            return _upright_rgb(image)
    except BadImage:
        raise
    except MemoryError as error:
        raise BadImage("needs more memory than is available", lasting=False) from error
    except Exception as error:  # codecs raise many types of errors on damaged data
        raise BadImage(f"is damaged: {reason_of(error)}") from error


def _checked_bytes(image: Image.Image, data: bytes) -> int:
    """Return the bytes of memory that decoding needs; raise `BadImage` beyond a limit."""
    reason = limits.excess(image, data) or formats.excess(image, data)
    needed = limits.working_bytes(image) + formats.codec_bytes(image, data)
    if reason is None and needed > limits.MAX_WORKING_BYTES:
        reason = (
            f"would take {needed / 1e6:,.0f} MB to decode as {image.format}; the limit is "
            f"{limits.MAX_WORKING_BYTES / 1e6:,.0f} MB"
        )
    if reason is not None:
        raise BadImage(reason)
    return needed


def _open(data: bytes) -> Image.Image:
    """Open an image with the library that decodes its format, without decoding it."""
    if formats.is_heif(data):
        return open_heif(data)
    return Image.open(io.BytesIO(data), formats=formats.openable(data))


def _upright_rgb(image: Image.Image) -> Image.Image:
    return _to_rgb(_apply_orientation(image))


def _apply_orientation(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image  # exif_transpose would make a copy
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels of an image with broken EXIF are valid
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if height <= rows:
        return _convert_to_rgb(image)
    # In strips, since each step of a conversion copies the image.
    result = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows)))
        result.paste(_convert_to_rgb(strip), (0, top))
    return result


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        image = _scale_16_bit(image)
    if image.mode == "F":
        raise BadImage("holds floating-point pixels, whose range is unknown")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_16_bit(image: Image.Image) -> Image.Image:
    values: NDArray[Any] = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise BadImage("holds 32-bit pixels beyond the 16-bit range")
    # 65535 / 255 = 257; Pillow's own conversion would clip at 255 instead.
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
