"""Peak resident memory of this process during a block of code."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil


def resident_bytes() -> int:
    """Return the resident size in bytes; 0 where the system does not report it."""
    try:
        return int(psutil.Process().memory_info().rss)
    except (psutil.Error, OSError):
        return 0


class PeakMemory:
    """A context manager that samples the resident size every `interval` seconds.

    Attributes
    ----------
    peak : int
        Largest resident size in bytes; 0 where the system does not report it.
    """

    def __init__(self, interval: float = 0.05) -> None:
        self.peak = 0
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, resident_bytes())

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self.peak = max(self.peak, resident_bytes())
