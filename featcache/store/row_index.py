"""Index of rows: (image id, view) -> (shard, row), for millions of rows.

Pure array code. Ids are SHA-256 digests, so that their first 8 bytes serve as a hash: rows are
sorted by them and found by bisection, and a match is confirmed by comparing all 32 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest

IdArray = NDArray[np.uint8]


def pack_ids(ids: Sequence[str]) -> IdArray:
    """Convert hexadecimal image ids to an array (n, 32) of uint8.

    >>> pack_ids(["00" * 31 + "ff"])[0, -1]
    np.uint8(255)
    """
    try:
        raw = bytes.fromhex("".join(ids))
    except ValueError as error:
        raise InvalidRequest("Image ids have 64 hexadecimal digits each.") from error
    if len(raw) != 32 * len(ids):
        raise InvalidRequest("Image ids have 64 hexadecimal digits each.")
    return np.frombuffer(raw, np.uint8).reshape(len(ids), 32)


def unpack_ids(packed: IdArray) -> list[str]:
    """Convert an array (n, 32) of uint8 to hexadecimal image ids."""
    text = np.ascontiguousarray(packed).tobytes().hex()
    return [text[i : i + 64] for i in range(0, len(text), 64)]


class RowIndex:
    """A lookup table over the rows of several shards.

    Parameters
    ----------
    shards : sequence of (ndarray (n, 32) uint8, ndarray (n,) int32)
        Ids and views of each shard. Of duplicate rows any may be returned: they were computed
        from the same bytes under the same spec.
    """

    def __init__(self, shards: Sequence[tuple[IdArray, NDArray[np.int32]]]) -> None:
        sizes = [len(ids) for ids, _ in shards]
        self._ids = np.concatenate([i for i, _ in shards]) if shards else np.empty((0, 32), "u1")
        self._views = np.concatenate([v for _, v in shards]) if shards else np.empty(0, "i4")
        self._shard = np.repeat(np.arange(len(sizes)), sizes)
        self._row = np.concatenate([np.arange(n) for n in sizes]) if sizes else np.empty(0, "i8")
        prefixes = _prefixes(self._ids)
        self._order = np.argsort(prefixes, kind="stable")
        self._sorted = prefixes[self._order]

    def __len__(self) -> int:
        """Return the number of stored rows, including duplicates."""
        return len(self._ids)

    def distinct(self) -> int:
        """Return the number of different (image, view) pairs."""
        return len(self.distinct_rows()[0])

    def distinct_rows(self) -> tuple[IdArray, NDArray[np.int32]]:
        """Return id and view of each row, without duplicates."""
        found = self._bisect(self._ids, self._views)  # the first of equal rows
        first = found == np.arange(len(self._ids))
        return self._ids[first], self._views[first]

    def contains(self, ids: IdArray) -> NDArray[np.bool_]:
        """Return whether the plain image of each id is stored."""
        return self.find_positions(ids)[1]

    def find(
        self, ids: IdArray, views: NDArray[np.int32] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return shard and row of each id, -1 where it is not stored."""
        position, present = self.find_positions(ids, views)
        if not len(self):
            return position, position
        return (
            np.where(present, self._shard[position], -1),
            np.where(present, self._row[position], -1),
        )

    def find_positions(
        self, ids: IdArray, views: NDArray[np.int32] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the position of each id among all rows, and whether it is stored."""
        wanted = np.zeros(len(ids), np.int32) if views is None else views
        position = self._find_contiguous(ids, wanted)
        if position is None:
            position = self._bisect(ids, wanted)
        return position, position >= 0

    def _find_contiguous(self, ids: IdArray, wanted: NDArray[np.int32]) -> NDArray[np.int64] | None:
        """Return positions if the rows are contiguous and in order; else None.

        Sequential reading of a store has such requests, and comparing is much faster than
        bisection.
        """
        if len(ids) < 2:
            return None
        (first,) = self._bisect(ids[:1], wanted[:1])
        run = slice(first, first + len(ids))
        if first < 0 or not np.array_equal(self._ids[run], ids):
            return None
        if not np.array_equal(self._views[run], wanted):
            return None
        return np.arange(first, first + len(ids))

    def _bisect(self, ids: IdArray, wanted: NDArray[np.int32]) -> NDArray[np.int64]:
        position = np.full(len(ids), -1, np.int64)
        prefixes = _prefixes(ids)
        at = np.searchsorted(self._sorted, prefixes, side="left")
        open_ = np.arange(len(ids))
        # Nearly all queries end in the first iteration; further views of an image, and equal
        # prefixes of different images, need further steps to the right.
        while len(open_):
            inside = at[open_] < len(self._sorted)
            open_ = open_[inside]
            open_ = open_[self._sorted[at[open_]] == prefixes[open_]]
            candidate = self._order[at[open_]]
            same = (self._ids[candidate] == ids[open_]).all(axis=1)
            same &= self._views[candidate] == wanted[open_]
            position[open_[same]] = candidate[same]
            open_ = open_[~same]
            at[open_] += 1
        return position


def _prefixes(ids: IdArray) -> NDArray[np.uint64]:
    return np.ascontiguousarray(ids[:, :8]).view(">u8").ravel().astype(np.uint64)
