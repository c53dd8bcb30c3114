"""Batches of decoded images, made by threads ahead of the one who uses them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from .images import BadImage, Pixels

T = TypeVar("T")


@dataclass
class Batch(Generic[T]):
    """Decoded images and those that failed on the way.

    Attributes
    ----------
    items : list
        What the pixels belong to, in order.
    pixels : ndarray (b, h, w, 3), uint8
        May be empty if only failures are left to tell.
    failures : list of (item, BadImage)
    """

    items: list[T]
    pixels: Pixels
    failures: list[tuple[T, BadImage]] = field(default_factory=list)


def default_workers() -> int:
    """Return how many threads decode: one a core, at most 8."""
    return max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4))


def batches(
    items: Sequence[T], load: Callable[[T], Pixels], batch_size: int, workers: int
) -> Generator[Batch[T], None, None]:
    """Decode items and yield them in batches, in their order.

    Parameters
    ----------
    items : sequence
    load : callable
        From an item to ``(h, w, 3)`` uint8; raises `BadImage`.
    batch_size : int
    workers : int
        Decoding threads. Pillow releases the interpreter's lock while it decodes.

    Yields
    ------
    Batch
        Full batches, but for the last. At most two batches are in memory beyond the one
        yielded, however long the list is.
    """
    ahead = 2 * batch_size
    waiting: deque[tuple[T, Future[Pixels]]] = deque()
    remaining = iter(items)
    loaded: list[T] = []
    pixels: list[Pixels] = []
    failures: list[tuple[T, BadImage]] = []
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="featcache-decode")
    try:
        while True:
            for item in remaining:
                waiting.append((item, pool.submit(load, item)))
                if len(waiting) >= ahead:
                    break
            if not waiting:
                break
            item, future = waiting.popleft()
            try:
                pixels.append(future.result())
                loaded.append(item)
            except BadImage as bad:
                failures.append((item, bad))
            if len(loaded) == batch_size:
                yield Batch(loaded, np.stack(pixels), failures)
                loaded, pixels, failures = [], [], []
        if loaded or failures:
            stacked = np.stack(pixels) if pixels else np.empty((0, 1, 1, 3), np.uint8)
            yield Batch(loaded, stacked, failures)
    finally:
        # Also when the user of the batches stops early, as Ctrl-C makes it do.
        pool.shutdown(wait=True, cancel_futures=True)
