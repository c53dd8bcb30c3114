"""File -> bytes -> RGB uint8 pixels, the same on every machine; or a reason why not.

The rules below are part of the cache key through `DECODE_VERSION`: a change in what
pixels a file gives must raise it. A further format does not: see `featcache.images.formats`.
"""

from __future__ import annotations

import contextlib
import io
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

DECODE_VERSION = 1
Resize = Literal["stretch", "crop", "pad"]
RESIZES: tuple[Resize, ...] = get_args(Resize)

_STRIP_PIXELS = 4_000_000
_ORIENTATION = 0x0112  # the EXIF tag

Pixels = NDArray[np.uint8]


def decode(data: bytes, held: limits.Reservation | None = None) -> Image.Image:
    """Decode a file's bytes to an upright 8-bit RGB image.

    The first frame of what `featcache.images.formats` lists, judged by content. EXIF orientation is
    applied, transparency is laid on white, CMYK and palettes are converted, 16 bits are scaled
    to 8 with rounding. Colour profiles are not applied, as in `keras.utils.load_img`.

    Parameters
    ----------
    data : bytes
    held : limits.Reservation, optional
        Of the `MemoryBudget` that all images decoded at the same time share.

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
        # Our own limit below is the stricter one; odd metadata is not a bad image.
        with ignored_warnings(), contextlib.ExitStack() as own:
            reserved = held or own.enter_context(limits.MemoryBudget().reservation())
            if formats.is_dicom(data):
                file, needed = open_dicom(data)
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
            return _to_rgb(_upright(image))
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        raise BadImage(formats.unidentified(data)) from error
    except MemoryError as error:
        raise BadImage("needs more memory than there is", lasting=False) from error
    except Exception as error:  # codecs raise whatever they like on damaged data
        raise BadImage(f"is damaged: {reason_of(error)}") from error


def resize(image: Image.Image, size: tuple[int, int], how: Resize = "stretch") -> Pixels:
    """Bring an RGB image to a size with Pillow's antialiased bilinear filter.

    Parameters
    ----------
    image : PIL.Image.Image
        RGB.
    size : (int, int)
        Height and width.
    how : {"stretch", "crop", "pad"}
        Ignore the aspect ratio, cut the middle out, or put black bars around.

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
    """Cut a box out of an image; edges beyond the image's are moved to them.

    Raises
    ------
    BadImage
        If nothing of the box lies within the image.
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
    """Read and decode a file, and cut the box out of it if there is one.

    Raises
    ------
    BadImage
        As `read_file`, `decode` and `crop`.
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
    """Read, check that the content is still the one planned for, decode, crop and resize.

    Parameters
    ----------
    path : path
    size : (int, int)
        Height and width.
    how : {"stretch", "crop", "pad"}
    expected_id : str
        The content id that the file must have.
    box : Box, optional
    budget : MemoryBudget, optional
        One for all threads that decode at the same time: several large images at once would
        take several times the memory. None is for one image after another.

    Raises
    ------
    BadImage
        As `load_image`, and if the file is no longer what `expected_id` names: its pixels
        would be stored under another image's name.
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
    """Decode a file's bytes, crop and resize; raise `BadImage` as these do."""
    with contextlib.ExitStack() as own:  # a large image counts until it is made small
        reserved = held or own.enter_context(limits.MemoryBudget().reservation())
        return resize(crop(decode(data, reserved), box), size, how)


def _checked_bytes(image: Image.Image, data: bytes) -> int:
    """Return the memory that decoding takes; raise `BadImage` for an image that is too much."""
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
    """Read an image's header, by the library that decodes its format."""
    if formats.is_heif(data):
        return open_heif(data)
    return Image.open(io.BytesIO(data), formats=formats.openable(data))


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image  # exif_transpose would make a copy
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF says nothing of the pixels, which are sound
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // width)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if height <= rows:
        return _converted(image)
    # In strips, since the steps of a conversion would each hold a copy of the whole.
    result = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows)))
        result.paste(_converted(strip), (0, top))
    return result


def _converted(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        image = _sixteen_to_eight(image)
    if image.mode == "F":
        raise BadImage("holds floating-point pixels, whose range is unknown")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_to_eight(image: Image.Image) -> Image.Image:
    values: NDArray[Any] = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise BadImage("holds 32-bit pixels beyond the 16-bit range")
    # 65535 / 255 = 257; Pillow's own conversion would clip at 255 instead.
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
