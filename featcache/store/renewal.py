"""Renewal of claims on a store by a thread, for as long as they are held."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol


class Renewable(Protocol):
    """A claim that is renewed while it is held; false if it was not acquired."""

    def __bool__(self) -> bool:
        """Return whether it was acquired."""
        ...

    def renew(self) -> None:
        """Show other processes that it is in use."""
        ...

    def release(self) -> None:
        """Release it."""
        ...


@contextlib.contextmanager
def renewed(held: Renewable, seconds: float) -> Iterator[None]:
    """Context manager that renews a claim in a thread every few seconds and finally releases it."""
    if not held:
        yield
        return
    done = threading.Event()

    def renew() -> None:
        while not done.wait(seconds):
            held.renew()

    thread = threading.Thread(target=renew, name="featcache-lease", daemon=True)
    try:
        with contextlib.suppress(RuntimeError):  # no thread available: valid for one lifetime
            thread.start()
        yield
    finally:
        done.set()
        if thread.ident is not None:
            thread.join()  # else it could renew another file that gets the same descriptor
        held.release()
