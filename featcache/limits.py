"""What an image may cost to decode: pixels, memory and work, told from its header alone.

A few kilobytes can declare gigabytes. Work is bounded by counting, not by a clock, so that
an image has the same fate on every machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator

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


class Room:
    """The memory in which images are decoded, shared by all threads.

    Parameters
    ----------
    total : int
        Bytes. One image alone may take more.
    """

    def __init__(self, total: int) -> None:
        self._total, self._used = total, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Wait until `count` bytes are free, and take them for as long as the block runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + count <= self._total)
            self._used += count
        try:
            yield
        finally:
            if count >= _LARGE_BYTES:
                _give_memory_back()
            with self._changed:
                self._used -= count
                self._changed.notify_all()


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
    # Each scan of a progressive JPEG goes over all of it; sound ones have about ten. Counting
    # takes longer than all else here, and most files are too short to hold too many.
    most = MAX_SCANNED_PIXELS // pixels
    if image.format in ("JPEG", "MPO") and len(data) > most * _SCAN_BYTES:
        scans = data.count(b"\xff\xda")
        if scans > most:
            return f"goes over its {width:,} x {height:,} pixels in {scans:,} scans"
    return None


def working_bytes(image: Image.Image) -> int:
    """Estimate the memory that decoding takes, conversion to RGB included.

    Examples
    --------
    >>> working_bytes(Image.new("RGB", (100, 10))), working_bytes(Image.new("RGBA", (100, 10)))
    (4000, 8000)
    """
    pixels = image.size[0] * image.size[1]
    own = _BYTES.get(image.mode, _FULL)
    more = 0 if image.mode == "RGB" else _FULL
    if image.info.get("progressive"):  # libjpeg keeps the coefficients of all bands till the end
        more = max(more, _COEFFICIENT_BYTES * len(image.getbands()))
    return pixels * (own + more)
