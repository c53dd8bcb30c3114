"""What of a damaged shard can be proven to be what was committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rowindex import unpack_ids
from .rowsums import row_sums
from .shardhead import Layout, read_head


@dataclass(frozen=True)
class Salvage:
    """The rows of a damaged shard whose own sums are right, and the ids of the others.

    Attributes
    ----------
    rows : ndarray (n, width), float32
    ids : ndarray (n, 32), uint8
    views : ndarray (n,), int32
    lost : tuple of str
    """

    rows: NDArray[np.float32]
    ids: NDArray[np.uint8]
    views: NDArray[np.int32]
    lost: tuple[str, ...]


def salvage(shard: Path, components: Mapping[str, Any]) -> Salvage | None:
    """Look for sound rows in a damaged shard; None if nothing is known of what was in it.

    The rows are taken from where they lay when the shard was sound. HDF5 is not asked.

    Parameters
    ----------
    shard : Path
        Under the name that it was committed by.
    components : mapping
        Those of the store's spec; rows of another one are not sound.
    """
    known = read_head(shard)
    if known is None or known[0].components != components:
        return None
    head, sums, _ = known
    rows = _as_they_lie(shard, head.layout, len(head.views))
    found = row_sums(head.components, head.image_ids, head.views, rows)
    sound = (found == sums).all(axis=1)
    ids = head.image_ids
    return Salvage(rows[sound], ids[sound], head.views[sound], tuple(unpack_ids(ids[~sound])))


def _as_they_lie(shard: Path, layout: Layout, count: int) -> NDArray[np.float32]:
    """Read rows by their places; what lies beyond the end of the file is zero."""
    rows = np.zeros((count, layout.width), "<f4")
    with open(shard, "rb") as file:
        for number, offset in enumerate(layout.offsets.tolist()):
            start = number * layout.rows_per_chunk
            file.seek(offset)
            file.readinto(rows[start : start + layout.rows_per_chunk].data.cast("B"))
    return rows
