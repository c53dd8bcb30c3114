"""Claims on a store: an exclusive lease for those who remove files, marks of those who use it.

A claim is a file that its owner keeps open and renews while it works, so that it needs no
locks, which fail on network disks, and no room on a full disk: an empty file is a claim as
well. Whoever finds one that nobody renews any more, or whose process is gone, removes it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import socket
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from .._io.atomic import temporary_path
from .._io.own_files import read_own_file
from ..errors import LeaseLost

NAME = ".lease"
USE_PREFIX = ".use-"
LIFETIME = 120.0
_RENEWALS = 6  # per lifetime: a process may be held up for most of it
_MOST_BYTES = 4096
_RUNNING = "running"
_LARGEST_PID = 2**31 - 1
_ATTEMPTS = 2  # a disk may fail once
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


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
        for _ in range(_ATTEMPTS if self._handle is not None else 0):
            try:
                # The open file keeps its number from being given to another one.
                own, there = os.fstat(self._handle), os.lstat(self._path)  # type: ignore[arg-type]
            except FileNotFoundError:
                return False
            except OSError:
                continue
            return _same(own, there)
        return False

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
            # Not twice after success: what has the name by then is another's.
            for _ in range(_ATTEMPTS):
                if not self.still_held():
                    break
                with contextlib.suppress(OSError):
                    self._path.unlink()
                    break
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
        if not held and held.refused is None and (found := _abandoned(path)) is not None:
            _remove_claim(path, found)
            held = _take(path)
        if held or time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    with _renewed(held):
        yield held


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[Lease]:
    """Mark a store as used for as long as the block runs, so that nobody removes it.

    A disk that refuses the mark is no reason to stop: it refuses the removal as well, or the
    store is on a disk that cannot be written to.

    Yields
    ------
    Lease
        False if there is no mark; its `refused` says why.
    """
    held = _take(folder / f"{USE_PREFIX}{uuid.uuid4().hex}")
    with _renewed(held):
        yield held


def is_in_use(folder: Path) -> bool:
    """Return whether a living process uses a store; marks of dead ones are removed.

    One on this machine that lives uses it however long it has been stopped.

    Raises
    ------
    OSError
        If the folder cannot be listed.
    """
    used = False
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return False
    for name in names:
        if name.startswith(USE_PREFIX):
            found = _abandoned(folder / name, living_are_old=False)
            used |= found is None
            if found is not None:
                _remove_claim(folder / name, found)
    return used


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

    thread = threading.Thread(target=renew, name="featcache-lease", daemon=True)
    try:
        with contextlib.suppress(RuntimeError):  # no more threads: it lasts for a lifetime
            thread.start()
        yield
    finally:
        done.set()
        if thread.ident is not None:
            thread.join()  # else it could touch another file that is given the same handle
        held.release()


def _take(path: Path) -> Lease:
    """Make a claim: written beside and linked, so that it never lies there half written."""
    beside = temporary_path(path.parent)
    try:
        handle = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    except OSError as error:
        # A full disk refuses also what another process holds.
        return Lease(path, refused=None if os.path.lexists(path) else error)
    taken = False
    try:
        # A full disk leaves it empty: then others wait until it is not renewed any more.
        with contextlib.suppress(OSError):
            os.write(handle, json.dumps(_myself()).encode())
        handle = _name(beside, path, handle)
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


def _name(beside: Path, path: Path, handle: int) -> int:
    """Give a claim its name; return its handle. Where there are no links it is made again."""
    try:
        os.link(beside, path)
        return handle
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    named = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    os.close(handle)
    with contextlib.suppress(OSError):
        os.write(named, json.dumps(_myself()).encode())
    return named


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _remove_claim(path: Path, found: os.stat_result) -> None:
    """Remove an abandoned claim, and no other that has come to its name meanwhile."""
    # Short, and no claim itself: a kill in between leaves a file that `remove_stale` removes.
    grave = temporary_path(path.parent)
    try:
        os.rename(path, grave)
        if not _same(found, os.lstat(grave)):
            os.link(grave, path, follow_symlinks=False)  # its owner holds it on
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(grave)
        else:
            grave.unlink()
    except OSError:
        pass


def _abandoned(path: Path, *, living_are_old: bool = True) -> os.stat_result | None:
    """Return the state of a claim that nobody renews, or whose owner is gone; None if it holds.

    Parameters
    ----------
    path : Path
        A file that may hold anything, or be no file at all: then its age alone counts.
    living_are_old : bool
        Whether a claim of a living process that has not renewed it is abandoned, too.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return None
    living = _owner_lives(path) if stat.S_ISREG(found.st_mode) else None
    if living is False:
        return found
    return found if (living_are_old or not living) and _is_old(path, found.st_mtime) else None


def _is_old(path: Path, renewed: float) -> bool:
    """Return whether a claim was not renewed for a lifetime.

    In either direction, since a clock may have been set; and by the clock of the disk as well,
    since that of another machine may be off.
    """
    if abs(time.time() - renewed) <= LIFETIME:
        return False
    return abs(_disk_time(path.parent) - renewed) > LIFETIME


def _disk_time(folder: Path) -> float:
    """Return the time that a file made now is given; this machine's own if none can be made."""
    probe = temporary_path(folder)
    try:
        handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except OSError:
        return time.time()
    try:
        return os.fstat(handle).st_mtime
    except OSError:
        return time.time()
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            probe.unlink()


def _owner_lives(path: Path) -> bool | None:
    """Return whether the owner of a claim lives; None if only the time can tell."""
    try:
        # Whatever has come to this name since: neither waited for nor followed.
        owner = json.loads(read_own_file(path, _MOST_BYTES))
        if {name: owner[name] for name in _machine()} != _machine():
            return None  # on another machine, or in a container
        pid, started = int(owner["pid"]), owner["started"]
        if not (0 < pid <= _LARGEST_PID and isinstance(started, str)):
            return None
        now = _start_of(pid)
        # Where the start of others is hidden, it is not known whether this is still the same.
        return None if now == _RUNNING != started else now == started
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None


def _myself() -> dict[str, object]:
    return {**_machine(), "pid": os.getpid(), "started": _start_of(os.getpid())}


@functools.cache
def _machine() -> dict[str, str]:
    """Return what tells one space of process numbers from another."""
    found = {"host": socket.gethostname(), "boot": "", "namespace": ""}
    with contextlib.suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        found["namespace"] = os.readlink("/proc/self/ns/pid")
        if os.readlink("/proc/self") != str(os.getpid()):
            # The numbers in /proc are those of another space: nobody can be looked up in it.
            found["namespace"] = uuid.uuid4().hex
    return found


def _start_of(pid: int) -> str | None:
    """Return when a process started, in its own words; None if there is none.

    A number is given to another process once its owner has ended.
    """
    try:
        # The name in brackets may hold anything, also spaces.
        status = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if status[0] in (b"Z", b"X") else status[19].decode()
    except (OSError, IndexError):
        return _alive(pid)


def _alive(pid: int) -> str | None:
    """Do what `_start_of` does where ``/proc`` is missing or hides a process: without the time."""
    if os.name == "nt":
        return _RUNNING  # the call below would interrupt the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except (OSError, OverflowError):
        pass
    return _RUNNING
