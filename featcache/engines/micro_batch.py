"""Micro-batch sizes: measured once, cached in a file, halved when memory is insufficient."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from .._io.atomic import read_memo, write_memo

# Another size must be faster than the default by this factor: times vary by a few per cent.
_MARGIN = 0.97
# Texts of the frameworks' errors, which have no common exception type.
_OUT_OF_MEMORY_TEXTS = (
    "resource_exhausted",
    "out of memory",
    "bad_alloc",
    "oom when allocating",
    "failed to allocate memory",
)


class MicroBatchSize:
    """The number of images per micro-batch.

    Parameters
    ----------
    size : int
    memo : Path, optional
        File in which a halved size is cached.

    Attributes
    ----------
    current : int
        Size of the next micro-batch.
    """

    def __init__(self, size: int, memo: Path | None = None) -> None:
        self.current, self._memo = size, memo
        self._lock = threading.Lock()

    def halve(self, size: int) -> bool:
        """Halve the size after running out of memory at a size; return False if that was 1.

        Nothing is halved if another thread, whose batch of that size failed too, has done so.
        """
        with self._lock:
            if size == 1:
                return False
            if size == self.current:
                self.current //= 2
                if self._memo is not None:
                    write_size(self._memo, self.current)
            return True


def find_fastest(candidates: Sequence[int], seconds: Callable[[int], float]) -> int:
    """Return the fastest candidate; the first one unless another is faster by 3 %.

    Parameters
    ----------
    candidates : sequence of int
        The default first.
    seconds : callable
        Returns the time of the same work at a size. A size for which memory is insufficient is
        skipped.

    Examples
    --------
    >>> find_fastest((4, 2, 8), {4: 1.0, 2: 0.9, 8: 1.2}.__getitem__)
    2
    >>> find_fastest((4, 2, 8), {4: 1.0, 2: 0.98, 8: 1.2}.__getitem__)
    4
    """
    measured: dict[int, float] = {}
    for size in candidates:
        try:
            measured[size] = seconds(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
    if not measured:
        return candidates[0]  # it is halved during the extraction
    first, best = next(iter(measured)), min(measured, key=measured.__getitem__)
    return best if measured[best] < _MARGIN * measured[first] else first


def write_size(memo: Path, size: int) -> None:
    """Cache a micro-batch size for later extractions."""
    write_memo(memo, {"images": size}, "a batch size")


def read_size(memo: Path) -> int | None:
    """Return the cached micro-batch size; None if there is none or it is invalid."""
    record = read_memo(memo)  # None if lost or damaged: measured again
    size = record.get("images") if isinstance(record, dict) else None
    return size if type(size) is int and 1 <= size <= 4096 else None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception of a framework means that memory is insufficient.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    True
    >>> is_out_of_memory(ValueError("wrong shape"))
    False
    """
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY_TEXTS)
