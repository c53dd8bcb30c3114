"""Reading of rows by their offsets from shards with a verified SHA-256."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._io.file_state import FileState, file_state
from ..hdf5.row_dtype import Rows
from ..hdf5.shard_metadata import Layout, ShardMetadata
from ..hdf5.shard_name import find_damage, shard_error

_THREADS = 4


class ShardReader:
    """Reader of the shards in a folder.

    The SHA-256 of a shard is compared with the one in its name before its first row is read,
    and again whenever the size, times or inode of the file have changed. Rows are then read by
    their offsets, without HDF5.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._verified: dict[str, FileState] = {}

    def check(self, names: Sequence[str]) -> None:
        """Verify the SHA-256 of shards that have not been verified, in parallel.

        Raises
        ------
        StoreCorrupt
            If the bytes of a shard are not those that were committed.
        FileNotFoundError
            If a shard was removed, for example merged into a larger one.
        """
        unverified = [name for name in names if self._verified.get(name) != self._state(name)]
        if len(unverified) < 2:
            for name in unverified:
                self._check_one(name)
            return
        with ThreadPoolExecutor(_THREADS) as pool:  # hashing releases the GIL
            list(pool.map(self._check_one, unverified))

    def gather(
        self,
        names: Sequence[str],
        all_metadata: Mapping[str, ShardMetadata],
        shard: NDArray[np.int64],
        row: NDArray[np.int64],
        width: int,
    ) -> NDArray[np.float32]:
        """Read rows of several shards, after verifying each shard.

        Parameters
        ----------
        names : sequence of str
            Names of the shards.
        all_metadata : mapping of str to ShardMetadata
            Metadata by shard name.
        shard, row : ndarray (n,), int64
            Index in `names` and row in that shard of each row to read.
        width : int
            Length of an embedding.

        Returns
        -------
        ndarray (n, width), float32
            Values of other dtypes are converted to it, without loss.
        """
        result = np.empty((len(shard), width), np.float32)
        if not len(shard):
            return result
        order = np.argsort(shard, kind="stable")
        shard, row = shard[order], row[order]
        starts = [0, *(np.flatnonzero(np.diff(shard)) + 1).tolist()]
        wanted = [names[int(number)] for number in shard[starts]]
        self.check(wanted)
        for name, first, last in zip(wanted, starts, [*starts[1:], len(order)], strict=True):
            layout, part = all_metadata[name].layout, slice(first, last)
            self.read(name, layout, row[part], result, order[part])
        return result

    def read(
        self,
        name: str,
        layout: Layout,
        wanted: NDArray[np.int64],
        result: NDArray[np.float32],
        targets: NDArray[np.int64],
    ) -> None:
        """Fill ``result[targets]`` with rows of a shard verified by `check`.

        Parameters
        ----------
        wanted : ndarray (n,), int64
            Rows of the shard, n > 0; in any order, duplicates allowed.
        result : ndarray (m, width), float32
        targets : ndarray (n,), int64
            Ascending.
        """
        steps = np.diff(wanted)
        together = targets[-1] - targets[0] + 1 == len(targets) and result.dtype == layout.dtype
        if together and (steps > 0).all():  # no copy in between
            self._read_rows(name, layout, wanted, steps, result[targets[0] : targets[-1] + 1])
            return
        rows, back = np.unique(wanted, return_inverse=True)
        found = np.empty((len(rows), layout.width), layout.dtype)
        self._read_rows(name, layout, rows, np.diff(rows), found)
        result[targets] = found[back]

    def _read_rows(
        self,
        name: str,
        layout: Layout,
        rows: NDArray[np.int64],
        steps: NDArray[np.int64],
        found: Rows,
    ) -> None:
        ends = np.flatnonzero(steps != 1) + 1
        path = os.path.join(self._folder, name)
        with open(path, "rb", buffering=0) as file:
            for first, last in pairwise([0, *ends.tolist(), len(rows)]):
                row = int(rows[first])
                while first < last:  # rows that follow each other, a chunk at a time
                    chunk, within = divmod(row, layout.rows_per_chunk)
                    count = min(last - first, layout.rows_per_chunk - within)
                    file.seek(int(layout.offsets[chunk]) + within * found.strides[0])
                    self._fill(file, found[first : first + count], path)
                    first, row = first + count, row + count

    def read_all(self, name: str, layout: Layout, count: int) -> Rows:
        """Return the rows of a whole shard as they are stored, (count, width); see `read`."""
        found = np.empty((count, layout.width), layout.dtype)
        rows = np.arange(count)
        self._read_rows(name, layout, rows, np.diff(rows), found)
        return found

    def read_shard(self, name: str, metadata: ShardMetadata) -> Rows:
        """Return the rows of a whole shard, after verifying it; see `check` and `read_all`."""
        self.check([name])
        return self.read_all(name, metadata.layout, len(metadata.views))

    def keep_only(self, names: Mapping[str, object]) -> None:
        """Discard the verification of all shards except these."""
        self._verified = {name: state for name, state in self._verified.items() if name in names}

    def _check_one(self, name: str) -> None:
        before = self._state(name)
        damage = find_damage(self._folder / name)
        if damage is not None:
            raise shard_error(self._folder / name, damage.reason)
        self._verified[name] = before

    def _state(self, name: str) -> FileState:
        return file_state((self._folder / name).stat())

    @staticmethod
    def _fill(file: FileIO, rows: Rows, path: str) -> None:
        view = rows.data.cast("B")
        while view:  # a raw read may be short
            try:
                count = file.readinto(view)
            except OSError as error:
                raise shard_error(
                    Path(path), f"the disk cannot read it ({error.strerror or error})"
                ) from error
            if not count:
                raise shard_error(Path(path), "it was truncated")
            view = view[count:]
