"""Recovery of the intact rows of a damaged shard by their digests."""

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
from ..hdf5.row_dtype import Rows
from ..hdf5.shard_metadata import Layout, read_metadata_or_raise
from .row_index import unpack_ids


@dataclass(frozen=True)
class Salvage:
    """The rows of a damaged shard, with a mask of those that are intact.

    Attributes
    ----------
    rows : ndarray (n, width)
        Of the dtype in which they are stored.
    ids : ndarray (n, 32), uint8
    views : ndarray (n,), int32
    intact : ndarray (n,), bool
        Whether the digest of the row is the committed one.
    """

    rows: Rows
    ids: NDArray[np.uint8]
    views: NDArray[np.int32]
    intact: NDArray[np.bool_]

    def new(self, stored: Collection[bytes]) -> NDArray[np.bool_]:
        """Return the mask of rows that are intact and not among the stored `row_keys`."""
        return np.logical_and(self.intact, self._is_missing(stored))

    def lost_without(self, stored: Collection[bytes]) -> tuple[str, ...]:
        """Return the ids of rows that are neither intact nor among the stored `row_keys`."""
        return tuple(unpack_ids(self.ids[~self.intact & self._is_missing(stored)]))

    def _is_missing(self, stored: Collection[bytes]) -> NDArray[np.bool_]:
        return np.array([key not in stored for key in row_keys(self.ids, self.views)], bool)


def row_keys(ids: NDArray[np.uint8], views: NDArray[np.int32]) -> list[bytes]:
    """Return id and view of each row as bytes, which identify the row."""
    keys = np.column_stack([ids, np.ascontiguousarray(views, "<i4")[:, None].view("u1")])
    return [key.tobytes() for key in keys]


def salvage(shard: Path, components: Mapping[str, Any], width: int) -> Salvage | None:
    """Read the rows of a damaged shard and compare their digests with the sidecar's.

    The rows are read from the offsets in the sidecar, without HDF5.

    Parameters
    ----------
    shard : Path
        Under the name with which it was committed.
    components : mapping
        Those of the store's spec.
    width : int
        Length of an embedding.

    Returns
    -------
    Salvage or None
        None without a valid sidecar of this spec and width.

    Raises
    ------
    OSError
        If the system cannot read the sidecar, or no row of the shard: all rows may be intact
        once the disk works again. Single unreadable blocks cost only the rows in them.
    """
    sidecar = read_metadata_or_raise(shard)
    if sidecar is None or sidecar[0].components != components or sidecar[0].width != width:
        return None
    metadata, digests, _ = sidecar
    try:
        rows = _read_rows(shard, metadata.layout, len(metadata.views))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None  # a link or a pipe, which this library does not write
    found = row_digests(metadata.components, metadata.image_ids, metadata.views, rows)
    return Salvage(rows, metadata.image_ids, metadata.views, (found == digests).all(axis=1))


def _read_rows(shard: Path, layout: Layout, count: int) -> Rows:
    """Read rows by their offsets; rows that cannot be read are zero."""
    rows = np.zeros((count, layout.width), layout.dtype)
    readable = False
    with open(open_own_file(shard), "rb", buffering=0) as file:
        for number, offset in enumerate(layout.offsets.tolist()):
            start = number * layout.rows_per_chunk
            part = rows[start : start + layout.rows_per_chunk]
            if _fill(file, offset, part):
                readable = True
                continue
            for i in range(len(part)):  # row by row: a bad sector costs only the rows in it
                readable |= _fill(file, offset + i * part.strides[0], part[i])
    if not readable:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(shard))
    return rows


def _fill(file: FileIO, offset: int, rows: Rows) -> bool:
    """Fill rows as far as the file goes; return False after a read error."""
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
