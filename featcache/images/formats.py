"""Supported image formats: file name endings, signatures and decoders.

Pillow decodes the formats listed below. Excluded are formats for which Pillow starts another
program or needs a handler (EPS, WMF, GRIB ...), formats with several pictures of which none is
the first (PSD, camera raw), and formats whose truncated files are accepted (PCX).

HEIC is decoded by pillow-heif and DICOM by pydicom, if installed. Adding a format does not
change `images.DECODE_VERSION` or any key: rows are identified by the hash of their file, and
the pixels of files that could be decoded before stay the same. A change of the pixels of any
file, by whatever library, must increment that version.
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
from .._io.wording import install_hint
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
# Pillow loads these plugins only on demand.
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
# Module -> extra, for formats that Pillow does not read.
_EXTRAS = {"pillow_heif": "heif", "pydicom": "dicom"}

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF87a": "GIF", b"GIF89a": "GIF",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"qoif": "QOI", b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}  # fmt: skip
# Shorter signatures, for messages about files with the ending of an image.
_SHORT_SIGNATURES = {
    b"\x89PNG": "PNG", b"GIF8": "GIF", b"RIFF": "WebP", b"BM": "BMP", b"DDS ": "DDS",
}  # fmt: skip
# Formats whose signature is too short to distinguish an image from text: more of the header.
_HEADERS = {
    "BMP": re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
    "PPM": re.compile(rb"P[1-6]\s+(?:#|[0-9]+\s+[0-9#])"),
    "DDS": re.compile(rb"DDS \x7c\0\0\0"),
}
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_BEGINNING_BYTES = 132

# Pillow decodes about a million pixels per second with the decoders that are written in Python,
# except one that hands whole bands to C.
_MAX_SLOW_PIXELS = 10_000_000
_FAST_DECODER = "SGI16"
_MAX_ICON_PIXELS = 1024 * 1024
_MAX_ICON_PICTURES, _MAX_PNG_CHUNKS = 1000, 1000
_ICON_PIXEL_BYTES = 24  # the picture, that on white, and the steps between them
_ICON, _PNG, _OS2_HEADER = b"\0\0\1\0", b"\x89PNG\r\n\x1a\n", 12
_TGA_DEPTHS = {1: {8}, 2: {16, 24, 32}, 3: {8, 16}, 9: {8}, 10: {16, 24, 32}, 11: {8, 16}}
_TGA_FOOTER = b"TRUEVISION-XFILE."


def openable(data: bytes) -> tuple[str, ...]:
    """Return the names of Pillow's formats to try for a file's bytes."""
    return (*_installed_formats(), *(("TGA",) if is_tga(data) else ()))


@lru_cache(maxsize=1)
def _installed_formats() -> tuple[str, ...]:
    """Load plugins by name, since `PIL.Image.init` would also load those that run programs."""
    Image.preinit()
    for name in _PLUGINS:
        with contextlib.suppress(ImportError):  # an older Pillow
            importlib.import_module(f"PIL.{name}ImagePlugin")
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def is_tga(data: bytes) -> bool:
    """Return whether bytes are a TGA image, a format without a signature.

    Pillow would open random bytes as TGA. Therefore the header must be consistent, and the file
    must have a footer, or all pixels that the header declares.
    """
    if len(data) < 19 or data[1] > 1 or data[16] not in _TGA_DEPTHS.get(data[2], ()):
        return False
    width, height = struct.unpack_from("<HH", data, 12)
    if not width or not height or (data[2] in (1, 9)) != (data[1] == 1):
        return False
    needed = width * height * data[16] // 8 if data[2] < 9 else 1
    return data.endswith(_TGA_FOOTER + b"\0") or (data[2] < 9 and len(data) >= 18 + needed)


def excess(image: Image.Image, data: bytes) -> str | None:
    """Return why decoding an image exceeds a limit of its format; None if it does not."""
    pixels = image.size[0] * image.size[1]
    if image.format == "HEIF":
        if _coded_pixels(data) > limits.MAX_PIXELS:
            return f"declares {_coded_pixels(data):,} pixels; the limit is {limits.MAX_PIXELS:,}"
        return boxes.read_boxes(data, streams=False).excess(())
    if pixels > _MAX_SLOW_PIXELS and _is_decoded_in_python(image):
        return f"has {pixels:,} pixels; the limit for this format is {_MAX_SLOW_PIXELS:,}"
    if image.format == "JPEG2000":
        return jpeg2000.excess(data, image.size)
    return av1.excess(data) if image.format == "AVIF" else None


def _is_decoded_in_python(image: Image.Image) -> bool:
    """Return whether a decoder of an opened image is one that goes through it in Python."""
    names = {tile[0] for tile in getattr(image, "tile", ())}
    return any(name in Image.DECODERS for name in names - {_FAST_DECODER})


def codec_bytes(image: Image.Image, data: bytes) -> int:
    """Return the estimated bytes that a codec needs in addition to Pillow."""
    pixels = image.size[0] * image.size[1]
    if image.format == "HEIF":  # a crop of what is coded, in half a dozen bytes per pixel
        return max(pixels, _coded_pixels(data)) * 8
    if image.format == "JPEG2000":  # OpenJPEG holds each band in 32 bits, twice
        parts = jpeg2000.partition(jpeg2000.read_codestream(data))
        return pixels * 8 * max(3, len(image.getbands())) + parts.needed
    return max(pixels, av1.coded_pixels(data)) * 8 if image.format == "AVIF" else 0


def _coded_pixels(data: bytes) -> int:
    """Return the number of pixels of the largest picture that a HEIC file declares.

    The image may be a small part of it, but the whole picture is decoded first. The decoder
    refuses pictures larger than declared.
    """
    sizes = boxes.read_boxes(data, streams=False).sizes
    return max((width * height for width, height in sizes), default=0)


def is_icon(data: bytes) -> bool:
    """Return whether bytes begin as an icon, which Pillow decodes when it opens it."""
    return data.startswith(_ICON)


def icon_bytes(data: bytes) -> int:
    """Return the bytes of memory that opening an icon needs.

    Uses the header of each picture, since the sizes in the icon's directory are at most 256 and
    may be wrong.

    Raises
    ------
    BadImage
        If a picture is too large, or a header is missing or ambiguous.
    """
    most = 0
    try:
        count = struct.unpack_from("<H", data, 4)[0]
        if count > _MAX_ICON_PICTURES:
            raise BadImage(f"is an icon of {count:,} pictures; the limit is {_MAX_ICON_PICTURES:,}")
        for entry in range(count):
            width, height = _icon_size(data, struct.unpack_from("<I", data, 18 + 16 * entry)[0])
            if width * height > _MAX_ICON_PIXELS:
                raise BadImage(
                    f"is an icon with a picture of more than {_MAX_ICON_PIXELS:,} pixels: "
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
    """Return width and height of a PNG whose first chunk begins at an offset.

    Pillow uses the last size before the pixels; more than one is refused as ambiguous.
    """
    sizes = []
    for _ in range(_MAX_PNG_CHUNKS):
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
    """Return whether bytes begin as HEIC or HEIF, AVIF excluded."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def is_dicom(data: bytes) -> bool:
    """Return whether bytes begin as a DICOM file."""
    return data[128:132] == b"DICM"


