"""Local copies of the shards of stores in object stores: only copies, fetched again when needed."""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..._io.own_files import is_keyed_name
from ...hdf5.shard_name import rows_in_name

FOLDER = "shared"
_CACHE = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, order=True)
class LocalCopy:
    """A copy of a shard.

    Attributes
    ----------
    used : float
        When it was read, to the minute, in seconds.
    size : int
        In bytes.
    path : Path
    """

    used: float
    size: int
    path: Path


def copies_in(folder: Path) -> list[LocalCopy]:
    """Return the copies of shards in a folder.

    Other files, and links, are none.
    """
    found = []
    for path in folder.glob("*.h5"):
        with contextlib.suppress(OSError):
            state = path.lstat()
            if rows_in_name(path.name) is not None and stat.S_ISREG(state.st_mode):
                found.append(LocalCopy(state.st_mtime, state.st_size, path))
    return found


def copy_folders(cache: Path) -> list[Path]:
    """Return the folders with local copies in a cache folder, one for each store."""
    found = []
    for folder in (cache / FOLDER).glob("*/*"):
        own = _CACHE.fullmatch(folder.parent.name) and is_keyed_name(folder.name)
        if own and folder.is_dir() and not folder.is_symlink() and not folder.parent.is_symlink():
            found.append(folder)
    return sorted(found)


def folders_beside(folder: Path) -> list[Path]:
    """Return the folders with local copies in the same cache folder as one, and that one."""
    if folder.parent.parent.name != FOLDER:
        return [folder]
    return sorted({folder, *copy_folders(folder.parent.parent.parent)})


def copies_bytes(cache: Path) -> int:
    """Return the size of all local copies in a cache folder."""
    return sum(copy.size for folder in copy_folders(cache) for copy in copies_in(folder))


def oldest_copies(copies: Sequence[LocalCopy], size: int) -> list[LocalCopy]:
    """Return the first of some copies that together have a number of bytes, or all."""
    chosen: list[LocalCopy] = []
    for copy in sorted(copies):
        if size <= 0:
            break
        chosen.append(copy)
        size -= copy.size
    return chosen


def remove_copies(copies: Sequence[LocalCopy]) -> None:
    """Remove copies; readers fetch a shard again whose copy is gone."""
    for copy in copies:
        with contextlib.suppress(OSError):
            copy.path.unlink()


def remove_copy_folder(folder: Path) -> None:
    """Remove a folder with local copies; readers create it again."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def last_opened(folder: Path) -> float:
    """Return when a store with local copies was opened, or a shard of it read."""
    with contextlib.suppress(OSError):
        return max((path.lstat().st_mtime for path in folder.iterdir()), default=0.0)
    return time.time()
