"""Index of the rows of a store whose older shards are in an index file, and newer ones in memory.

Has the methods of `RowIndex` that a store calls.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .index_file import IndexFile, make_keys
from .row_index import IdArray, RowIndex


class LayeredIndex:
    """A lookup table over the rows of an index file and of further shards.

    Parameters
    ----------
    file : IndexFile
    numbers : ndarray (shards of the file,), int64
        The number of each shard of the file in this index; -1 for those to ignore, since they were
        removed.
    newer : RowIndex
        The rows of the other shards.
    newer_numbers : ndarray (shards of `newer`,), int64
        The number of each of these in this index.
    """

    def __init__(
        self,
        file: IndexFile,
        numbers: NDArray[np.int64],
        newer: RowIndex,
        newer_numbers: NDArray[np.int64],
    ) -> None:
        self._file, self._numbers = file, numbers
        self._newer, self._newer_numbers = newer, newer_numbers
        self._distinct: int | None = None

    def __len__(self) -> int:
        """Return the number of stored rows, including duplicates."""
        return int(self._file.rows[self._numbers >= 0].sum()) + len(self._newer)

    def distinct(self) -> int:
        """Return the number of different (image, view) pairs."""
        if self._distinct is None:
            ids, views = self._newer.distinct_rows()
            both = self._file.find(make_keys(ids, views), self._numbers)[0] >= 0
            self._distinct = self._distinct_in_file() + int(np.count_nonzero(~both))
        return self._distinct

    def _distinct_in_file(self) -> int:
        usable = self._numbers >= 0
        if usable.all():
            return self._file.head.distinct
        count, last = 0, np.zeros(0, "S36")
        for rows in self._file.blocks():
            keys = np.concatenate([last, rows["key"][usable[rows["shard"]]]])
            count += int(np.count_nonzero(keys[1:] != keys[:-1])) + (
                not len(last) and len(keys) > 0
            )
            last = keys[-1:]
        return count

    def find(
        self, ids: IdArray, views: NDArray[np.int32] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return shard and row of each id, -1 where it is not stored."""
        views = np.zeros(len(ids), np.int32) if views is None else views
        shard, row = self._newer.find(ids, views)
        shard = np.where(shard < 0, -1, np.append(self._newer_numbers, -1)[shard])
        rest = np.flatnonzero(shard < 0)
        shard[rest], row[rest] = self._file.find(make_keys(ids[rest], views[rest]), self._numbers)
        return shard, row

    def contains(self, ids: IdArray) -> NDArray[np.bool_]:
        """Return whether the plain image of each id is stored."""
        return self.find(ids)[0] >= 0
