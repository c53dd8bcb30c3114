"""Claims on a store: an exclusive lease for those who remove files, marks of those who use it.

A claim is a file that its owner keeps open and renews while it works, so that it needs no
locks, which fail on network disks, and no room on a full disk: an empty file is a claim as
well. Whoever finds one that nobody renews any more, or whose process is gone, removes it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from .atomic import TEMPORARY_PREFIX
from .errors import LeaseLost

NAME = ".lease"
USE_PREFIX = ".use-"
LIFETIME = 120.0
_RENEWALS = 6  # per lifetime: a process may be held up for most of it


class Lease:
    """A claim, or the lack of it: false if another process holds the lease.

    Attributes
    ----------
    refused : OSError or None
        Why the system would not make the file, if nobody else holds the lease.
    """

    def __init__(
        self, path: Path, handle: int | None = None, refused: OSError | None = None
    ) -> None:
        self._path, self._handle, self.refused = path, handle, refused

    def __bool__(self) -> bool:
        return self._handle is not None

    def still_held(self) -> bool:
        """Return whether nobody took the lease over since, say while this process was stopped."""
        if self._handle is None:
            return False
        try:
            # The open file keeps its number from being given to another one.
            own, there = os.fstat(self._handle), os.stat(self._path)
        except OSError:
            return False
        return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)

    def check(self) -> None:
        """Raise `LeaseLost` unless it is still held; called before anything is removed."""
        if not self.still_held():
            raise LeaseLost(
                f"The lease of {self._path.parent} was taken over by another process, since this "
                "one did not run for some time. Nothing more was removed; run the command again.",
                path=self._path.parent,
            )

    def renew(self) -> None:
        """Let others see that the owner works on."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.utime(self._handle if os.utime in os.supports_fd else self._path)

    def release(self) -> None:
        """Give the claim up; calling it twice does no harm."""
        if self._handle is not None:
            if self.still_held():
                with contextlib.suppress(OSError):
                    self._path.unlink()
            os.close(self._handle)
            self._handle = None


@contextlib.contextmanager
def lease(folder: Path, wait: float = 0.0) -> Iterator[Lease]:
    """Hold the lease of a store.

    Parameters
    ----------
    folder : Path
    wait : float
        Seconds to wait for it.

    Yields
    ------
    Lease
        False if another process holds it.
    """
    path = folder / NAME
    deadline = time.monotonic() + wait
    while True:
        held = _take(path)
        if not held and held.refused is None and _is_abandoned(path) and _remove_claim(path):
            held = _take(path)
        if held or time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    with _renewed(held):
        yield held


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Mark a store as used for as long as the block runs, so that nobody removes it.

    A disk that refuses the mark is no reason to stop: it refuses the removal as well, or the
    store is on a disk that cannot be written to.
    """
    with _renewed(_take(folder / f"{USE_PREFIX}{uuid.uuid4().hex}")):
        yield


def is_in_use(folder: Path) -> bool:
    """Return whether a living process uses a store; marks of dead ones are removed."""
    found = False
    for path in folder.glob(f"{USE_PREFIX}*"):
        if _is_abandoned(path):
            _remove_claim(path)
        else:
            found = True
    return found


@contextlib.contextmanager
def _renewed(held: Lease) -> Iterator[None]:
    """Renew a claim while the block runs, and release it at the end."""
    if not held:
        yield
        return
    done = threading.Event()

    def renew() -> None:
        while not done.wait(LIFETIME / _RENEWALS):
            held.renew()

    try:
        threading.Thread(target=renew, name="featcache-lease", daemon=True).start()
        yield
    finally:
        done.set()
        held.release()


def _take(path: Path) -> Lease:
    """Make a claim: written beside and linked, so that it never lies there half written."""
    beside = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        handle = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    except OSError as error:
        return Lease(path, refused=error)
    taken = False
    try:
        # A full disk leaves it empty: then others wait until it is not renewed any more.
        with contextlib.suppress(OSError):
            os.write(handle, json.dumps(_myself()).encode())
        os.link(beside, path)
        taken = True
    except FileExistsError:
        return Lease(path)
    except OSError as error:
        return Lease(path, refused=error)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
        if not taken:
            os.close(handle)
    return Lease(path, handle)


def _remove_claim(path: Path) -> bool:
    """Remove an abandoned claim; of two processes that try, one fails."""
    grave = path.with_name(f"{path.name}-{uuid.uuid4().hex}")
    try:
        os.rename(path, grave)
        grave.unlink()
    except OSError:
        return False
    return True


def _is_abandoned(path: Path) -> bool:
    try:
        # In either direction: a clock may have been set.
        if abs(time.time() - path.stat().st_mtime) > LIFETIME:
            return True
        owner = json.loads(path.read_bytes())
        if {name: owner[name] for name in _machine()} != _machine():
            return False  # on another machine, or in a container: only the time can tell
        return bool(_start_of(int(owner["pid"])) != owner["started"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _myself() -> dict[str, object]:
    return {**_machine(), "pid": os.getpid(), "started": _start_of(os.getpid())}


@functools.cache
def _machine() -> dict[str, str]:
    """Return what tells one space of process numbers from another."""
    found = {"host": socket.gethostname(), "boot": "", "namespace": ""}
    with contextlib.suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        found["namespace"] = os.readlink("/proc/self/ns/pid")
    return found


def _start_of(pid: int) -> str | None:
    """Return when a process started, in its own words; None if there is none.

    A number is given to another process once its owner has ended.
    """
    try:
        # The name in brackets may hold anything, also spaces.
        status = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if status[0] in (b"Z", b"X") else status[19].decode()
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return None
    except (OSError, IndexError):
        pass
    return _alive(pid)


def _alive(pid: int) -> str | None:
    """Do what `_start_of` does on systems without ``/proc``, which tell no time."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "running"
