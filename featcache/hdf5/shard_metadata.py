"""What there is to know of a shard without its rows, kept beside it in a small sealed file.

HDF5 may crash the process over a single wrong bit, so a shard is opened by it only after its
SHA-256 was found right. That would be the whole store at every start: the file beside the
shard saves it, and tells of a damaged shard which of its rows are still those committed. It
can be made again from a sound shard at any time.
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
from .shard_name import rows_of

ENDING = ".head"
_MAGIC = b"featcache-head-1"
_DIGEST = 32
_MOST_BYTES = 2**32
ID_BYTES = 32
_COLUMNS = (("u1", ID_BYTES), ("<i4", 1), ("u1", DIGEST_BYTES))  # ids, views, digests


@dataclass(frozen=True)
class Layout:
    """Where a shard's rows lie in its file.

    Attributes
    ----------
    offsets : ndarray (chunks,), int64
        First byte of each chunk of rows.
    rows_per_chunk, width : int
    """

    offsets: NDArray[np.int64]
    rows_per_chunk: int
    width: int


@dataclass(frozen=True)
class ShardMetadata:
    """What a shard says of itself, checked.

    Attributes
    ----------
    image_ids : ndarray (n, 32), uint8
        Content ids as raw bytes.
    views : ndarray (n,), int32
        View number of each row; 0 is the plain image.
    layout : Layout
        Where the rows lie in the file, and their width.
    components : dict
        The spec under which the rows were computed.
    seconds : float
        Wall time that computing the rows took, for honest accounts of cost.
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
    """Raise `StoreMismatch` or `StoreCorrupt` for a shard that is no part of a store."""
    if metadata.components != components or metadata.width != width:
        raise StoreMismatch("its spec is not the store's", stored=metadata.components)
    if len(metadata.views) != rows_of(name):
        raise StoreCorrupt("its number of rows is not the one in its name")


def write_metadata(
    shard: Path, size: int, metadata: ShardMetadata, rows: NDArray[np.float32]
) -> None:
    """Keep what is known of a sound shard; a disk that refuses costs reading it again.

    Parameters
    ----------
    shard : Path
        Another process may have merged it away meanwhile.
    size : int
        Its bytes.
    rows : ndarray (n, width), float32
        Kept by their digests alone; see `featcache.hdf5.row_digests.row_digests`.
    """
    digests = row_digests(metadata.components, metadata.image_ids, metadata.views, rows)
    said = {
        "shard": shard.name, "size": size, "rows": len(metadata.views),
        "components": metadata.components, "seconds": metadata.seconds, "width": metadata.width,
        "rows_per_chunk": metadata.layout.rows_per_chunk,
        "offsets": metadata.layout.offsets.tolist(),
    }  # fmt: skip
    text = json.dumps(said, sort_keys=True).encode()
    columns = (metadata.image_ids, metadata.views.astype("<i4"), digests)
    body = b"".join([len(text).to_bytes(8, "little"), text, *(c.tobytes() for c in columns)])
    data = _MAGIC + hashlib.sha256(body).digest() + body
    with contextlib.suppress(StoreWriteError):
        write_atomic(beside(shard), data, description="the metadata of a shard", durable=False)


def read_metadata(shard: Path) -> tuple[ShardMetadata, NDArray[np.uint8], int] | None:
    """Return metadata, digests and size of a shard from the file beside it.

    Returns
    -------
    (ShardMetadata, ndarray (n, 16) uint8, int) or None
        None if there is no such file, or it is not what was written for this shard.
    """
    try:
        return read_metadata_or_raise(shard)
    except OSError:
        return None


def read_metadata_or_raise(shard: Path) -> tuple[ShardMetadata, NDArray[np.uint8], int] | None:
    """Do what `read_metadata` does, but raise OSError if an existing file cannot be read.

    For repair: a sidecar that cannot be read just now is not one that says nothing.
    """
    try:
        data = read_own_file(beside(shard), _MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None  # a link or a pipe: not what was written
    return _parsed(shard, data)


def metadata_is_malformed(shard: Path) -> bool:
    """Tell whether there is a file beside a shard, and it is not what was written for it."""
    try:
        return _parsed(shard, read_own_file(beside(shard), _MOST_BYTES)) is None
    except FileNotFoundError:  # asked once: others may write or remove it at any moment
        return False
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return True


def _parsed(shard: Path, data: bytes) -> tuple[ShardMetadata, NDArray[np.uint8], int] | None:
    try:
        start = len(_MAGIC) + _DIGEST
        body = memoryview(data)[start:]
        if data[:start] != _MAGIC + hashlib.sha256(body).digest():
            return None
        length = int.from_bytes(body[:8], "little")
        said = json.loads(bytes(body[8 : 8 + length]))
        if said["shard"] != shard.name:
            return None
        ids, views, digests = _columns(body[8 + length :], int(said["rows"]))
        offsets = np.array(said["offsets"], np.int64)
        layout = Layout(offsets, int(said["rows_per_chunk"]), int(said["width"]))
        check_layout(layout, len(ids), int(said["size"]))
        metadata = ShardMetadata(
            ids, views.ravel().astype(np.int32), layout, dict(said["components"]),
            float(said["seconds"]),
        )  # fmt: skip
        return metadata, digests, int(said["size"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def metadata_differs(
    shard: Path, size: int, metadata: ShardMetadata, rows: NDArray[np.float32]
) -> bool:
    """Tell whether the file beside a shard is intact, but says other things than the shard.

    Parameters
    ----------
    size, metadata, rows
        Those of the shard itself, as for `write_metadata`.
    """
    known = read_metadata(shard)
    if known is None:
        return False
    said, digests, said_size = known
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
        (said.image_ids, metadata.image_ids), (said.views, metadata.views),
        (said.layout.offsets, metadata.layout.offsets),
        (digests, row_digests(metadata.components, metadata.image_ids, metadata.views, rows)),
    ]  # fmt: skip
    same = (said_size, said.components, said.width, said.layout.rows_per_chunk) == (
        size, metadata.components, metadata.width, metadata.layout.rows_per_chunk
    )  # fmt: skip
    return not same or not all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def beside(shard: Path) -> Path:
    """Return the name of the file beside a shard."""
    return shard.with_name(shard.name + ENDING)


def check_layout(layout: Layout, rows: int, size: int) -> None:
    """Raise ValueError unless all rows lie within the file."""
    chunks = -(-rows // max(1, layout.rows_per_chunk))
    if layout.rows_per_chunk < 1 or layout.width < 1 or layout.offsets.shape != (chunks,):
        raise ValueError("its rows are not divided into its chunks")
    last = size - 4 * layout.width * layout.rows_per_chunk
    if ((layout.offsets < 0) | (layout.offsets > last)).any():
        raise ValueError("a part of its rows lies outside the file")


def _columns(data: memoryview, rows: int) -> list[NDArray[Any]]:
    found, start = [], 0
    for kind, width in _COLUMNS:
        count = rows * width
        found.append(np.frombuffer(data, kind, count, start).reshape(rows, width))
        start += count * np.dtype(kind).itemsize
    if start != len(data):
        raise ValueError("it has more than its rows")
    return found
