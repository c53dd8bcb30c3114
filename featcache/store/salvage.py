"""What of a damaged shard can be proven to be what was committed."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.own_files import open_own_file
from ..hdf5.row_digests import row_digests
from ..hdf5.shard_metadata import Layout, read_metadata_or_raise
from .row_index import unpack_ids


@dataclass(frozen=True)
class Salvage:
    """The rows of a damaged shard, and which of them are right by their own digests.

    Attributes
    ----------
    rows : ndarray (n, width), float32
    ids : ndarray (n, 32), uint8
    views : ndarray (n,), int32
    intact : ndarray (n,), bool
    """

    rows: NDArray[np.float32]
    ids: NDArray[np.uint8]
    views: NDArray[np.int32]
    intact: NDArray[np.bool_]

    def new(self, stored: Collection[bytes]) -> NDArray[np.bool_]:
        """Tell for each row whether it is intact and not among those of `row_keys`."""
        return np.logical_and(self.intact, self._absent(stored))

    def lost_without(self, stored: Collection[bytes]) -> tuple[str, ...]:
        """Return the ids of rows that are neither intact nor among those of `row_keys`."""
        return tuple(unpack_ids(self.ids[~self.intact & self._absent(stored)]))

    def _absent(self, stored: Collection[bytes]) -> NDArray[np.bool_]:
        return np.array([key not in stored for key in row_keys(self.ids, self.views)], bool)


def row_keys(ids: NDArray[np.uint8], views: NDArray[np.int32]) -> list[bytes]:
    """Return what tells rows apart: id and view of each, as bytes."""
    whose = np.column_stack([ids, np.ascontiguousarray(views, "<i4")[:, None].view("u1")])
    return [key.tobytes() for key in whose]


def salvage(shard: Path, components: Mapping[str, Any], width: int) -> Salvage | None:
    """Look for sound rows in a damaged shard; None if nothing is known of what was in it.

    The rows are taken from where they lay when the shard was sound. HDF5 is not asked.

    Parameters
    ----------
    shard : Path
        Under the name that it was committed by.
    components : mapping
        Those of the store's spec; rows of another one are not sound.
    width : int
        That of the store.

    Raises
    ------
    OSError
        If the system cannot read the sidecar or any row of the shard: when the disk answers
        again, all rows may be there. Single places that cannot be read cost their rows alone.
    """
    known = read_metadata_or_raise(shard)
    if known is None or known[0].components != components or known[0].width != width:
        return None
    metadata, digests, _ = known
    try:
        rows = _as_they_lie(shard, metadata.layout, len(metadata.views))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None  # a link or a pipe: whatever it leads to is not what was committed
    found = row_digests(metadata.components, metadata.image_ids, metadata.views, rows)
    return Salvage(rows, metadata.image_ids, metadata.views, (found == digests).all(axis=1))


def _as_they_lie(shard: Path, layout: Layout, count: int) -> NDArray[np.float32]:
    """Read rows by their places; what lies beyond the end or cannot be read is zero."""
    rows = np.zeros((count, layout.width), "<f4")
    answered = False
    with open(open_own_file(shard), "rb", buffering=0) as file:
        for number, offset in enumerate(layout.offsets.tolist()):
            start = number * layout.rows_per_chunk
            part = rows[start : start + layout.rows_per_chunk]
            if _filled(file, offset, part):
                answered = True
                continue
            for i in range(len(part)):  # a bad sector costs the rows in it alone
                answered |= _filled(file, offset + i * part.strides[0], part[i])
    if not answered:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(shard))
    return rows


def _filled(file: FileIO, offset: int, rows: NDArray[np.float32]) -> bool:
    """Read what is there; False if the disk cannot read all of it."""
    view = rows.data.cast("B")
    try:
        file.seek(offset)
        while view and (count := file.readinto(view)):
            view = view[count:]
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False
    return True
