"""Reading ahead from sources whose reads take long: many requests at a time, bounded memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Generic, Protocol, TypeVar

from ..images.image_file import BadImage

T = TypeVar("T")
MAX_REQUESTS = 64
MAX_BYTES_AHEAD = 256 * 2**20
TIMEOUT_SECONDS = 300.0
_POLL_SECONDS = 0.01


class Gate(Protocol):
    """What a read asks before it takes memory."""

    def try_reserve(self, size: int) -> bool:
        """Return whether `size` further bytes may be taken now."""
        ...


class OpenGate:
    """A gate for a single read, which nothing else waits for."""

    def try_reserve(self, size: int) -> bool:
        """Return True."""
        return True


def wait_for(gate: Gate, size: int) -> None:
    """Wait until `size` bytes may be taken."""
    while not gate.try_reserve(size):
        time.sleep(_POLL_SECONDS)


async def wait_async(gate: Gate, size: int) -> None:
    """Wait until `size` bytes may be taken, in a coroutine."""
    while not gate.try_reserve(size):
        await asyncio.sleep(_POLL_SECONDS)


class _Request(Generic[T]):
    def __init__(self, owner: ReadAhead[T]) -> None:
        self._owner = owner
        self.size = 0
        self.demanded = False
        self.future: Future[T]

    def try_reserve(self, size: int) -> bool:
        return self._owner._try_reserve(self, size)


class ReadAhead(Generic[T]):
    """Starts reads in the order in which their results will be asked for.

    At most `MAX_REQUESTS` reads are under way or wait to be asked for, with `MAX_BYTES_AHEAD`
    bytes in all; one that is being asked for never waits for memory that a later one holds.

    Parameters
    ----------
    positions : sequence of int
        In about the order of `get`, which may also ask for others.
    start : callable
        Starts to read the image at a position; is given a `Gate`. Returns a future.
    """

    def __init__(self, positions: Sequence[int], start: Callable[[int, Gate], Future[T]]) -> None:
        self._remaining, self._start_read = deque(positions), start
        self._requests: dict[int, _Request[T]] = {}
        self._asked: set[int] = set()
        self._used = 0
        self._lock = threading.RLock()
        self._closed = False

    def get(self, position: int) -> T:
        """Return the result of a read; start it if that has not happened.

        Raises
        ------
        BadImage
            If the read fails so, or takes longer than `TIMEOUT_SECONDS`.
        """
        with self._lock:
            request = self._requests.get(position) or self._start(position)
            request.demanded = True
            self._asked.add(position)
            self._fill()
        try:
            return request.future.result(TIMEOUT_SECONDS)
        except FutureTimeout:
            if request.future.done():
                raise
            request.future.cancel()
            raise BadImage(
                f"could not be read within {TIMEOUT_SECONDS:g} seconds", lasting=False
            ) from None
        finally:
            with self._lock:
                if self._requests.get(position) is request:
                    del self._requests[position]
                    self._used -= request.size
                self._fill()

    def close(self) -> None:
        """Cancel all reads that nobody waits for."""
        with self._lock:
            self._closed = True
            self._remaining.clear()
            for request in self._requests.values():
                request.future.cancel()

    def _fill(self) -> None:
        """Start further reads, up to the limit."""
        while self._remaining and len(self._requests) < MAX_REQUESTS and not self._closed:
            position = self._remaining.popleft()
            if position not in self._requests and position not in self._asked:
                self._start(position)

    def _start(self, position: int) -> _Request[T]:
        request = self._requests[position] = _Request(self)
        request.future = self._start_read(position, request)
        return request

    def _try_reserve(self, request: _Request[T], size: int) -> bool:
        with self._lock:
            free = self._used + size <= MAX_BYTES_AHEAD or not self._used
            if not (free or request.demanded or self._closed):
                return False
            if any(one is request for one in self._requests.values()):
                self._used += size
                request.size += size
            return True
