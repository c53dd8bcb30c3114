"""Claims on a store: an exclusive lease to remove files, and marks of processes that use it.

A claim is a file that its owner keeps open and renews while it works. It needs no file locks,
which fail on network disks, and no space on a full disk: an empty file is a claim as well. A
claim that is not renewed any more, or whose process has ended, is removed by the next process
that finds it. What it says of its owner counts only if its checksum fits; else its age decides.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .._io.atomic import temporary_path
from .._io.hashes import json_hash
from .._io.own_files import read_own_file
from ..errors import LeaseLost
from .renewal import renewed

NAME = ".lease"
USE_PREFIX = ".use-"
_USE_MARK = re.compile(re.escape(USE_PREFIX) + "[0-9a-f]{32}")
LIFETIME = 120.0
_RENEWALS = 6  # per lifetime: a process may be held up for most of it
_MAX_BYTES = 4096
_RUNNING = "running"
_MAX_PID = 2**31 - 1
_MALFORMED = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError
)  # fmt: skip
_ATTEMPTS = 2  # a disk may fail once
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Lease:
    """A claim; false if it was not acquired.

    Attributes
    ----------
    path : Path
        The file.
    refused : OSError or None
        The error of the system if the file could not be created; None if it was acquired or
        another process holds it.
    """

    def __init__(
        self, path: Path, handle: int | None = None, refused: OSError | None = None
    ) -> None:
        self.path, self._handle, self.refused = path, handle, refused

    def __bool__(self) -> bool:
        return self._handle is not None

    def still_held(self) -> bool:
        """Return whether no other process has taken the claim over, as after a suspension."""
        for _ in range(_ATTEMPTS if self._handle is not None else 0):
            try:
                # While the file is open, its inode number is not reused for another file.
                own, there = os.fstat(self._handle), os.lstat(self.path)  # type: ignore[arg-type]
            except FileNotFoundError:
                return False
            except OSError:
                continue
            return _is_same_file(own, there)
        return False

    def check(self) -> None:
        """Raise `LeaseLost` unless the lease is still held; call it before removing files."""
        if not self.still_held():
            raise LeaseLost(
                f"The lease of {self.path.parent} was taken over by another process while this "
                "one was suspended. No further files were removed; run the command again.",
                path=self.path.parent,
            )

    def renew(self) -> None:
        """Update the time of the claim, which shows other processes that it is in use."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.utime(self._handle if os.utime in os.supports_fd else self.path)

    def release(self) -> None:
        """Release the claim. Can be called several times."""
        if self._handle is not None:
            # Unlink once only: afterwards the path may be the claim of another process.
            for _ in range(_ATTEMPTS):
                if not self.still_held():
                    break
                with contextlib.suppress(OSError):
                    self.path.unlink()
                    break
            os.close(self._handle)
            self._handle = None


@contextlib.contextmanager
def lease(folder: Path, wait: float = 0.0) -> Iterator[Lease]:
    """Context manager that holds the exclusive lease of a store.

    Parameters
    ----------
    folder : Path
        The folder of the store.
    wait : float
        Seconds to wait for the lease.

    Yields
    ------
    Lease
        False if another process holds it, or the file could not be created.
    """
    path = folder / NAME
    deadline = time.monotonic() + wait
    while True:
        held = _acquire(path)
        if not held and held.refused is None and (found := _abandoned_claim(path)) is not None:
            _remove_claim(path, found)
            held = _acquire(path)
        if held or time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    with renewed(held, LIFETIME / _RENEWALS):
        yield held


@contextlib.contextmanager
def mark_in_use(folder: Path) -> Iterator[Lease]:
    """Context manager that marks a store as in use, so that no process removes it.

    A mark that cannot be created is not an error: the disk refuses the removal as well, or the
    store is on a read-only disk.

    Yields
    ------
    Lease
        False if there is no mark; its `refused` says why.
    """
    held = _acquire(folder / f"{USE_PREFIX}{uuid.uuid4().hex}")
    with renewed(held, LIFETIME / _RENEWALS):
        yield held


def is_use_mark(name: str) -> bool:
    """Return whether a file is named as `mark_in_use` names them; others are the user's."""
    return _USE_MARK.fullmatch(name) is not None