def has_image_signature(path: str | os.PathLike[str], *, tiff: bool = True) -> bool:
    """Return whether a file begins with the signature of a readable image format.

    Parameters
    ----------
    path : path-like
    tiff : bool
        Whether TIFF counts; camera raw and other formats begin as TIFF as well.
    """
    start = _read_beginning(path)
    if is_heif(start) or is_dicom(start):
        return is_readable(".heic" if is_heif(start) else ".dcm")
    name = _signature(start)
    return name is not None and (tiff or name != "TIFF")


def looks_like_image(path: str | Path) -> bool:
    """Return whether a file is an image by its ending or its signature."""
    return Path(path).suffix.lower() in SUFFIXES or _signature(_read_beginning(path)) is not None


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


def _read_beginning(path: str | os.PathLike[str]) -> bytes:
    try:
        handle = open_to_read(path)
    except (OSError, ValueError):
        return b""
    try:
        return os.read(handle, _BEGINNING_BYTES) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(handle)


def is_readable(ending: str) -> bool:
    """Return whether the installed packages can decode files with an ending."""
    if ending == ".avif":
        return bool(features.check("avif")) if "avif" in features.modules else False
    return ending in SUFFIXES and missing_extra(ending) is None


def missing_extra(ending: str) -> str | None:
    """Return how to install the package that reads an ending; None if none is missing."""
    module = "pillow_heif" if ending in HEIF_SUFFIXES else "pydicom"
    if ending not in HEIF_SUFFIXES | DICOM_SUFFIXES or _installed(module):
        return None
    return f"{install_hint(_EXTRAS[module])} reads {ending}"


def missing_extra_of(path: str | os.PathLike[str]) -> str | None:
    """Return `missing_extra` for a file, by its content if its ending is unknown."""
    ending = Path(path).suffix.lower()
    if ending not in SUFFIXES:
        start = _read_beginning(path)
        ending = ".heic" if is_heif(start) else ".dcm" if is_dicom(start) else ending
    return missing_extra(ending)


@lru_cache
def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def require(module: str, what: str) -> None:
    """Raise `BadImage` that names the extra if a module is not installed."""
    if not _installed(module):
        raise BadImage(f"is {what}; to read it, {install_hint(_EXTRAS[module])}", lasting=False)


def unidentified_reason(data: bytes) -> str:
    """Return a reason for bytes that Pillow cannot identify, naming the format they begin as."""
    known = {**_SIGNATURES, **_SHORT_SIGNATURES}
    name = next((name for start, name in known.items() if data.startswith(start)), None)
    name = name or _signature(data[:_BEGINNING_BYTES])
    if name is not None:
        return f"is damaged: it starts as a {name} file, but is cut off or broken"
    return f"is not an image of a known format; it starts with {repr(data[:12])[1:]}"
