"""Atomic writes: a temporary file in the same folder, fsync, rename.

The rename is the commit. A reader sees the complete file or none, and a failure before the
rename leaves no file behind. Every file of the cache is written by this module.
"""

from __future__ import annotations

import contextlib
import errno
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
from .hashes import json_hash
from .own_files import read_own_file

TEMPORARY_PREFIX = ".tmp-"
_TEMPORARY_NAME = re.compile(re.escape(TEMPORARY_PREFIX) + "[0-9a-f]{32}")
_STALE_SECONDS = 3600.0
_MAX_MEMO_BYTES = 2**30  # enough for a file index of some million paths

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space, or name a folder on another disk",
    errno.EDQUOT: "your disk quota is used up: free some space, or name another folder",
    errno.EFBIG: "the file would exceed the size that this system allows",
    errno.EROFS: "the file system is read-only: name a folder that can be written",
    errno.EACCES: "you may not write there: name a folder that is yours",
    errno.EPERM: "you may not write there: name a folder that is yours",
    errno.EIO: "the disk reported an input/output error: check the disk before you continue",
    errno.ENOENT: "the folder was removed while it was in use",
}


def make_write_error(error: OSError, path: Path, description: str) -> StoreWriteError:
    """Return a `StoreWriteError` with advice for the `errno` of an `OSError`."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    advice = _ADVICE.get(error.errno or 0, "see the reason above")
    return StoreWriteError(
        f"Could not write {description} in {path.parent}: {reason}. Everything committed before "
        f"is intact, and the unfinished file was removed. What to do: {advice}; then run the same "
        "command again, which computes only the missing rows.",
        path=path,
        system_errno=error.errno,
    )


def make_folder(path: Path, *, private: bool = False) -> None:
    """Create a folder and its parents.

    Parameters
    ----------
    path : Path
        An existing folder is accepted.
    private : bool
        Create the folder with mode 0700, for files that a later run loads. The mode of an
        existing folder is not changed, since its owner may share it on purpose.

    Raises
    ------
    StoreWriteError
        If the system refuses.
    """
    try:
        path.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreWriteError(
            f"The folder {path} cannot be created: {error.strerror or error}. Choose a folder "
            "that you may write to.",
            path=path,
            system_errno=error.errno,
        ) from error


def sync_folder(path: Path) -> None:
    """Fsync a folder, so that renames in it survive a power failure; no-op on Windows."""
    if os.name == "nt":  # pragma: no cover - Windows cannot open a folder to sync it
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_path(folder: Path) -> Path:
    """Return a new random path in a folder, one that `remove_stale` recognises.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    Path
        ``.tmp-`` and 32 hexadecimal digits. Nothing is created.
    """
    # Not tempfile, whose names cannot be told from those of other programs.
    return folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"


def is_temporary_name(name: str) -> bool:
    """Return whether a file is named as `temporary_path` names them; others are the user's."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def remove_stale(folder: Path) -> None:
    """Remove temporary files and folders older than one hour, left by killed processes.

    Only paths named as `temporary_path` names them are removed, since the folder may also hold
    the user's own files. A symbolic link is removed, never its target. Errors of the system are
    ignored.

    Parameters
    ----------
    folder : Path
    """
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
            if is_temporary_name(path.name):
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
    """Return the latest modification time of a folder and of all folders below it.

    A process that writes into a subfolder for hours does not change the time of its parents.
    """
    for parent, names, _ in os.walk(folder):
        for name in names:
            latest = max(latest, os.lstat(os.path.join(parent, name)).st_mtime)
    return latest


def write_atomic(
    path: Path, data: bytes, *, description: str = "a file", durable: bool = True
) -> None:
    """Write a file atomically: readers see the old content or the new, nothing in between.

    Parameters
    ----------
    path : Path
        The final path. Its folder must exist.
    data : bytes
        The complete content.
    description : str
        Name of the file in error messages, such as ``"the manifest"``.
    durable : bool
        Fsync the file and its folder, so that the file survives a power failure. False for
        files that are cheap to recreate.

    Raises
    ------
    StoreWriteError
        If the system refuses; carries `system_errno`. After a failed fsync write the bytes
        again: a second fsync of the same file proves nothing, since the system may have
        dropped the dirty pages.
    """
    with _temporary_file(path, description, durable) as temporary:
        _write_new(temporary, data, durable)


