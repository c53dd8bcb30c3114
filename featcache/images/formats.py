"""Image formats: which endings and beginnings are images, and who decodes them.

Pillow decodes what is on the list below. Not on it are formats for which Pillow starts
another program or needs a handler (EPS, WMF, GRIB ...), that hold several pictures with no
first one (PSD, camera raw), or of which a part passes for the whole (PCX).

HEIC is decoded by pillow-heif and DICOM by pydicom, where they are installed. A format that
is added does not change `images.DECODE_VERSION`, and so no key: a row is named by the hash
of its file, and the pixels of a file that could be decoded before stay the same. A change in
what any file's pixels are, by whatever library, must raise that version.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import stat
import struct
from functools import lru_cache
from pathlib import Path

from PIL import Image, features

from .._io.own_files import open_to_read
from . import av1, boxes, jpeg2000, limits
from .image_file import BadImage

HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif",
    ".tiff", ".mpo", ".avif", ".jp2", ".j2k", ".jpx", ".j2c", ".jpc", ".jpf", ".ppm", ".pgm",
    ".pbm", ".pnm", ".tga", ".ico", ".qoi", ".sgi", ".rgb", ".bw", ".dds",
    *HEIF_SUFFIXES, *DICOM_SUFFIXES,
})  # fmt: skip

_FORMATS = (
    "JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "QOI",
    "SGI", "DDS",
)  # fmt: skip
# Pillow loads these only on demand, and knows none but its basic formats until then.
_PLUGINS = (
    "Mpo",
    "Tiff",
    "WebP",
    "Avif",
    "Jpeg2K",
    "Ppm",
    "Ico",
    "Qoi",
    "Sgi",
    "Dds",
    "Tga",
)
# Module -> extra. What reads a format that Pillow does not.
_EXTRAS = {"pillow_heif": "heif", "pydicom": "dicom"}

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF87a": "GIF", b"GIF89a": "GIF",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"qoif": "QOI", b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}  # fmt: skip
# Shorter beginnings, for a message about a file that is named as an image.
_SHORT_SIGNATURES = {
    b"\x89PNG": "PNG", b"GIF8": "GIF", b"RIFF": "WebP", b"BM": "BMP", b"DDS ": "DDS",
}  # fmt: skip
# Signatures too short to tell an image from a text, with what else its header must hold.
_HEADERS = {
    "BMP": re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
    "PPM": re.compile(rb"P[1-6]\s+(?:#|[0-9]+\s+[0-9#])"),
    "DDS": re.compile(rb"DDS \x7c\0\0\0"),
}
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_BEGINNING = 132

# Pillow decodes these in Python, about a million pixels per second.
_MOST_SLOW_PIXELS = 10_000_000
_MOST_ICON_PIXELS = 1024 * 1024
_MOST_ICON_PICTURES, _MOST_PNG_CHUNKS = 1000, 1000
_ICON_PIXEL_BYTES = 24  # the picture, that on white, and the steps between them
_ICON, _PNG, _OS2_HEADER = b"\0\0\1\0", b"\x89PNG\r\n\x1a\n", 12
_TGA_DEPTHS = {1: {8}, 2: {16, 24, 32}, 3: {8, 16}, 9: {8}, 10: {16, 24, 32}, 11: {8, 16}}
_TGA_FOOTER = b"TRUEVISION-XFILE."


def openable(data: bytes) -> tuple[str, ...]:
    """Return the names of Pillow's formats that a file's bytes may be opened as."""
    return (*_installed_formats(), *(("TGA",) if is_tga(data) else ()))


@lru_cache(maxsize=1)
def _installed_formats() -> tuple[str, ...]:
    """Load the plugins by name: `PIL.Image.init` would load those that run programs as well."""
    Image.preinit()
    for name in _PLUGINS:
        with contextlib.suppress(ImportError):  # an older Pillow
            importlib.import_module(f"PIL.{name}ImagePlugin")
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def is_tga(data: bytes) -> bool:
    """Tell whether bytes are a TGA image, which begins with no signature.

    Pillow would open many a file of noise as one: the header must be consistent, and there
    must be a footer, or all pixels that the header declares.
    """
    if len(data) < 19 or data[1] > 1 or data[16] not in _TGA_DEPTHS.get(data[2], ()):
        return False
    width, height = struct.unpack_from("<HH", data, 12)
    if not width or not height or (data[2] in (1, 9)) != (data[1] == 1):
        return False
    needed = width * height * data[16] // 8 if data[2] < 9 else 1
    return data.endswith(_TGA_FOOTER + b"\0") or (data[2] < 9 and len(data) >= 18 + needed)


def excess(image: Image.Image, data: bytes) -> str | None:
    """Say why an image of a further format is too much to decode; None if it is not."""
    pixels = image.size[0] * image.size[1]
    if image.format == "HEIF":
        if _coded_pixels(data) > limits.MAX_PIXELS:
            return f"declares {_coded_pixels(data):,} pixels; the limit is {limits.MAX_PIXELS:,}"
        return boxes.read_boxes(data, streams=False).excess(())
    plain = image.format == "PPM" and data[:2] in (b"P1", b"P2", b"P3")
    if (plain or image.format == "QOI") and pixels > _MOST_SLOW_PIXELS:
        return f"has {pixels:,} pixels; the limit for this format is {_MOST_SLOW_PIXELS:,}"
    if image.format == "JPEG2000":
        return jpeg2000.excess(data, image.size)
    return av1.excess(data) if image.format == "AVIF" else None


def codec_bytes(image: Image.Image, data: bytes) -> int:
    """Estimate the memory that a further format's codec takes beside Pillow's own."""
    pixels = image.size[0] * image.size[1]
    if image.format == "HEIF":  # a crop of what is coded, in half a dozen bytes per pixel
        return max(pixels, _coded_pixels(data)) * 8
    if image.format == "JPEG2000":  # OpenJPEG holds each band in 32 bits, twice
        parts = jpeg2000.partition(jpeg2000.read_codestream(data))
        return pixels * 8 * max(3, len(image.getbands())) + parts.needed
    return max(pixels, av1.coded_pixels(data)) * 8 if image.format == "AVIF" else 0


def _coded_pixels(data: bytes) -> int:
    """Return the pixels of the largest picture that a HEIC file's boxes declare.

    Its image may be a small part of that: the whole is decoded first. The decoder refuses a
    picture that is larger than it is declared.
    """
    sizes = boxes.read_boxes(data, streams=False).sizes
    return max((width * height for width, height in sizes), default=0)


def is_icon(data: bytes) -> bool:
    """Tell whether bytes begin as an icon, which Pillow decodes as soon as it is opened."""
    return data.startswith(_ICON)


def icon_bytes(data: bytes) -> int:
    """Return the memory that opening an icon takes, by the own header of each picture in it.

    The sizes in the icon's directory are at most 256, and may be wrong.

    Raises
    ------
    BadImage
        If a picture is too large, or a header is missing or doubtful.
    """
    most = 0
    try:
        count = struct.unpack_from("<H", data, 4)[0]
        if count > _MOST_ICON_PICTURES:
            raise BadImage(
                f"is an icon of {count:,} pictures; the limit is {_MOST_ICON_PICTURES:,}"
            )
        for entry in range(count):
            width, height = _icon_size(data, struct.unpack_from("<I", data, 18 + 16 * entry)[0])
            if width * height > _MOST_ICON_PIXELS:
                raise BadImage(
                    f"is an icon with a picture of more than {_MOST_ICON_PIXELS:,} pixels: "
                    f"{width:,} x {height:,}"
                )
            most = max(most, width * height)
    except struct.error as error:
        raise BadImage("is damaged: it starts as an icon, but is cut off") from error
    return most * _ICON_PIXEL_BYTES


def _icon_size(data: bytes, start: int) -> tuple[int, int]:
    """Return width and height of an icon's picture; twice its height where a mask follows."""
    if data[start : start + 8] == _PNG:
        return _png_size(data, start + 8)
    if struct.unpack_from("<I", data, start)[0] == _OS2_HEADER:
        width, height = struct.unpack_from("<HH", data, start + 4)
    else:
        width, height = struct.unpack_from("<Ii", data, start + 4)
    return width, abs(height)


