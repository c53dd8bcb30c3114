"""Estimates of a contender's cost, from a measured batch."""

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
    """Estimated cost of one kind of work.

    Attributes
    ----------
    what : str
        Human-readable description of the work.
    seconds : float
        Wall time.
    disk_bytes : int
    at_most : bool
        Whether `seconds` is an upper bound, as of training with early stopping.
    """

    what: str
    seconds: float
    disk_bytes: int
    at_most: bool = False


def seconds_to_decode(images: Images, size: tuple[int, int], resize: Resize) -> float:
    """Measure the seconds per image of decoding with all cores, on at most 64 images."""
    few = images.take(range(min(64, len(images))))

    started = time.perf_counter()
    rows, budget = range(len(few)), MemoryBudget()

    def load(row: int) -> NDArray[np.uint8]:
        return few.pixels(row, size, resize, budget)

    for _ in batches(rows, load, 32, default_workers()):
        pass
    return (time.perf_counter() - started) / len(few)


def seconds_of(step: Callable[[], object], times: int = 2) -> float:
    """Measure the mean seconds of a step, after one call that compiles and is not counted."""
    step()
    started = time.perf_counter()
    for _ in range(times):
        step()
    return (time.perf_counter() - started) / times
