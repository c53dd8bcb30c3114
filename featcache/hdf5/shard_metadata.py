"""Metadata sidecars: everything about a shard but its rows, in a small file with a checksum.

A single wrong bit can make HDF5 crash the process, so a shard is opened only after its SHA-256
was verified. Without sidecars every start would hash the whole store. The sidecar also has a
digest per row, which identifies the intact rows of a damaged shard. It can be recreated from an
intact shard at any time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.atomic import write_atomic
from .._io.own_files import read_own_file
from ..errors import StoreCorrupt, StoreMismatch, StoreWriteError
from .row_digests import DIGEST_BYTES, row_digests
from .row_dtype import Rows, row_dtype
from .shard_name import rows_in_name

METADATA_SUFFIX = ".head"
_MAGIC = b"featcache-head-1"
_DIGEST = 32
_MAX_BYTES = 2**32
_LARGEST_SIDECAR, _SIDECAR_ROW_BYTES = 2**30, 80
_SHARD_ROW_BYTES, _SPARE_BYTES = 512, 2**22
ID_BYTES = 32
_COLUMNS = (("u1", ID_BYTES), ("<i4", 1), ("u1", DIGEST_BYTES))  # ids, views, digests


@dataclass(frozen=True)
class Layout:
    """Positions of a shard's rows in its file.

    Attributes
    ----------
    offsets : ndarray (chunks,), int64
        First byte of each chunk of rows.
    rows_per_chunk, width : int
    dtype : dtype
        Of the rows, little-endian.
    """

    offsets: NDArray[np.int64]
    rows_per_chunk: int
    width: int
    dtype: np.dtype[np.floating[Any]]


@dataclass(frozen=True)
class ShardMetadata:
    """Metadata of a shard, validated.

    Attributes
    ----------
    image_ids : ndarray (n, 32), uint8
        Image ids as raw bytes.
    views : ndarray (n,), int32
        View number of each row; 0 is the plain image.
    layout : Layout
        Positions of the rows in the file, and their width.
    components : dict
        The spec under which the rows were computed.
    seconds : float
        Wall time that computing the rows took, reported as their cost.
    """

    image_ids: NDArray[np.uint8]
    views: NDArray[np.int32]
    layout: Layout
    components: dict[str, Any]
    seconds: float = 0.0

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self.layout.width


def check_metadata(
    metadata: ShardMetadata, name: str, components: dict[str, Any], width: int
) -> None:
    """Raise `StoreMismatch` or `StoreCorrupt` unless a shard belongs to a store."""
    if metadata.components != components or metadata.width != width:
        raise StoreMismatch("its spec is not the store's", stored=metadata.components)
    if len(metadata.views) != rows_in_name(name):
        raise StoreCorrupt("its number of rows is not the one in its name")


def write_metadata(shard: Path, size: int, metadata: ShardMetadata, rows: Rows) -> None:
    """Write the sidecar of an intact shard; do nothing if it cannot be written.

    Without a sidecar the shard is inspected again on the next start.

    Parameters
    ----------
    shard : Path
        May have been merged and removed by another process.
    size : int
        Bytes of the shard.
    metadata : ShardMetadata
    rows : ndarray (n, width)
        Only their digests are stored; see `featcache.hdf5.row_digests.row_digests`.
    """
    data = metadata_bytes(shard.name, size, metadata, rows)
    with contextlib.suppress(StoreWriteError):
        write_atomic(
            metadata_path(shard), data, description="the metadata of a shard", durable=False
        )


def metadata_bytes(name: str, size: int, metadata: ShardMetadata, rows: Rows) -> bytes:
    """Return the bytes of the sidecar of a shard of that name; see `write_metadata`."""
    digests = row_digests(metadata.components, metadata.image_ids, metadata.views, rows)
    return encode_metadata(name, size, metadata, digests)


def encode_metadata(
    name: str, size: int, metadata: ShardMetadata, digests: NDArray[np.uint8]
) -> bytes:
    """Return what `metadata_bytes` does for rows with given digests (n, 16)."""
    record = {
        "shard": name, "size": size, "rows": len(metadata.views),
        "components": metadata.components, "seconds": metadata.seconds, "width": metadata.width,
        "rows_per_chunk": metadata.layout.rows_per_chunk,
        "offsets": metadata.layout.offsets.tolist(),
    }  # fmt: skip
    text = json.dumps(record, sort_keys=True).encode()
    columns = (metadata.image_ids, metadata.views.astype("<i4"), digests)
    body = b"".join([len(text).to_bytes(8, "little"), text, *(c.tobytes() for c in columns)])
    return _MAGIC + hashlib.sha256(body).digest() + body


def read_metadata(shard: Path) -> tuple[ShardMetadata, NDArray[np.uint8], int] | None:
    """Return metadata, row digests and size in bytes of a shard from its sidecar.

    Returns
    -------
    (ShardMetadata, ndarray (n, 16) uint8, int) or None
        None if the sidecar is missing, unreadable, damaged, or belongs to another shard.
    """
    try:
        return read_metadata_or_raise(shard)
    except OSError:
        return None


def read_metadata_or_raise(shard: Path) -> tuple[ShardMetadata, NDArray[np.uint8], int] | None:
    """Return what `read_metadata` does, but raise OSError if an existing file cannot be read.

    For repair, which must not treat a sidecar with a temporary read error as damaged.
    """
    try:
        data = read_own_file(metadata_path(shard), _MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None  # a link or a pipe, which this library does not write
    return _parse(shard, data)


def metadata_is_malformed(shard: Path) -> bool:
    """Return whether a shard has a sidecar that is damaged or belongs to another shard."""
    try:
        return _parse(shard, read_own_file(metadata_path(shard), _MAX_BYTES)) is None
    except FileNotFoundError:  # no check in advance: others may write or remove it at any time
        return False
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return True


def _parse(shard: Path, data: bytes) -> tuple[ShardMetadata, NDArray[np.uint8], int] | None:
    try:
        start = len(_MAGIC) + _DIGEST
        body = memoryview(data)[start:]
        if data[:start] != _MAGIC + hashlib.sha256(body).digest():
            return None
        length = int.from_bytes(body[:8], "little")
        record = json.loads(bytes(body[8 : 8 + length]))
        if record["shard"] != shard.name:
            return None
        ids, views, digests = _columns(body[8 + length :], int(record["rows"]))
        offsets = np.array(record["offsets"], np.int64)
        components = dict(record["components"])
        layout = Layout(
            offsets, int(record["rows_per_chunk"]), int(record["width"]), row_dtype(components)
        )
        check_layout(layout, len(ids), int(record["size"]))
        metadata = ShardMetadata(
            ids,
            views.ravel().astype(np.int32),
            layout,
            components,
            plausible_seconds(record["seconds"]),
        )
        return metadata, digests, int(record["size"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def metadata_differs(shard: Path, size: int, metadata: ShardMetadata, rows: Rows) -> bool:
    """Return whether a shard's sidecar is intact but contradicts the shard.

    Parameters
    ----------
    size, metadata, rows
        Of the shard itself, as for `write_metadata`.
    """
    sidecar = read_metadata(shard)
    if sidecar is None:
        return False
    record, digests, recorded_size = sidecar
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
        (record.image_ids, metadata.image_ids), (record.views, metadata.views),
        (record.layout.offsets, metadata.layout.offsets),
        (digests, row_digests(metadata.components, metadata.image_ids, metadata.views, rows)),
    ]  # fmt: skip
    same = (recorded_size, record.components, record.width, record.layout.rows_per_chunk) == (
        size, metadata.components, metadata.width, metadata.layout.rows_per_chunk
    )  # fmt: skip
    return not same or not all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def same_rows(first: ShardMetadata, second: ShardMetadata) -> bool:
    """Return whether two metadata give the rows of a shard the same ids, views and places."""
    mine, theirs = first.layout, second.layout
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
        (first.image_ids, second.image_ids), (first.views, second.views),
        (mine.offsets, theirs.offsets),
    ]  # fmt: skip
    return (mine.rows_per_chunk, mine.width, mine.dtype) == (
        theirs.rows_per_chunk, theirs.width, theirs.dtype
    ) and all(np.array_equal(one, other) for one, other in pairs)  # fmt: skip


def plausible_seconds(value: Any) -> float:
    """Return a time in seconds that a file declares; 0.0 if it is none, as it is only reported.

    Examples
    --------
    >>> plausible_seconds("2.5"), plausible_seconds(-1), plausible_seconds(float("nan"))
    (2.5, 0.0, 0.0)
    """
    seconds = float(value)
    return seconds if 0 <= seconds < 1e12 else 0.0


def largest_sidecar(shard: str) -> int:
    """Return how many bytes the sidecar of a shard of that name may have."""
    return min(_LARGEST_SIDECAR, (rows_in_name(shard) or 0) * _SIDECAR_ROW_BYTES + _SPARE_BYTES)


def largest_shard(rows: int, row_bytes: int) -> int:
    """Return how many bytes a shard may have.

    Parameters
    ----------
    rows : int
    row_bytes : int
        Of the values of each row.
    """
    return rows * (row_bytes + _SHARD_ROW_BYTES) + _SPARE_BYTES


def metadata_path(shard: Path) -> Path:
    """Return the path of a shard's sidecar."""
    return shard.with_name(shard.name + METADATA_SUFFIX)


def check_layout(layout: Layout, rows: int, size: int) -> None:
    """Raise ValueError unless all rows lie within the file."""
    chunks = -(-rows // max(1, layout.rows_per_chunk))
    if layout.rows_per_chunk < 1 or layout.width < 1 or layout.offsets.shape != (chunks,):
        raise ValueError("its number of rows does not match its chunks")
    last = size - layout.dtype.itemsize * layout.width * layout.rows_per_chunk
    if ((layout.offsets < 0) | (layout.offsets > last)).any():
        raise ValueError("a part of its rows lies outside the file")


def _columns(data: memoryview, rows: int) -> list[NDArray[Any]]:
    found, start = [], 0
    for kind, width in _COLUMNS:
        count = rows * width
        found.append(np.frombuffer(data, kind, count, start).reshape(rows, width))
        start += count * np.dtype(kind).itemsize
    if start != len(data):
        raise ValueError("it has bytes after its rows")
    return found