def is_in_use(folder: Path, *, remove_abandoned: bool = True) -> bool:
    """Return whether a running process uses a store; by default remove marks of ended ones.

    A process on this machine counts as running however long it has been suspended.

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
    for path in (folder / name for name in names if is_use_mark(name)):
        found = _abandoned_claim(path, include_living=False)
        used |= found is None
        if found is not None and remove_abandoned:
            _remove_claim(path, found)
    return used


def _acquire(path: Path) -> Lease:
    """Create a claim under a temporary name and link it, so that it is never half written."""
    beside = temporary_path(path.parent)
    try:
        handle = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    except OSError as error:
        # On a full disk the error is the same whether or not another process holds the claim.
        return Lease(path, refused=None if os.path.lexists(path) else error)
    taken = False
    try:
        # On a full disk it stays empty: then it is valid for as long as it is renewed.
        with contextlib.suppress(OSError):
            os.write(handle, _encode_claim(_describe_process()))
        handle = _name(beside, path, handle)
        taken = True
    except FileExistsError:
        return Lease(path)
    except OSError as error:
        return Lease(path, refused=error)
    finally:
        _remove_file(beside)
        if not taken:
            os.close(handle)
    return Lease(path, handle)


def _name(beside: Path, path: Path, handle: int) -> int:
    """Link a claim to its final name; create it there if the file system has no links.

    Returns the descriptor of the claim.
    """
    try:
        os.link(beside, path)
        return handle
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    named = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    os.close(handle)
    with contextlib.suppress(OSError):
        os.write(named, _encode_claim(_describe_process()))
    return named


def _is_same_file(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _remove_claim(path: Path, found: os.stat_result) -> None:
    """Remove an abandoned claim, unless another claim has taken its name since."""
    # A temporary name is not a claim, and `remove_stale` removes it if this process is killed.
    renamed = temporary_path(path.parent)
    try:
        os.rename(path, renamed)
        if not _is_same_file(found, os.lstat(renamed)):
            os.link(renamed, path, follow_symlinks=False)  # give it back to its owner
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(renamed)
        else:
            renamed.unlink()
    except OSError:
        pass


def _abandoned_claim(path: Path, *, include_living: bool = True) -> os.stat_result | None:
    """Return the `stat` of a claim if it is abandoned; None if it is valid or missing.

    Parameters
    ----------
    path : Path
        The content is untrusted; if it is not an intact claim only its age counts.
    include_living : bool
        Whether a claim that its running owner has not renewed counts as abandoned.
    """
    try:
        found = os.lstat(path)
    except OSError:
        return None
    living = _owner_lives(path) if stat.S_ISREG(found.st_mode) else None
    if living is False:
        return found
    return found if (include_living or not living) and _is_old(path, found.st_mtime) else None


def _is_old(path: Path, renewed: float) -> bool:
    """Return whether a claim was not renewed within its lifetime.

    The difference of times counts in both directions, since a clock may have been set back, and
    must be confirmed by the clock of the disk, since clocks of machines differ.
    """
    if abs(time.time() - renewed) <= LIFETIME:
        return False
    return abs(_disk_time(path.parent) - renewed) > LIFETIME


def _remove_file(path: Path) -> None:
    """Remove a temporary file, which would else lie there for an hour if the disk fails once."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            return


def _disk_time(folder: Path) -> float:
    """Return the modification time of a new file; the local time if none can be created."""
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
        _remove_file(probe)


def _owner_lives(path: Path) -> bool | None:
    """Return whether the owner of a claim is running; None if that is unknown."""
    try:
        # The file may have been replaced: `read_own_file` does not block or follow links.
        owner = _parse_claim(read_own_file(path, _MAX_BYTES))
        if {name: owner[name] for name in _describe_machine()} != _describe_machine():
            return None  # on another machine, or in a container
        pid, started = int(owner["pid"]), owner["started"]
        if not (0 < pid <= _MAX_PID and isinstance(started, str)):
            return None
        now = _start_time(pid)
        # Where start times are hidden, the process id may belong to another process by now.
        return None if now == _RUNNING != started else now == started
    except _MALFORMED:
        return None


def _encode_claim(owner: Mapping[str, object]) -> bytes:
    return json.dumps({**owner, "checksum": json_hash(owner)}).encode()


def _parse_claim(data: bytes) -> dict[str, Any]:
    """Return the owner that a claim names; raise ValueError unless its checksum fits.

    A single wrong bit in a process id or a start time would make a running owner an ended one.
    """
    owner = json.loads(data)
    if owner.pop("checksum") != json_hash(owner):
        raise ValueError("its checksum does not fit its content")
    return dict(owner)


def _describe_process() -> dict[str, object]:
    return {**_describe_machine(), "pid": os.getpid(), "started": _start_time(os.getpid())}


@functools.cache
def _describe_machine() -> dict[str, str]:
    """Return host, boot and process namespace, within which process ids are unique."""
    found = {"host": socket.gethostname(), "boot": "", "namespace": ""}
    with contextlib.suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        found["namespace"] = os.readlink("/proc/self/ns/pid")
        if os.readlink("/proc/self") != str(os.getpid()):
            # /proc shows another process namespace, so that no process can be looked up.
            found["namespace"] = uuid.uuid4().hex
    return found


def _start_time(pid: int) -> str | None:
    """Return the start time of a process as the system writes it; None if it has ended.

    Process ids are reused, and id and start time together identify a process.
    """
    try:
        # The process name in brackets may contain spaces and brackets.
        status = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if status[0] in (b"Z", b"X") else status[19].decode()
    except (OSError, IndexError):
        return _process_state(pid)


def _process_state(pid: int) -> str | None:
    """Return "running" or None for an ended process, where ``/proc`` does not show it."""
    if os.name == "nt":  # pragma: no cover - Windows, where the call below ends the process
        return _RUNNING
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # it belongs to another user
        pass
    return _RUNNING
