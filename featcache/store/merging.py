"""Which small shards are merged, and the rows of the merged one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..hdf5.row_dtype import Rows
from ..hdf5.shard_name import rows_in_name
from .row_index import IdArray
from .store import Store

# A merged shard is several times as large as each of its parts, so that each row is rewritten
# once or twice in a store's life, and large shards are never rewritten.
SMALL_SHARD_BYTES = 2 * 2**20
MERGED_SHARD_BYTES = 4 * SMALL_SHARD_BYTES
MANY_SMALL_SHARDS = 24
_BYTES_PER_ID = 64  # id, view, and digest in the sidecar


@dataclass(frozen=True)
class Merged:
    """The distinct rows of several shards.

    Attributes
    ----------
    names : list of str
        The shards.
    rows : ndarray (n, width)
        As they are stored.
    ids : ndarray (n, 32), uint8
    views : ndarray (n,), int32
    provenance : mapping of str to str
    """

    names: list[str]
    rows: Rows
    ids: IdArray
    views: NDArray[np.int32]
    provenance: Mapping[str, str]


def rows_per_group(store: Store, merged: int) -> int:
    """Return how many rows a shard of a number of bytes has, at least 2."""
    return max(2, merged // bytes_per_row(store))


def bytes_per_row(store: Store) -> int:
    """Return about how many bytes a row takes in a shard and its sidecar."""
    return store.spec.row_bytes(store.width) + _BYTES_PER_ID


def group_shards(names: Sequence[str], rows: int) -> list[list[str]]:
    """Divide shards into groups of at most a number of rows; those alone are left out."""
    groups: list[list[str]] = [[]]
    count = 0
    for name in names:
        size = rows_in_name(name) or 0
        if groups[-1] and count + size > rows:
            groups.append([])
            count = 0
        groups[-1].append(name)
        count += size
    return [group for group in groups if len(group) > 1]


def merge_rows(store: Store, names: Sequence[str]) -> Merged | None:
    """Read the rows of several shards; None if fewer than two of them can be read."""
    parts = []
    seconds = 0.0
    for name in names:
        found = store.read_shard(name)
        if found is not None:
            rows, metadata = found
            parts.append((name, rows, metadata.image_ids, metadata.views))
            seconds += metadata.seconds
    if len(parts) < 2:
        return None
    ids = np.concatenate([part[2] for part in parts])
    views = np.concatenate([part[3] for part in parts])
    keys = np.column_stack([ids, views.view("u1").reshape(-1, 4)])
    _, first = np.unique(keys, axis=0, return_index=True)
    first.sort()
    rows = np.concatenate([part[1] for part in parts])[first]
    provenance = {"merged": str(len(parts)), "seconds": f"{seconds:.6f}"}
    return Merged([part[0] for part in parts], rows, ids[first], views[first], provenance)
