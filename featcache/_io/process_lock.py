"""A lock between the processes of one machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .logs import get_logger

log = get_logger(__name__)

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@contextlib.contextmanager
def process_lock(file: Path, waits_for: str) -> Iterator[None]:
    """Context manager that only one process or thread is in at a time.

    The system releases the lock when a process ends, however it ends. Where files cannot be
    locked, as on some network disks, nobody waits: the lock only saves work.

    Parameters
    ----------
    file : Path
        An empty file, created if it is missing, and never deleted: another process could
        hold the lock of the deleted one.
    waits_for : str
        What the message says if the lock is held by another.
    """
    handle = _lock(file, waits_for)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _lock(file: Path, waits_for: str) -> int | None:
    """Return the descriptor that holds the lock; None if files cannot be locked."""
    handle = None
    try:
        import fcntl

        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, _FLAGS, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("Waiting for %s.", waits_for)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except (ImportError, OSError) as error:
        log.debug("%s cannot be locked: %s", file, error)
        if handle is not None:
            os.close(handle)
        return None
    except BaseException:  # Ctrl-C while it waits
        if handle is not None:
            os.close(handle)
        raise
    return handle
