"""A pool of daemon threads that load images, and that survives a read that never returns.

`images.limits` bounds the work of decoding, but a read from a network disk that has gone away
can block a thread forever. The pool starts another thread in its place. The threads are daemons,
so a blocked one does not keep the process alive, as a thread of an executor would.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class DecoderPool(Generic[T, R]):
    """Daemon threads that call one function on submitted items, first in, first out.

    Parameters
    ----------
    load : callable
        Called with each item; its result or exception is set on the item's future.
    count : int
        Number of threads.
    """

    def __init__(self, load: Callable[[T], R], count: int) -> None:
        self._load = load
        self._tasks: queue.SimpleQueue[tuple[T, Future[R]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._n_blocked = 0
        for _ in range(count):
            self._start()

    def submit(self, item: T) -> Future[R]:
        """Put an item in the queue; return the future of its result."""
        future: Future[R] = Future()
        self._tasks.put((item, future))
        return future

    def replace_blocked_thread(self) -> None:
        """Start another thread in place of one that is blocked."""
        self._n_blocked += 1
        self._start()

    def close(self) -> None:
        """Wait for the items that are being loaded; drop those that are still queued."""
        while not self._tasks.empty():
            self._tasks.get()
        for _ in self._threads:
            self._tasks.put(None)
        if not self._n_blocked:  # else joining could wait forever: which one blocks is unknown
            for thread in self._threads:
                thread.join()

    def _start(self) -> None:
        name = f"featcache-decode_{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        _use_batch_scheduling()
        while (task := self._tasks.get()) is not None:
            item, future = task
            try:
                result = self._load(item)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del task, item, future  # else the last image stays in memory while the thread waits


def _use_batch_scheduling() -> None:
    """Schedule this thread as a batch job, where the system (Linux) supports that.

    Otherwise it would preempt the backbone's threads each time that an image has been read.
    """
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
