"""How many images go through the model at once: measured on the work, and remembered.

Pure bookkeeping but for the one small file that remembers.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from ..atomic import remember

_TRIALS = 2  # timed batches for each size, after one that is not
# As frameworks word it; none of them shares an exception with another.
_SIGNS_OF_NO_MEMORY = ("resource_exhausted", "out of memory", "bad_alloc", "oom when allocating")


class ForwardSize:
    """The number of images that a forward pass takes.

    Each candidate serves a few batches of the real work, and the quickest stays. A size
    that does not fit the memory is halved, and none so large is tried again.

    Parameters
    ----------
    candidates : sequence of int
        The first is tried first. A single one is not measured.
    memo : Path, optional
        Where the choice is remembered. If it is there, nothing is measured.
    """

    def __init__(self, candidates: Sequence[int], memo: Path | None = None) -> None:
        self._memo = memo
        known = _recall(memo)
        self._left = [known] if known else list(candidates)
        self._measured: dict[int, float] = {}
        self._times: list[float] = []
        self._skip = True

    @property
    def current(self) -> int:
        """The size for the next batch."""
        return self._left[0]

    @property
    def settled(self) -> bool:
        """Whether the search is over."""
        return len(self._left) == 1 and not self._measured

    def record(self, images: int, seconds: float) -> None:
        """Take in what a batch took; only whole batches should be told."""
        if self.settled:
            return
        if self._skip:  # the first pass of a size compiles and allocates
            self._skip = False
            return
        self._times.append(seconds / images)
        if len(self._times) == _TRIALS:
            self._measured[self.current] = statistics.median(self._times)
            self._next()

    def halve(self) -> bool:
        """Give up the current size for want of memory; False if it is 1."""
        size = self.current
        if size == 1:
            return False
        self._left = [other for other in self._left[1:] if other < size]
        if not self._left and not self._measured:
            self._left = [size // 2]
        self._restart()
        return True

    def _next(self) -> None:
        self._left.pop(0)
        self._restart()

    def _restart(self) -> None:
        self._times, self._skip = [], True
        if not self._left:
            self._left = [min(self._measured, key=self._measured.__getitem__)]
            self._measured = {}
        if self.settled and self._memo is not None:
            remember(self._memo, {"images": self.current}, "a batch size")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception of a framework means that memory did not suffice.

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    True
    >>> is_out_of_memory(ValueError("wrong shape"))
    False
    """
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS_OF_NO_MEMORY)


def _recall(memo: Path | None) -> int | None:
    if memo is None:
        return None
    try:
        size = json.loads(memo.read_bytes())["images"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # lost or damaged: measured again
    return size if type(size) is int and 1 <= size <= 4096 else None
