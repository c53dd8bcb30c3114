"""Checks of compressed frames in DICOM files before they are decoded.

The file declares rows and columns, but the decoder uses the header of the frame: both must
agree.
"""

from __future__ import annotations

import io
import itertools
import struct

from PIL import Image

from . import jpeg2000, limits
from .image_file import BadImage

_JPEG, _JPEG_2000 = b"\xff\xd8", (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")
_RLE_PADDING = 1000
_SMALL_RLE = 1_000_000  # unpacks to 64 times that at most
_SOS = 0xDA
# The headers of frames; F7 is that of JPEG-LS. C4, C8 and CC are other markers.
_SIZES = (*(set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}), 0xF7)
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))


def frame_bytes(frame: bytes, size: tuple[int, int]) -> int:
    """Return the bytes of memory that decoding a frame needs in addition to its pixels.

    Parameters
    ----------
    frame : bytes
        Compressed as JPEG, JPEG-LS, JPEG 2000 or RLE, recognised by content.
    size : (int, int)
        The columns and rows that the DICOM file declares.

    Raises
    ------
    BadImage
        If the frame has another size, or is of none of these.
    """
    more = 0
    if frame.startswith(_JPEG_2000):
        _require_size(Image.open(io.BytesIO(frame), formats=("JPEG2000",)).size, size)
        reason = jpeg2000.excess(frame, size)
        more = jpeg2000.partition(jpeg2000.read_codestream(frame)).needed
    elif frame.startswith(_JPEG):
        for found in _jpeg_sizes(frame):
            _require_size(found, size)
        reason = limits.scan_excess(size, frame)
    elif not frame or not 1 <= frame[0] <= 15:  # the number of segments
        raise BadImage(f"holds a DICOM frame of unknown compression; it starts with {frame[:8]!r}")
    else:
        reason = _rle_excess(frame, size)
    if reason is not None:
        raise BadImage(reason)
    return more


def _require_size(found: tuple[int, int], declared: tuple[int, int]) -> None:
    if found != declared:
        raise BadImage(
            f"declares {declared[0]:,} x {declared[1]:,} pixels, but its compressed DICOM frame "
            f"has {found[0]:,} x {found[1]:,}"
        )


def _jpeg_sizes(frame: bytes) -> list[tuple[int, int]]:
    """Return each width and height that a JPEG's headers declare before its first scan."""
    sizes = []
    at = 2
    try:
        while True:
            start, marker = struct.unpack_from(">BB", frame, at)
            if start != 0xFF:
                raise BadImage("is damaged: the JPEG in its DICOM frame has no valid header")
            if marker == 0xFF or marker in _WITHOUT_LENGTH:
                at += 1 if marker == 0xFF else 2
                continue
            if marker == _SOS:
                break
            if marker in _SIZES:
                height, width = struct.unpack_from(">HH", frame, at + 5)
                sizes.append((width, height))
            at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    except struct.error as error:
        raise BadImage("is damaged: the JPEG in its DICOM frame is cut off") from error
    if not sizes:
        raise BadImage("is damaged: the JPEG in its DICOM frame declares no size")
    return sizes


def _rle_excess(frame: bytes, size: tuple[int, int]) -> str | None:
    """Return why an RLE frame is too large, as each segment is unpacked whole; else None."""
    if len(frame) < _SMALL_RLE:  # counting is slow
        return None
    max_bytes = size[0] * size[1] + _RLE_PADDING
    count = struct.unpack_from("<I", frame)[0]
    ends = [*struct.unpack_from(f"<{count}I", frame, 4), len(frame)]
    for start, end in itertools.pairwise(ends):
        length = _unpacked_length(frame[start:end], max_bytes)
        if length > max_bytes:
            return (
                f"declares {size[0]:,} x {size[1]:,} pixels, but its RLE frame unpacks to more "
                f"than {max_bytes:,} bytes per segment"
            )
    return None


def _unpacked_length(segment: bytes, max_bytes: int) -> int:
    """Count the bytes that a segment unpacks to, up to `max_bytes` and a run more."""
    length, at = 0, 0
    while at < len(segment) and length <= max_bytes:
        header = segment[at]
        if header < 128:
            length += header + 1
            at += header + 2
        else:
            length += 257 - header if header > 128 else 0
            at += 2 if header > 128 else 1
    return length
