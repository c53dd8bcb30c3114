"""Limits on the pixels, memory and work of decoding an image, checked from its header.

A few kilobytes can declare gigabytes. Work is limited by counting, not by time, so that an image
is accepted or refused on every machine alike.
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

# Bytes per pixel in Pillow, which stores three bands in four bytes.
_BYTES = {"1": 1, "L": 1, "P": 1, "LA": 4, "PA": 4, "I;16": 2, "I;16B": 2, "I;16L": 2}
_FULL = 4
_COEFFICIENT_BYTES = 2
_LARGE_BYTES = 64_000_000
_SCAN_BYTES = 10  # minimum size of a scan's header
# libwebp keeps two canvases, and Pillow a copy of one, with four bytes per pixel each.
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
    """A limit on the memory for reading and decoding images, shared by all threads.

    Parameters
    ----------
    total : int
        Bytes. A single image may exceed it while no other image is processed.
    """

    def __init__(self, total: int = MAX_WORKING_BYTES) -> None:
        self._total, self._used = total, 0
        self._changed = threading.Condition()
        self._working = 0  # reservations that hold memory and are not waiting
        self._queue: list[Reservation] = []  # that hold a file and wait to decode it

    @contextlib.contextmanager
    def reservation(self) -> Iterator[Reservation]:
        """Context manager with a reservation for one image, released when the block ends."""
        made = Reservation(self)
        try:
            yield made
        finally:
            if made.count >= _LARGE_BYTES:
                _trim_memory()
            self._end(made)

    def _start(self, one: Reservation, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + count <= self._total)
            self._add(one, count)

    def _grow(self, one: Reservation, count: int) -> None:
        with self._changed:
            self._queue.append(one)
            self._working -= 1
            self._changed.notify_all()
            self._changed.wait_for(
                # If all reservations hold a file and wait, the first may exceed the limit.
                lambda: (
                    self._used + count <= self._total
                    or (not self._working and self._queue[0] is one)
                )
            )
            self._queue.remove(one)
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
    """Memory reserved from a `MemoryBudget` for one image: for its file, then for decoding.

    Attributes
    ----------
    count : int
        Bytes held.
    """

    def __init__(self, room: MemoryBudget) -> None:
        self._budget, self.count = room, 0

    def for_file(self, size: int) -> None:
        """Wait until a file of `size` bytes may be read."""
        self._budget._start(self, max(1, size))

    def for_decoding(self, size: int, working: int) -> None:
        """Wait until decoding a file of `size` bytes may use `working` further bytes."""
        if self.count:
            self._budget._grow(self, working)
        else:
            self._budget._start(self, max(1, size + working))


def _trim_memory() -> None:
    """Return freed memory to the system, which glibc would keep for each thread."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def excess(image: Image.Image, data: bytes) -> str | None:
    """Return why decoding an image would exceed a limit; None if it would not.

    Parameters
    ----------
    image : PIL.Image.Image
        Opened, not yet decoded.
    data : bytes
        Content of the file.
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
    """Return why a JPEG of a width and height has too many scans; None if it has not.

    Each scan of a progressive JPEG visits all pixels; usual files have about ten scans.
    """
    width, height = size
    max_scans = MAX_SCANNED_PIXELS // (width * height)
    # Counting is slow, and most files are too short to contain too many scans.
    if len(data) > max_scans * _SCAN_BYTES:
        scans = data.count(b"\xff\xda")
        if scans > max_scans:
            return f"goes over its {width:,} x {height:,} pixels in {scans:,} scans"
    return None


def working_bytes(image: Image.Image) -> int:
    """Return the estimated bytes for decoding and conversion to RGB, without the file itself.

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
    """Return the bytes of a TIFF's tile or strip, which is unpacked as a whole."""
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
