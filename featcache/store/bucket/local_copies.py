"""Local copies of the shards of stores in object stores: only copies, fetched again when needed."""

from __future__ import annotations

import contextlib
import re
import stat
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
    """Return the copies of shards in a folder, those that were read longest ago first.

    Other files, and links, are none.
    """
    found = []
    for path in folder.glob("*.h5"):
        with contextlib.suppress(OSError):
            state = path.lstat()
            if rows_in_name(path.name) is not None and stat.S_ISREG(state.st_mode):
                found.append(LocalCopy(state.st_mtime, state.st_size, path))
    return sorted(found)


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


def remove_copies(copies: Sequence[LocalCopy], size: int) -> list[LocalCopy]:
    """Remove copies, in this order, until a number of bytes is removed; return those removed.

    Readers fetch a shard again whose copy is gone.
    """
    removed: list[LocalCopy] = []
    for copy in copies:
        if size <= 0:
            break
        with contextlib.suppress(OSError):
            copy.path.unlink()
            removed.append(copy)
            size -= copy.size
    return removed
