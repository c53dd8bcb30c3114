"""Decoded images that several threads use, each decoded once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from ..images.decode import Pixels
from .pipeline import IMAGE_TIMEOUT_SECONDS, blocked


class SharedDecode:
    """Decodes each image once, for all its views, and releases it after the last of them.

    Parameters
    ----------
    decode : callable
        Returns the pixels of the image at a position; raises `BadImage`.
    positions : iterable of int
        The position of each view that will be asked for.
    timeout : float
        Seconds to wait for another thread that decodes the image. Otherwise a read that never
        returns would block one thread for each view.
    """

    def __init__(
        self,
        decode: Callable[[int], Pixels],
        positions: Iterable[int],
        timeout: float = IMAGE_TIMEOUT_SECONDS,
    ) -> None:
        self._decode, self._timeout = decode, timeout
        self._wanted = {p: count for p, count in Counter(positions).items() if count > 1}
        self._images: dict[int, tuple[float, Future[Pixels]]] = {}
        self._lock = threading.Lock()

    def get(self, position: int) -> Pixels:
        """Return the pixels of an image: decode it, or wait for the thread that does."""
        if position not in self._wanted:
            return self._decode(position)
        with self._lock:
            first = position not in self._images
            if first:
                self._images[position] = time.monotonic(), Future()
            started, image = self._images[position]
        try:
            if first:
                self._fill(position, image)
            return image.result(max(0.0, started + self._timeout - time.monotonic()))
        except FutureTimeout:
            if image.done():  # decoding itself raised a TimeoutError
                raise
            raise blocked(self._timeout) from None
        finally:
            self._release(position)

    def _fill(self, position: int, image: Future[Pixels]) -> None:
        try:
            image.set_result(self._decode(position))
        except BaseException as error:
            image.set_exception(error)

    def _release(self, position: int) -> None:
        with self._lock:
            self._wanted[position] -= 1
            if self._wanted[position] == 0:
                del self._images[position]
