"""Batches of decoded images, made by threads ahead of the one who uses them."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from ..images.decode import Pixels
from ..images.image_file import BadImage
from .decoders import Decoders

T = TypeVar("T")
# Many times what the largest image allowed takes: what is not there by then never comes.
SECONDS_AN_IMAGE = 300.0
_PATIENCE_SECONDS = 1.0


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
    """Return how many threads decode: one per core, at most 8."""
    return max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4))


def batches(
    items: Sequence[T],
    load: Callable[[T], Pixels],
    batch_size: int | Callable[[], int],
    workers: int,
    seconds: float = SECONDS_AN_IMAGE,
) -> Generator[Batch[T], None, None]:
    """Decode items and yield them in batches, in their order.

    Parameters
    ----------
    items : sequence
    load : callable
        From an item to ``(h, w, 3)`` uint8; raises `BadImage`.
    batch_size : int or callable
        Images in the next batch; asked before each, if it can be called.
    workers : int
        Decoding threads. Pillow releases the interpreter's lock while it decodes.
    seconds : float
        An image that is not there so long after all before it were counts as failed, so that
        a disk that hangs costs one image and not the run. It is tried again next time.

    Yields
    ------
    Batch
        Full batches, but for the last. At most two batches are in memory beyond the one
        yielded, however long the list is.
    """
    size = _next_size(batch_size)
    waiting: deque[tuple[T, Future[Pixels]]] = deque()
    remaining = iter(items)
    loaded: list[T] = []
    pixels: list[Pixels] = []
    failures: list[tuple[T, BadImage]] = []
    pool = Decoders(load, workers)
    try:
        while True:
            for item in remaining:
                waiting.append((item, pool.submit(item)))
                if len(waiting) >= 2 * size:
                    break
            if not waiting:
                break
            if not loaded:
                _wait_a_while(waiting[min(size, len(waiting)) - 1][1])
            item, future = waiting.popleft()
            try:
                pixels.append(_in_time(future, seconds, pool))
                loaded.append(item)
            except BadImage as bad:
                failures.append((item, bad))
            if len(loaded) == size:
                yield Batch(loaded, np.stack(pixels), failures)
                loaded, pixels, failures = [], [], []
                size = _next_size(batch_size)
        if loaded or failures:
            stacked = np.stack(pixels) if pixels else np.empty((0, 1, 1, 3), np.uint8)
            yield Batch(loaded, stacked, failures)
    finally:
        # Also when the user of the batches stops early, as Ctrl-C makes it do.
        pool.close()


def _next_size(batch_size: int | Callable[[], int]) -> int:
    return batch_size() if callable(batch_size) else batch_size


def _wait_a_while(last: Future[Any]) -> None:
    """Wait for the last image of a batch, so that this thread wakes once and not for each.

    At each waking it takes the interpreter's lock from the threads that decode; that cost a
    tenth of their time. Slow images need no such care, so it is not waited for long.
    """
    with contextlib.suppress(Exception):  # told when it is this one's turn
        last.result(_PATIENCE_SECONDS)


def _in_time(future: Future[Pixels], seconds: float, pool: Decoders[T, Pixels]) -> Pixels:
    try:
        return future.result(seconds)
    except TooLate:
        if future.done():  # it came just now, or this is its own error
            return future.result()
        pool.give_up_one()
        reason = f"could not be read within {seconds:g} seconds; is its disk still there?"
        raise BadImage(reason, lasting=False) from None