def _png_size(data: bytes, at: int) -> tuple[int, int]:
    """Return the size of a PNG whose first chunk begins there.

    Pillow takes the last size before the pixels, so that there must be one only.
    """
    sizes = []
    for _ in range(_MOST_PNG_CHUNKS):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in (b"IDAT", b"fdAT"):
            break
        if kind == b"IHDR":
            sizes.append(struct.unpack_from(">II", data, at + 8))
        at += 12 + length
    if len(sizes) != 1:
        raise BadImage(f"is damaged: a PNG in the icon declares {len(sizes)} sizes, not one")
    return sizes[0]


def is_heif(data: bytes) -> bool:
    """Tell whether bytes begin as HEIC or HEIF; AVIF, a sibling, does not."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def is_dicom(data: bytes) -> bool:
    """Tell whether bytes begin as a DICOM file."""
    return data[128:132] == b"DICM"


def starts_as_image(path: str | os.PathLike[str], *, tiff: bool = True) -> bool:
    """Tell by its first bytes whether a file is an image of a format with a clear signature.

    `tiff` tells whether TIFF, as which many other formats begin, is one of these.
    """
    start = _beginning(path)
    if is_heif(start) or is_dicom(start):
        return is_readable(".heic" if is_heif(start) else ".dcm")
    name = _signature(start)
    return name is not None and (tiff or name != "TIFF")


def looks_like_image(path: str | Path) -> bool:
    """Tell whether a file that was named by itself is an image, by ending or content."""
    return Path(path).suffix.lower() in SUFFIXES or _signature(_beginning(path)) is not None


def _signature(start: bytes) -> str | None:
    if is_heif(start) or is_dicom(start):
        return "HEIC" if is_heif(start) else "DICOM"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis"):
        return "AVIF"
    signed = (name for sign, name in _SIGNATURES.items() if start.startswith(sign))
    headed = (name for name, header in _HEADERS.items() if header.match(start))
    return next(signed, None) or next(headed, None)


def _beginning(path: str | os.PathLike[str]) -> bytes:
    try:
        handle = open_to_read(path)
    except (OSError, ValueError):
        return b""
    try:
        return os.read(handle, _BEGINNING) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(handle)


def is_readable(ending: str) -> bool:
    """Tell whether files with an ending can be decoded by what is installed."""
    if ending == ".avif":
        return bool(features.check("avif")) if "avif" in features.modules else False
    return ending in SUFFIXES and missing_extra(ending) is None


def missing_extra(ending: str) -> str | None:
    """Return how to install what reads an ending; None if nothing is missing."""
    module = "pillow_heif" if ending in HEIF_SUFFIXES else "pydicom"
    if ending not in HEIF_SUFFIXES | DICOM_SUFFIXES or _installed(module):
        return None
    return f"pip install 'featcache[{_EXTRAS[module]}]' reads {ending}"


def missing_extra_of(path: str | os.PathLike[str]) -> str | None:
    """Return `missing_extra` of a file, judged by its content if its ending is unknown."""
    ending = Path(path).suffix.lower()
    if ending not in SUFFIXES:
        start = _beginning(path)
        ending = ".heic" if is_heif(start) else ".dcm" if is_dicom(start) else ending
    return missing_extra(ending)


@lru_cache
def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def require(module: str, what: str) -> None:
    """Raise `BadImage` that names the extra if a module is not installed."""
    if not _installed(module):
        raise BadImage(
            f"is {what}; to read it, pip install 'featcache[{_EXTRAS[module]}]'", lasting=False
        )


def unidentified(data: bytes) -> str:
    """Say of bytes that could not be opened what they begin as."""
    known = {**_SIGNATURES, **_SHORT_SIGNATURES}
    name = next((name for start, name in known.items() if data.startswith(start)), None)
    name = name or _signature(data[:_BEGINNING])
    if name is not None:
        return f"is damaged: it starts as a {name} file, but is cut off or broken"
    return f"is not an image of a known format; it starts with {repr(data[:12])[1:]}"
