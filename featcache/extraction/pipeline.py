"""Batches of decoded images, prefetched by threads."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from ..images.decode import Pixels
from ..images.image_file import BadImage
from .decoders import DecoderPool

T = TypeVar("T")
# Many times what the largest image allowed takes: a read that takes longer is blocked.
IMAGE_TIMEOUT_SECONDS = 300.0
_BATCH_WAIT_SECONDS = 1.0


@dataclass
class Batch(Generic[T]):
    """Decoded images, and the items before them that could not be decoded.

    Attributes
    ----------
    items : list
        The item of each image.
    pixels : ndarray (b, h, w, 3), uint8, 0 to 255
        Empty if the batch holds failures alone.
    failures : list of (item, BadImage)
    """

    items: list[T]
    pixels: Pixels
    failures: list[tuple[T, BadImage]] = field(default_factory=list)


def default_workers(devices: int = 1) -> int:
    """Return the default number of decoding threads: one per core, at most 8 per device."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
    return max(1, min(8 * devices, cores))


def batches(
    items: Sequence[T],
    load: Callable[[T], Pixels],
    batch_size: int | Callable[[], int],
    workers: int,
    timeout: float = IMAGE_TIMEOUT_SECONDS,
) -> Generator[Batch[T], None, None]:
    """Decode items and yield them in batches, in their order.

    Parameters
    ----------
    items : sequence
    load : callable
        Returns the pixels of an item, ``(h, w, 3)`` uint8; raises `BadImage`.
    batch_size : int or callable
        Number of images of a batch; a callable is called before each batch.
    workers : int
        Number of decoding threads. Pillow releases the interpreter's lock while it decodes.
    timeout : float
        Seconds to wait for an image once all images before it are decoded. Then it counts as
        failed, so that a disk that hangs costs one image and not the run. The next extraction
        tries it again.

    Yields
    ------
    Batch
        Full batches, except for the last. At most two batches are in memory besides the one
        yielded.
    """
    size = _next_size(batch_size)
    waiting: deque[tuple[T, Future[Pixels]]] = deque()
    remaining = iter(items)
    loaded: list[T] = []
    pixels: list[Pixels] = []
    failures: list[tuple[T, BadImage]] = []
    pool = DecoderPool(load, workers)
    try:
        while True:
            for item in remaining:
                waiting.append((item, pool.submit(item)))
                if len(waiting) >= 2 * size:
                    break
            if not waiting:
                break
            if not loaded:
                _wait_for_batch(waiting[min(size, len(waiting)) - 1][1])
            item, future = waiting.popleft()
            try:
                pixels.append(_result(future, timeout, pool))
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
        # Also when the caller stops iterating early, as on Ctrl-C.
        pool.close()


def _next_size(batch_size: int | Callable[[], int]) -> int:
    return batch_size() if callable(batch_size) else batch_size


def _wait_for_batch(last: Future[Any]) -> None:
    """Wait up to a second for the last image of a batch.

    Waking once per image would take the interpreter's lock from the decoding threads each time,
    which cost a tenth of their throughput. Where decoding is slow this does not matter.
    """
    with contextlib.suppress(Exception):  # raised again by `_result`, in the order of the items
        last.result(_BATCH_WAIT_SECONDS)


def _result(future: Future[Pixels], timeout: float, pool: DecoderPool[T, Pixels]) -> Pixels:
    try:
        return future.result(timeout)
    except FutureTimeout:
        if future.done():  # it has just ended, or `load` itself raised a TimeoutError
            return future.result()
        pool.replace_blocked_thread()
        raise blocked(timeout) from None


def blocked(timeout: float) -> BadImage:
    """Return the error for an image whose read does not return; the next extraction retries it."""
    reason = f"could not be read within {timeout:g} seconds; is its disk still connected?"
    return BadImage(reason, lasting=False)
