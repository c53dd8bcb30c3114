"""How many images go through the model at once: measured, remembered, halved if need be.

Pure bookkeeping but for the one small file that remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .._io.atomic import read_memo, write_memo

# What a change must gain. Times differ by some per cent without a cause, and by chance alone
# nothing should take the place of the size that is known to do well.
_MARGIN = 0.97
# As frameworks word it; none of them shares an exception with another.
_SIGNS_OF_NO_MEMORY = ("resource_exhausted", "out of memory", "bad_alloc", "oom when allocating")


class MicroBatchSize:
    """The number of images that a forward pass takes.

    Parameters
    ----------
    size : int
    memo : Path, optional
        Where the size is remembered if it has to be halved.

    Attributes
    ----------
    current : int
        The size for the next pass.
    """

    def __init__(self, size: int, memo: Path | None = None) -> None:
        self.current, self._memo = size, memo

    def halve(self) -> bool:
        """Give up the current size for want of memory; False if it is 1."""
        if self.current == 1:
            return False
        self.current //= 2
        if self._memo is not None:
            remember_size(self._memo, self.current)
        return True


def quickest(candidates: Sequence[int], seconds: Callable[[int], float]) -> int:
    """Return the candidate that takes least; the first, unless another gains 3 %.

    Parameters
    ----------
    candidates : sequence of int
        The first is the usual one.
    seconds : callable
        Measures what the same work takes at a size. One that does not fit the memory is
        passed over.

    Examples
    --------
    >>> quickest((4, 2, 8), {4: 1.0, 2: 0.9, 8: 1.2}.__getitem__)
    2
    >>> quickest((4, 2, 8), {4: 1.0, 2: 0.98, 8: 1.2}.__getitem__)
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
        return candidates[0]  # the work itself will halve it
    first, best = next(iter(measured)), min(measured, key=measured.__getitem__)
    return best if measured[best] < _MARGIN * measured[first] else first


def remember_size(memo: Path, size: int) -> None:
    """Keep a size for the next extraction."""
    write_memo(memo, {"images": size}, "a batch size")


def remembered_size(memo: Path) -> int | None:
    """Return the size that was kept; None if there is none, or it makes no sense."""
    kept = read_memo(memo)  # None if lost or damaged: measured again
    size = kept.get("images") if isinstance(kept, dict) else None
    return size if type(size) is int and 1 <= size <= 4096 else None


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