@contextlib.contextmanager
def open_atomic(path: Path, *, description: str = "a file") -> Iterator[FileIO]:
    """Open a temporary file that atomically replaces `path` when the block ends.

    For files too large to hold in memory. The file and its folder are fsynced. If the block
    raises, `path` is unchanged and the temporary file is removed.

    Parameters
    ----------
    path : Path
        The final path. Its folder must exist.
    description : str
        Name of the file in error messages.

    Yields
    ------
    FileIO
        Empty and unbuffered; write to it with `write_all`.

    Raises
    ------
    StoreWriteError
        If the system refuses; carries `system_errno`.
    """
    with (
        _temporary_file(path, description, durable=True) as temporary,
        open(temporary, "xb", buffering=0) as file,
    ):
        yield file
        os.fsync(file.fileno())


@contextlib.contextmanager
def open_folder_atomic(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Create a temporary folder that becomes `path` when the block ends, with all in it or not.

    All files are fsynced, and so are the folders. If the block raises, or `path` is a folder
    that is not empty by then, the temporary folder is removed.

    Parameters
    ----------
    path : Path
        The final path. Its folder must exist.
    replace : bool
        Remove an existing folder, once the new one is complete. If the process is killed between
        the two renames, the old folder has a temporary name and the new one too.

    Yields
    ------
    Path
        The temporary folder.

    Raises
    ------
    OSError
        If the system refuses.
    """
    temporary = temporary_path(path.parent)
    try:
        temporary.mkdir()
        yield temporary
        _sync_all(temporary)
        if replace and path.is_dir():
            _replace_folder(temporary, path)
        else:
            temporary.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # also on Ctrl-C; gone after the rename


def _replace_folder(new: Path, path: Path) -> None:
    """Rename a folder to the path of another one, which is removed."""
    old = temporary_path(path.parent)
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))


@contextlib.contextmanager
def _temporary_file(path: Path, description: str, durable: bool) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` when the block ends."""
    temporary = temporary_path(path.parent)
    try:
        try:
            yield temporary
            os.replace(temporary, path)
            if durable:
                sync_folder(path.parent)
        finally:
            # Also on Ctrl-C. After the rename the path does not exist and this does nothing.
            with contextlib.suppress(OSError):
                temporary.unlink()
    except OSError as error:
        if isinstance(error, FeatcacheError):
            raise
        raise make_write_error(error, path, description) from error


def write_memo(path: Path, value: Any, description: str) -> None:
    """Cache a JSON value in a file with a checksum; do nothing if the file cannot be written.

    For results that can be computed again: a write that fails costs that work, nothing else.

    Parameters
    ----------
    path : Path
        Its folder is created if needed, with mode 0700.
    value : JSON value
    description : str
        Name of the file in error messages.
    """
    text = json.dumps({"checksum": json_hash(value), "value": value})
    with contextlib.suppress(StoreWriteError):
        make_folder(path.parent, private=True)
        write_atomic(path, text.encode(), description=description, durable=False)


def read_memo(path: Path) -> Any | None:
    """Return the value that `write_memo` wrote.

    Parameters
    ----------
    path : Path

    Returns
    -------
    JSON value or None
        None if the file is missing, unreadable, a symbolic link, or fails its checksum.
    """
    try:
        memo = json.loads(read_own_file(path, _MAX_MEMO_BYTES))
        intact = memo["checksum"] == json_hash(memo["value"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return memo["value"] if intact else None


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    """Write all bytes to an unbuffered file, also where a single write is short.

    Parameters
    ----------
    file : FileIO
        Open for writing.
    data : bytes or memoryview

    Raises
    ------
    OSError
        If the system refuses.
    """
    view = memoryview(data)
    while view:  # a raw write may be short, for example on a disk that is nearly full
        written = file.write(view)
        view = view[written or 0 :]


def _write_new(path: Path, data: bytes, durable: bool) -> None:
    with open(path, "xb", buffering=0) as file:
        write_all(file, data)
        if durable:
            os.fsync(file.fileno())
