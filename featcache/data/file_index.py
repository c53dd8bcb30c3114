"""File index: a cache of the image id of each file, valid while the file is unchanged.

As in git's index, equal path, size, times and inode mean equal content, so that a folder of
thousands of images costs one `stat` per file. If the index is lost, the files are read once.
A program that changes a file through a memory map may leave all of these unchanged: the index
then has the earlier id, but no row is computed under it, since files are hashed again before
they are decoded.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._io.atomic import read_memo, write_memo
from .._io.file_state import file_state, is_settled
from ..images.image_file import BadImage, content_id, is_content_id, read_file
from ..images.limits import MemoryBudget

VERSION = 2
_FILES_PER_TASK = 64


@dataclass(frozen=True)
class FileIdentity:
    """The image id of a file, or the reason why it has none.

    Attributes
    ----------
    image_id, reason : str or None
    """

    image_id: str | None
    reason: str | None = None


def identify(
    paths: Sequence[str],
    root: str,
    folder: Path,
    *,
    workers: int = 4,
    on_read: Callable[[int], object] = lambda _: None,
) -> list[FileIdentity]:
    """Return the image id of each path, reading only new and changed files.

    Parameters
    ----------
    paths : sequence of str
        Absolute paths.
    root : str
        The data set's folder, from which the name of the index file is derived.
    folder : Path
        The folder of index files.
    workers : int
        Number of threads that read and hash.
    on_read : callable
        Called with the number of paths identified since the last call, for a progress bar.

    Returns
    -------
    list of FileIdentity
        In the order of `paths`.
    """
    file = folder / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:24]}.json"
    entries = _load(file)
    identifier = _Identifier(entries)
    # A task per file would cost more than the `stat` in it.
    parts = [paths[i : i + _FILES_PER_TASK] for i in range(0, len(paths), _FILES_PER_TASK)]
    found: list[FileIdentity] = []
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for part in pool.map(identifier.identify, parts):
            found += part
            on_read(len(part))
    if identifier.updates:
        _save(file, {**entries, **identifier.updates})
    return found


class _Identifier:
    """Identifies files in several threads with a common memory budget.

    Parameters
    ----------
    entries : mapping of str to tuple
        The index: file state and image id by path.

    Attributes
    ----------
    updates : dict of str to tuple
        New entries of the index.
    """

    def __init__(self, entries: Mapping[str, tuple[Any, ...]]) -> None:
        self._entries, self._memory = entries, MemoryBudget()
        self.updates: dict[str, tuple[Any, ...]] = {}

    def identify(self, paths: Sequence[str]) -> list[FileIdentity]:
        """Return the identity of each path."""
        found = []
        for path in paths:
            try:
                found.append(FileIdentity(self._find_entry(path) or self._read(path)))
            except BadImage as bad:
                found.append(FileIdentity(None, bad.reason))
        return found

    def _find_entry(self, path: str) -> str | None:
        try:
            state = file_state(os.stat(path))
        except (OSError, ValueError):
            return None  # reading the file will raise the reason
        entry = self._entries.get(path)
        if entry is not None and entry[:4] == state and is_content_id(entry[4]):
            return str(entry[4])
        return None

    def _read(self, path: str) -> str:
        started = time.time_ns()
        with self._memory.reservation() as held:
            data, state = read_file(path, held.for_file)
            image_id = content_id(data)
            del data  # before the next large file may be read
        if is_settled(state, started):
            self.updates[path] = (*state, image_id)
        return image_id


def _load(file: Path) -> dict[str, tuple[Any, ...]]:
    """Return the entries of an index; none if it is missing or malformed."""
    memo = read_memo(file)
    try:
        if memo is None or memo["version"] != VERSION:
            return {}
        entries = {path: tuple(entry) for path, entry in memo["entries"].items()}
        return entries if all(len(entry) == 5 for entry in entries.values()) else {}
    except (KeyError, TypeError, AttributeError):
        return {}


def _save(file: Path, entries: dict[str, tuple[Any, ...]]) -> None:
    body = {path: list(entry) for path, entry in entries.items()}
    write_memo(file, {"version": VERSION, "entries": body}, "the file index")
