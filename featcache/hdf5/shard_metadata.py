"""What there is to know of a shard without its rows, kept beside it in a small sealed file.

HDF5 may crash the process over a single wrong bit, so a shard is opened by it only after its
SHA-256 was found right. That would be the whole store at every start: the file beside the
shard saves it, and tells of a damaged shard which of its rows are still those committed. It
can be made again from a sound shard at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.atomic import write_atomic
from ..errors import StoreCorrupt, StoreMismatch, StoreWriteError
from .row_digests import SUM_BYTES, row_sums
from .shard_name import rows_of

ENDING = ".head"
_MAGIC = b"featcache-head-1"
_DIGEST = 32
ID_BYTES = 32
_COLUMNS = (("u1", ID_BYTES), ("<i4", 1), ("u1", SUM_BYTES))  # ids, views, sums


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
class ShardHead:
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


def check_head(head: ShardHead, name: str, components: dict[str, Any], width: int) -> None:
    """Raise `StoreMismatch` or `StoreCorrupt` for a shard that is no part of a store."""
    if head.components != components or head.width != width:
        raise StoreMismatch("its spec is not the store's", stored=head.components)
    if len(head.views) != rows_of(name):
        raise StoreCorrupt("its number of rows is not the one in its name")


def write_head(shard: Path, size: int, head: ShardHead, rows: NDArray[np.float32]) -> None:
    """Keep what is known of a sound shard; a disk that refuses costs reading it again.

    Parameters
    ----------
    shard : Path
        Another process may have merged it away meanwhile.
    size : int
        Its bytes.
    rows : ndarray (n, width), float32
        Kept by their sums alone; see `featcache.hdf5.row_digests.row_sums`.
    """
    sums = row_sums(head.components, head.image_ids, head.views, rows)
    said = {
        "shard": shard.name, "size": size, "rows": len(head.views),
        "components": head.components, "seconds": head.seconds, "width": head.width,
        "rows_per_chunk": head.layout.rows_per_chunk, "offsets": head.layout.offsets.tolist(),
    }  # fmt: skip
    text = json.dumps(said, sort_keys=True).encode()
    columns = (head.image_ids, head.views.astype("<i4"), sums)
    body = b"".join([len(text).to_bytes(8, "little"), text, *(c.tobytes() for c in columns)])
    data = _MAGIC + hashlib.sha256(body).digest() + body
    with contextlib.suppress(StoreWriteError):
        write_atomic(beside(shard), data, what="the head of a shard", durable=False)


def read_head(shard: Path) -> tuple[ShardHead, NDArray[np.uint8], int] | None:
    """Return head, sums and size of a shard from the file beside it.

    Returns
    -------
    (ShardHead, ndarray (n, 16) uint8, int) or None
        None if there is no such file, or it is not what was written for this shard.
    """
    try:
        return read_head_or_raise(shard)
    except OSError:
        return None


def read_head_or_raise(shard: Path) -> tuple[ShardHead, NDArray[np.uint8], int] | None:
    """Do what `read_head` does, but raise OSError if the system cannot read a file that is there.

    For repair: a sidecar that cannot be read just now is not one that says nothing.
    """
    try:
        data = beside(shard).read_bytes()
    except FileNotFoundError:
        return None
    return _parsed(shard, data)


def head_is_malformed(shard: Path) -> bool:
    """Tell whether there is a file beside a shard, and it is not what was written for it."""
    try:
        return _parsed(shard, beside(shard).read_bytes()) is None
    except FileNotFoundError:  # asked once: others may write or remove it at any moment
        return False


def _parsed(shard: Path, data: bytes) -> tuple[ShardHead, NDArray[np.uint8], int] | None:
    try:
        start = len(_MAGIC) + _DIGEST
        body = memoryview(data)[start:]
        if data[:start] != _MAGIC + hashlib.sha256(body).digest():
            return None
        length = int.from_bytes(body[:8], "little")
        said = json.loads(bytes(body[8 : 8 + length]))
        if said["shard"] != shard.name:
            return None
        ids, views, sums = _columns(body[8 + length :], int(said["rows"]))
        offsets = np.array(said["offsets"], np.int64)
        layout = Layout(offsets, int(said["rows_per_chunk"]), int(said["width"]))
        check_layout(layout, len(ids), int(said["size"]))
        head = ShardHead(
            ids, views.ravel().astype(np.int32), layout, dict(said["components"]),
            float(said["seconds"]),
        )  # fmt: skip
        return head, sums, int(said["size"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def head_differs(shard: Path, size: int, head: ShardHead, rows: NDArray[np.float32]) -> bool:
    """Tell whether the file beside a shard is intact, but says other things than the shard.

    Parameters
    ----------
    size, head, rows
        Those of the shard itself, as for `write_head`.
    """
    known = read_head(shard)
    if known is None:
        return False
    said, sums, said_size = known
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
        (said.image_ids, head.image_ids), (said.views, head.views),
        (said.layout.offsets, head.layout.offsets),
        (sums, row_sums(head.components, head.image_ids, head.views, rows)),
    ]  # fmt: skip
    same = (said_size, said.components, said.width, said.layout.rows_per_chunk) == (
        size, head.components, head.width, head.layout.rows_per_chunk
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
