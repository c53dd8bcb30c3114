"""Which file holds which image: content ids, remembered as long as a file is unchanged.

Like git's index: if path, size, times and inode are those of the last look, the content
is too, and a folder of thousands of photos costs one `stat` a file. The index is a cache
of a cache: losing it costs reading the files once. A program that changes a file through a
memory map can leave all of these as they are: the index may then tell the earlier content,
and no row is computed under that name, since what is decoded is hashed first.
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
from .._io.cache_dirs import cache_folder, index_folder
from .._io.file_state import file_state, is_settled
from ..images.image_file import BadImage, content_id, is_content_id, read_file
from ..images.limits import MemoryBudget
from .dataset import Dataset

VERSION = 2
_FILES_A_TASK = 64


@dataclass(frozen=True)
class FileIdentity:
    """A path's content id, or the reason why it has none.

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
    on_read: Callable[[int], None] = lambda _: None,
) -> list[FileIdentity]:
    """Find the content id of each path, reading only files that are new or changed.

    Parameters
    ----------
    paths : sequence of str
        Absolute paths.
    root : str
        The data set's folder; names the index file.
    folder : Path
        Where index files live.
    workers : int
        Threads that read and hash.
    on_read : callable
        Called with the number of paths settled since the last call, for a progress bar.

    Returns
    -------
    list of FileIdentity
        In the order of `paths`.
    """
    file = folder / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:24]}.json"
    known = _load(file)
    identifier = _Identifier(known)
    # A task for each file would cost more than the look at it.
    parts = [paths[i : i + _FILES_A_TASK] for i in range(0, len(paths), _FILES_A_TASK)]
    found: list[FileIdentity] = []
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for part in pool.map(identifier.identify, parts):
            found += part
            on_read(len(part))
    if identifier.fresh:
        _save(file, {**known, **identifier.fresh})
    return found


class _Identifier:
    """Identifies files in several threads, which share the memory that the files take.

    Parameters
    ----------
    known : mapping of str to tuple
        The index: states and content ids by path.

    Attributes
    ----------
    fresh : dict of str to tuple
        The entries to add to it.
    """

    def __init__(self, known: Mapping[str, tuple[Any, ...]]) -> None:
        self._known, self._memory = known, MemoryBudget()
        self.fresh: dict[str, tuple[Any, ...]] = {}

    def identify(self, paths: Sequence[str]) -> list[FileIdentity]:
        """Return the identity of each path."""
        found = []
        for path in paths:
            try:
                found.append(FileIdentity(self._remembered(path) or self._read(path)))
            except BadImage as bad:
                found.append(FileIdentity(None, bad.reason))
        return found

    def _remembered(self, path: str) -> str | None:
        try:
            state = file_state(os.stat(path))
        except (OSError, ValueError):
            return None  # reading will give the reason
        entry = self._known.get(path)
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
            self.fresh[path] = (*state, image_id)
        return image_id


def content_ids(dataset: Dataset, cache_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Return the content id of each image of a data set.

    Parameters
    ----------
    dataset : Dataset
    cache_dir : path, optional
        Where ids are remembered; see `featcache._io.cache_dirs.cache_folder`.

    Returns
    -------
    list of str
        The empty string where a file cannot be read.
    """
    if dataset.ids is not None:
        return list(dataset.ids)
    folder = index_folder(cache_folder(cache_dir))
    return [found.image_id or "" for found in identify(dataset.paths, dataset.root, folder)]


def _load(file: Path) -> dict[str, tuple[Any, ...]]:
    """Read an index; anything odd about it makes it empty."""
    kept = read_memo(file)
    try:
        if kept is None or kept["version"] != VERSION:
            return {}
        entries = {path: tuple(entry) for path, entry in kept["entries"].items()}
        return entries if all(len(entry) == 5 for entry in entries.values()) else {}
    except (KeyError, TypeError, AttributeError):
        return {}


def _save(file: Path, entries: dict[str, tuple[Any, ...]]) -> None:
    body = {path: list(entry) for path, entry in entries.items()}
    write_memo(file, {"version": VERSION, "entries": body}, "the file index")
