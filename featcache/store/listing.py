"""Listing of a store's folder: which shards are valid, and where their rows are."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Iterable, Mapping
from itertools import compress
from pathlib import Path

import numpy as np

from .._io.file_state import FileState, file_state
from .._io.logs import get_logger
from ..hdf5.shard_metadata import METADATA_SUFFIX, ShardMetadata
from ..hdf5.shard_name import Damage
from .index_file import NAME, IndexDamaged, IndexFile
from .layered_index import LayeredIndex
from .manifest import Manifest
from .row_index import RowIndex
from .shard_lookup import ShardLookup
from .shard_table import ShardTable

log = get_logger(__name__)


class FolderIndex:
    """The index file of a folder, opened once and again after it was replaced.

    Parameters
    ----------
    folder : Path
    removable : bool
        Whether a damaged index file is removed.
    """

    def __init__(self, folder: Path, *, removable: bool) -> None:
        self._path = folder / NAME
        self._removable = removable
        self._ignored: FileState | None = None
        self._file: IndexFile | None = None

    def current(self, manifest: Manifest) -> IndexFile | None:
        """Return the index file if there is a usable one of a manifest's spec and width."""
        try:
            state = file_state(self._path.lstat())
            if state == self._ignored:
                return None
            if self._file is None or self._file.state != state:
                self._file = IndexFile(self._path)
            self._file.check_spec(manifest.spec.key, manifest.width)
        except FileNotFoundError:
            self._file = None
        except IndexDamaged as error:
            self.drop(error)
        return self._file

    def drop(self, error: IndexDamaged) -> None:
        """Ignore the index file from now on, and remove it: it can be written again."""
        log.warning("%s", error)
        wrong = None if self._file is None else self._file.state
        self._file = None
        with contextlib.suppress(OSError):
            state = file_state(self._path.lstat())
            if wrong in (None, state):  # else it was replaced by another file since
                self._ignored = state
                # Other errors of the system may be temporary, such as too many open files.
                if self._removable and error.system_errno in (None, errno.EINVAL):
                    self._path.unlink()


def unchanged_shards(file: IndexFile, folder: Path, present: Collection[str]) -> dict[str, int]:
    """Return the shards of an index file that are as they were when it was written.

    Parameters
    ----------
    file : IndexFile
    folder : Path
    present : collection of str
        The names of all files of the folder.

    Returns
    -------
    dict of str to int
        Number of each shard in the file. Shards that were removed, have another size or lost their
        sidecar are not in it: whoever lists the store looks at each of these.
    """
    numbers = {
        name: number
        for number, name in enumerate(file.head.names)
        if name in present and name + METADATA_SUFFIX in present
    }
    expected = file.head.sizes[np.fromiter(numbers.values(), np.int64, len(numbers))].tolist()
    same = map(int.__eq__, _sizes(folder, list(numbers)), expected)
    return dict(compress(numbers.items(), same))


def _sizes(folder: Path, names: list[str]) -> list[int]:
    """Return the size of each file in bytes, -1 for those that were removed."""
    try:
        return [os.stat(f"{folder}/{name}").st_size for name in names]
    except OSError:
        pass
    sizes = list[int]()
    for name in names:
        try:
            sizes.append(os.stat(f"{folder}/{name}").st_size)
        except OSError:
            sizes.append(-1)
    return sizes


def missing_shards(manifest: Manifest, present: Collection[str]) -> list[Damage]:
    """Return the damage of shards that a manifest lists and the folder lacks."""
    return [
        Damage(name, rows, "it is missing")
        for name, rows in manifest.shards.items()
        if name not in present
    ]


def find_all(
    names: Iterable[str],
    known: Mapping[str, ShardMetadata],
    lookup: ShardLookup,
    manifest: Manifest,
) -> tuple[dict[str, ShardMetadata], list[Damage]]:
    """Return the metadata of shards, and the damage of those that are damaged.

    Parameters
    ----------
    names : iterable of str
    known : mapping of str to ShardMetadata
        Metadata that were read before.
    lookup : ShardLookup
    manifest : Manifest
    """
    all_metadata: dict[str, ShardMetadata] = {}
    damaged: list[Damage] = []
    for name in names:
        found = known.get(name) or lookup.find(name, manifest)
        if isinstance(found, Damage):
            damaged.append(found)
        elif found is not None:
            all_metadata[name] = found
    return all_metadata, damaged


def make_index(table: ShardTable) -> RowIndex | LayeredIndex:
    """Return the index of the rows of all shards; their numbers are positions in `table.names`."""
    newer = RowIndex([(h.image_ids, h.views) for h in table.loaded.values()])
    if table.file is None:
        return newer
    position = {name: number for number, name in enumerate(table.names)}
    numbers = np.full(len(table.file.head.names), -1, np.int64)
    there = np.fromiter(table.indexed.values(), np.int64, len(table.indexed))
    numbers[there] = [position[name] for name in table.indexed]
    newer_numbers = np.array([position[name] for name in table.loaded], np.int64)
    return LayeredIndex(table.file, numbers, newer, newer_numbers)
