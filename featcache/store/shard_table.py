"""The metadata of a store's shards; those of shards in the index file are read when used."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..hdf5.shard_metadata import ShardMetadata
from ..hdf5.shard_name import Damage, rows_in_names
from .index_file import IndexFile
from .row_index import IdArray

_KEPT_ROWS = 2**20  # of metadata that were read last; about 60 bytes each
_NO_IDS, _NO_VIEWS = np.empty((0, 32), np.uint8), np.empty(0, np.int32)


class ShardTable(Mapping[str, ShardMetadata]):
    """The metadata of the valid shards of a store, by name.

    Parameters
    ----------
    loaded : mapping of str to ShardMetadata
        Metadata that are in memory.
    file : IndexFile, optional
        The index file that has the rows of the other shards.
    indexed : mapping of str to int, optional
        The other shards, with their numbers in `file`.
    find : callable, optional
        Returns the metadata of one of these, its damage, or None if it was removed.
    """

    def __init__(
        self,
        loaded: Mapping[str, ShardMetadata],
        file: IndexFile | None = None,
        indexed: Mapping[str, int] | None = None,
        find: Callable[[str], ShardMetadata | Damage | None] | None = None,
    ) -> None:
        self.loaded = dict(sorted(loaded.items()))
        self.file, self.indexed = file, indexed or {}
        self._find = find
        self._recent: OrderedDict[str, ShardMetadata] = OrderedDict()
        self._recent_rows = 0
        self.names: list[str] = sorted([*loaded, *self.indexed])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.loaded or name in self.indexed

    def __getitem__(self, name: str) -> ShardMetadata:
        """Return the metadata of a shard.

        Raises
        ------
        FileNotFoundError
            If an indexed shard was removed, for example merged into a larger one.
        IndexDamaged
            If it is damaged: without the index, the store would have skipped it.
        """
        if name in self.loaded:
            return self.loaded[name]
        if name in self._recent:
            self._recent.move_to_end(name)
            return self._recent[name]
        found = self.read(name)
        self._recent[name] = found
        self._recent_rows += len(found.views)
        while self._recent_rows > _KEPT_ROWS and len(self._recent) > 1:
            self._recent_rows -= len(self._recent.popitem(last=False)[1].views)
        return found

    def read(self, name: str) -> ShardMetadata:
        """Return what ``[name]`` does, without keeping it in memory."""
        found = self.find(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if isinstance(found, Damage):
            assert self.file is not None  # only its shards are looked up
            raise self.file.damage(f"it lists {name}, which is damaged: {found.reason}")
        return found

    def find(self, name: str) -> ShardMetadata | Damage | None:
        """Return the metadata of a shard, its damage, or None if it was removed."""
        if name in self.loaded:
            return self.loaded[name]
        if self._find is None or name not in self.indexed:
            raise KeyError(name)
        return self._find(name)

    def all_ids(self) -> list[IdArray]:
        """Return the ids of the rows of each shard; raises as ``[name]`` does."""
        return [self.read(name).image_ids for name in self.names]

    def rows(self) -> int:
        """Return the number of rows of all shards."""
        return sum(rows_in_names(self.names))

    def seconds(self) -> float:
        """Return the wall time in seconds that computing the rows of all shards took."""
        seconds = sum(metadata.seconds for metadata in self.loaded.values())
        if self.file is not None:
            numbers = np.fromiter(self.indexed.values(), np.int64, len(self.indexed))
            seconds += float(self.file.head.seconds[numbers].sum())
        return seconds

    def for_reading(
        self,
        names: Sequence[str],
        shard: NDArray[np.int64],
        row: NDArray[np.int64],
        ids: IdArray,
    ) -> Mapping[str, ShardMetadata]:
        """Return the metadata with which rows can be read; those of indexed shards without ids.

        Parameters
        ----------
        names : sequence of str
        shard, row : ndarray (n,), int64
            Position in `names` and row in the shard of each row to read.
        ids : ndarray (n, 32), uint8
            The ids that these rows must have, of plain images.

        Raises
        ------
        IndexDamaged
            If an indexed shard has another id in such a row.
        FileNotFoundError, IndexDamaged
            As ``[name]`` does.
        """
        if self.file is None:
            return self.loaded
        # Not the ids: those of all shards may be too many to keep until the rows are read.
        return {
            name: replace(metadata, image_ids=_NO_IDS, views=_NO_VIEWS, components={})
            if name in self.indexed
            else metadata
            for name, metadata in self._checked(self.file, names, shard, row, ids)
        }

    def check(
        self,
        names: Sequence[str],
        shard: NDArray[np.int64],
        row: NDArray[np.int64],
        ids: IdArray,
    ) -> None:
        """Raise as `for_reading` does, with the same arguments; one shard after the other."""
        if self.file is not None:
            for _ in self._checked(self.file, names, shard, row, ids):
                pass

    def _checked(
        self,
        file: IndexFile,
        names: Sequence[str],
        shard: NDArray[np.int64],
        row: NDArray[np.int64],
        ids: IdArray,
    ) -> Iterator[tuple[str, ShardMetadata]]:
        """Yield name and metadata of each shard that has rows, compared with the index."""
        order = np.argsort(shard, kind="stable")
        starts = np.flatnonzero(np.diff(shard[order], prepend=-1))
        for part in np.split(order, starts[1:]) if len(order) else []:
            name = names[int(shard[part[0]])]
            metadata = self[name]
            if name in self.indexed:
                same = np.array_equal(metadata.image_ids[row[part]], ids[part])
                if not same or metadata.views[row[part]].any():
                    raise file.damage(f"it gives rows of {name} other ids than the shard")
            yield name, metadata
