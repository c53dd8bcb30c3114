"""What an image may cost to decode: pixels, memory and work, told from its header alone.

A few kilobytes can declare gigabytes. Work is bounded by counting, not by a clock, so that
an image has the same fate on every machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from typing import Any

from PIL import Image

MAX_PIXELS = 100_000_000
MAX_WORKING_BYTES = 800_000_000
MAX_SCANNED_PIXELS = 2_500_000_000

# Bytes of a pixel in Pillow's memory; it keeps three bands in four.
_BYTES = {"1": 1, "L": 1, "P": 1, "LA": 4, "PA": 4, "I;16": 2, "I;16B": 2, "I;16L": 2}
_FULL = 4
_COEFFICIENT_BYTES = 2
_LARGE_BYTES = 64_000_000
_SCAN_BYTES = 10  # what the header of a scan takes at least
# libwebp keeps two canvases, and Pillow a copy of one as bytes, four bytes a pixel each.
_WEBP_BYTES = 12
_SMALL_PIECE = 4_000_000  # bytes of a TIFF's tile or strip; usual ones are far below
_UNCOMPRESSED = 1
_YCBCR, _JPEG = 6, 7
_PLANAR = 2
_TIFF = {
    "bits": 258, "compression": 259, "colours": 262, "samples": 277, "rows_per_strip": 278,
    "planes": 284, "tile_width": 322, "tile_length": 323,
}  # fmt: skip


class MemoryBudget:
    """The memory in which images are read and decoded, shared by all threads.

    Parameters
    ----------
    total : int
        Bytes. One image alone may take more.
    """

    def __init__(self, total: int = MAX_WORKING_BYTES) -> None:
        self._total, self._used = total, 0
        self._changed = threading.Condition()
        self._working = 0  # reservations that hold something and wait for nothing
        self._line: list[Reservation] = []  # that hold a file and wait to decode it

    @contextlib.contextmanager
    def reservation(self) -> Iterator[Reservation]:
        """Hand out a reservation for one image, which ends with the block."""
        made = Reservation(self)
        try:
            yield made
        finally:
            if made.count >= _LARGE_BYTES:
                _give_memory_back()
            self._end(made)

    @contextlib.contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Wait until `count` bytes are free, and take them for as long as the block runs."""
        with self.reservation() as made:
            made.for_file(count)
            yield

    def _start(self, one: Reservation, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + count <= self._total)
            self._add(one, count)

    def _grow(self, one: Reservation, count: int) -> None:
        with self._changed:
            self._line.append(one)
            self._working -= 1
            self._changed.notify_all()
            self._changed.wait_for(
                # Where everyone holds a file and waits for the others, the first goes on.
                lambda: (
                    self._used + count <= self._total
                    or (not self._working and self._line[0] is one)
                )
            )
            self._line.remove(one)
            self._add(one, count)

    def _add(self, one: Reservation, count: int) -> None:
        self._used += count
        one.count += count
        self._working += 1

    def _end(self, one: Reservation) -> None:
        with self._changed:
            self._used -= one.count
            self._working -= bool(one.count)
            one.count = 0
            self._changed.notify_all()


class Reservation:
    """What one image takes of a `MemoryBudget`: its file's bytes, and then what decoding needs.

    Attributes
    ----------
    count : int
        Bytes held.
    """

    def __init__(self, room: MemoryBudget) -> None:
        self._room, self.count = room, 0

    def for_file(self, size: int) -> None:
        """Wait until a file of that many bytes may be read."""
        self._room._start(self, max(1, size))

    def for_decoding(self, size: int, working: int) -> None:
        """Wait until a file of `size` bytes may take `working` more to be decoded."""
        if self.count:
            self._room._grow(self, working)
        else:
            self._room._start(self, max(1, size + working))


def _give_memory_back() -> None:
    """Let the C library return what was freed, which glibc else keeps for each thread."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def excess(image: Image.Image, data: bytes) -> str | None:
    """Say why an image that is open, but not decoded, is too much; None if it is not.

    Parameters
    ----------
    image : PIL.Image.Image
        Its header was read.
    data : bytes
        The whole file.
    """
    width, height = image.size
    pixels = width * height
    if width < 1 or height < 1:
        return f"has no pixels ({width} x {height})"
    if pixels > MAX_PIXELS:
        return f"has {width:,} x {height:,} pixels; the limit is {MAX_PIXELS:,} in all"
    needed = working_bytes(image)
    if needed > MAX_WORKING_BYTES:
        return (
            f"would take {needed / 1e6:,.0f} MB to decode ({width:,} x {height:,}, "
            f"{image.mode}); the limit is {MAX_WORKING_BYTES / 1e6:,.0f} MB"
        )
    return scan_excess(image.size, data) if image.format in ("JPEG", "MPO") else None


def scan_excess(size: tuple[int, int], data: bytes) -> str | None:
    """Say why a JPEG of that width and height has too many scans; None if it has not.

    Each scan of a progressive JPEG goes over all of it; valid ones have about ten.
    """
    width, height = size
    most = MAX_SCANNED_PIXELS // (width * height)
    # Counting takes longer than all else here, and most files are too short to hold too many.
    if len(data) > most * _SCAN_BYTES:
        scans = data.count(b"\xff\xda")
        if scans > most:
            return f"goes over its {width:,} x {height:,} pixels in {scans:,} scans"
    return None


def working_bytes(image: Image.Image) -> int:
    """Estimate the memory that decoding takes, conversion to RGB included, the file's bytes not.

    Examples
    --------
    >>> working_bytes(Image.new("RGB", (100, 10))), working_bytes(Image.new("RGBA", (100, 10)))
    (4000, 8000)
    """
    pixels = image.size[0] * image.size[1]
    if image.format == "WEBP":
        return pixels * (_WEBP_BYTES + 2 * _FULL)
    own = _BYTES.get(image.mode, _FULL)
    more = 0 if image.mode == "RGB" else _FULL
    if image.info.get("progressive"):  # libjpeg keeps the coefficients of all bands till the end
        more = max(more, _COEFFICIENT_BYTES * len(image.getbands()))
    return pixels * (own + more) + _piece_bytes(image)


def _piece_bytes(image: Image.Image) -> int:
    """Return the size of a TIFF's tile or strip, which is unpacked whole whatever the image's."""
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return 0
    number = {name: _largest(tags.get(tag)) for name, tag in _TIFF.items()}
    if number["compression"] == _UNCOMPRESSED:
        return 0
    width, height = image.size
    if number["tile_width"] and number["tile_length"]:
        area = number["tile_width"] * number["tile_length"]
    else:
        area = width * min(number["rows_per_strip"] or height, height)
    samples = 1 if number["planes"] == _PLANAR else max(1, number["samples"])
    unpacked = area * max(1, number["bits"]) * samples // 8
    if number["colours"] == _YCBCR and number["compression"] != _JPEG:
        unpacked += _FULL * area  # turned to RGB piece by piece
    return unpacked if unpacked > _SMALL_PIECE else 0


def _largest(value: Any) -> int:
    """Return the largest number of a TIFF's tag; 0 if there is none."""
    values = value if isinstance(value, (tuple, list)) else (value,)
    return max((int(v) for v in values if isinstance(v, (int, float))), default=0)
