"""What a piece of a contender's work will take, measured on a batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.toolkit import MemoryBudget, Resize, batches, default_workers

from ..splits import Images


@dataclass(frozen=True)
class Estimate:
    """What one piece of work will take.

    Attributes
    ----------
    what : str
        For people.
    seconds : float
    disk_bytes : int
    at_most : bool
        Whether it may well take less, since training stops when it no longer pays.
    """

    what: str
    seconds: float
    disk_bytes: int
    at_most: bool = False


def seconds_to_decode(images: Images, size: tuple[int, int], resize: Resize) -> float:
    """Measure what decoding an image takes, on all cores, from at most 64 of them."""
    few = images.take(range(min(64, len(images))))

    started = time.perf_counter()
    rows, budget = range(len(few)), MemoryBudget()

    def load(row: int) -> NDArray[np.uint8]:
        return few.pixels(row, size, resize, budget)

    for _ in batches(rows, load, 32, default_workers()):
        pass
    return (time.perf_counter() - started) / len(few)


def seconds_of(step: Callable[[], object], times: int = 2) -> float:
    """Measure a step after one that does not count, in which things are compiled."""
    step()
    started = time.perf_counter()
    for _ in range(times):
        step()
    return (time.perf_counter() - started) / times
