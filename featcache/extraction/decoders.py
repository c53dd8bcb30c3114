"""Threads that load images, and that are not waited for if one of them never comes back.

Decoding is bounded by counting (`limits`), but a file on a network disk that has gone away
can hold a thread for ever. Such a thread is skipped and another one takes its place;
being a daemon it does not keep the process from ending, as those of an executor would.
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


class Decoders(Generic[T, R]):
    """A few daemon threads that do one thing to one item after another, in order.

    Parameters
    ----------
    load : callable
        What to do; what it raises comes out of the future.
    count : int
        Number of threads.
    """

    def __init__(self, load: Callable[[T], R], count: int) -> None:
        self._load = load
        self._tasks: queue.SimpleQueue[tuple[T, Future[R]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lost = 0
        for _ in range(count):
            self._start()

    def submit(self, item: T) -> Future[R]:
        """Put an item in the queue; return the future of its result."""
        future: Future[R] = Future()
        self._tasks.put((item, future))
        return future

    def give_up_one(self) -> None:
        """Let another thread take the place of one that does not come back."""
        self._lost += 1
        self._start()

    def close(self) -> None:
        """Wait for what is being loaded; what is still in the queue is not begun."""
        while not self._tasks.empty():
            self._tasks.get()
        for _ in self._threads:
            self._tasks.put(None)
        if not self._lost:  # else there is no telling which of them would be waited for
            for thread in self._threads:
                thread.join()

    def _start(self) -> None:
        name = f"featcache-decode_{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        _yield_to_others()
        while (task := self._tasks.get()) is not None:
            item, future = task
            try:
                result = self._load(item)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del task, item, future  # or the last image stays in memory while the thread waits


def _yield_to_others() -> None:
    """Let this thread run when no other wants to, and longer at a time, where Linux knows how.

    The backbone's threads would otherwise be stopped each time that an image has been read.
    """
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
