"""Write beside, sync, rename: the one way in which anything reaches the cache's disk.

The rename is the commit. A reader sees the whole file or none of it, and whatever fails
before the rename leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

from ..errors import FeatcacheError, StoreWriteError
from .own_files import read_own_file

TEMPORARY_PREFIX = ".tmp-"
_TEMPORARY_NAME = re.compile(re.escape(TEMPORARY_PREFIX) + "[0-9a-f]{32}")
_STALE_SECONDS = 3600.0
_MOST_REMEMBERED = 2**30  # a file index of some million paths

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space, or name a folder on another disk",
    errno.EDQUOT: "your disk quota is used up: free some space, or name another folder",
    errno.EFBIG: "the file would exceed the size that this system allows",
    errno.EROFS: "the file system is read-only: name a folder that can be written",
    errno.EACCES: "you may not write there: name a folder that is yours",
    errno.EPERM: "you may not write there: name a folder that is yours",
    errno.EIO: "the disk reported an input/output error: check it before going on",
    errno.ENOENT: "the folder was removed while it was in use",
}


def write_error(error: OSError, path: Path, what: str) -> StoreWriteError:
    """Turn an `OSError` of the system into an error that says what to do."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    advice = _ADVICE.get(error.errno or 0, "see the reason above")
    return StoreWriteError(
        f"Could not write {what} in {path.parent}: {reason}. Nothing that was committed before "
        f"is lost, and the unfinished file is gone. What to do: {advice}; then run the same "
        "command again, and only what is missing will be computed.",
        path=path,
        system_errno=error.errno,
    )


def make_folder(path: Path, *, private: bool = False) -> None:
    """Create `path` and its parents; raise `StoreWriteError` if that cannot be.

    Parameters
    ----------
    path : Path
    private : bool
        For what a later run loads: nobody else may enter the folder. One that exists stays as
        it is, since its owner may share it on purpose.
    """
    try:
        path.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreWriteError(
            f"The folder {path} cannot be made: {error.strerror or error}. Name one that you may "
            "write to.",
            path=path,
            system_errno=error.errno,
        ) from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, where the system knows how."""
    if os.name == "nt":  # pragma: no cover - Windows has no handle on a folder to sync
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_path(folder: Path) -> Path:
    """Return a new name in a folder, for what `remove_stale` removes if it is left there."""
    return folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"


def remove_stale(folder: Path) -> None:
    """Remove temporary files and folders that a killed process left more than an hour ago.

    Only names that this project gives to temporary files are touched, since the folder may
    be one of the user's own. A link is removed, never what it leads to.
    """
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
            if _TEMPORARY_NAME.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    _remove_if_stale(path)


def _remove_if_stale(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        if time.time() - status.st_mtime > _STALE_SECONDS:
            path.unlink()
    elif time.time() - _last_change(path, status.st_mtime) > _STALE_SECONDS:
        shutil.rmtree(path, ignore_errors=True)


def _last_change(folder: Path, latest: float) -> float:
    """Return the time of the last change of a folder or of any folder below it.

    A process that writes for hours into folders below does not change the outermost one.
    """
    for parent, names, _ in os.walk(folder):
        for name in names:
            latest = max(latest, os.lstat(os.path.join(parent, name)).st_mtime)
    return latest


def write_atomic(path: Path, data: bytes, *, what: str = "a file", durable: bool = True) -> None:
    """Replace or create `path` with `data`, all or nothing.

    Parameters
    ----------
    path : Path
        The final name. Its folder must exist.
    data : bytes
        The whole content.
    what : str
        How an error message calls the file.
    durable : bool
        Sync the file and its folder, so that the file outlives a power cut. Off for what
        can be made again at little cost.

    Raises
    ------
    StoreWriteError
        With the system's reason. After a failed sync the file is never synced again,
        since the system may have dropped the dirty pages: the bytes must be written again.
    """
    with _replaced(path, what, durable) as temporary:
        _write_new(temporary, data, durable)


@contextlib.contextmanager
def replacing(path: Path, *, what: str = "a file") -> Iterator[FileIO]:
    """Open a temporary file that replaces `path`, durably, once the block ends.

    For files that are too large to be in memory as a whole. If the block raises, `path`
    stays as it was and the temporary file is removed.

    Parameters
    ----------
    path : Path
        The final name. Its folder must exist.
    what : str
        What an error message calls the file.

    Yields
    ------
    FileIO
        Empty and unbuffered; fill it by `write_all`.

    Raises
    ------
    StoreWriteError
        With the system's reason.
    """
    with (
        _replaced(path, what, durable=True) as temporary,
        open(temporary, "xb", buffering=0) as file,
    ):
        yield file
        os.fsync(file.fileno())


@contextlib.contextmanager
def _replaced(path: Path, what: str, durable: bool) -> Iterator[Path]:
    """Yield a name beside `path` for a file that takes its place once the block ends."""
    temporary = temporary_path(path.parent)
    try:
        try:
            yield temporary
            os.replace(temporary, path)
            if durable:
                sync_folder(path.parent)
        finally:
            # Also on Ctrl-C; after the rename the name is gone and this does nothing.
            with contextlib.suppress(OSError):
                temporary.unlink()
    except OSError as error:
        if isinstance(error, FeatcacheError):
            raise
        raise write_error(error, path, what) from error


def remember(path: Path, value: Any, what: str) -> None:
    """Keep a JSON value that saves work next time; a disk that refuses costs that work.

    Parameters
    ----------
    path : Path
        Its folder is made if need be.
    value : JSON value
        Kept with its checksum, so that `recall` returns this value or none.
    what : str
        How an error message calls the file.
    """
    text = json.dumps({"checksum": _checksum(value), "value": value})
    with contextlib.suppress(StoreWriteError):
        make_folder(path.parent, private=True)
        write_atomic(path, text.encode(), what=what, durable=False)


def recall(path: Path) -> Any | None:
    """Return what `remember` kept; None if the file is lost, or any bit of it has changed."""
    try:
        kept = json.loads(read_own_file(path, _MOST_REMEMBERED))
        intact = kept["checksum"] == _checksum(kept["value"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return kept["value"] if intact else None


def _checksum(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    """Write all bytes of `data` to an unbuffered file, or raise `OSError`."""
    view = memoryview(data)
    while view:  # a raw write may be short, on a disk that is nearly full for one
        written = file.write(view)
        view = view[written or 0 :]


def _write_new(path: Path, data: bytes, durable: bool) -> None:
    with open(path, "xb", buffering=0) as file:
        write_all(file, data)
        if durable:
            os.fsync(file.fileno())
