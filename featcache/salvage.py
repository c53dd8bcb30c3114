"""What of a damaged shard can be proven to be what was committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import StoreError
from .hdf5 import WreckReader
from .rowindex import unpack_ids


@dataclass(frozen=True)
class Salvage:
    """The rows of a damaged shard whose own sums are right, and the ids of the others.

    Attributes
    ----------
    rows : ndarray (n, width), float32
    ids : ndarray (n, 32), uint8
    views : ndarray (n,), int32
    lost : tuple of str
        As they stand in the shard: an id may be what was damaged.
    """

    rows: NDArray[np.float32]
    ids: NDArray[np.uint8]
    views: NDArray[np.int32]
    lost: tuple[str, ...]


def salvage(path: Path, components: Mapping[str, Any]) -> Salvage | None:
    """Look for sound rows in a damaged shard; None if it cannot be read at all.

    Parameters
    ----------
    path : Path
    components : mapping
        Those of the store's spec; rows of another one are not sound.
    """
    try:
        with WreckReader(path) as reader:
            rows, ids, views, sound = reader.rows(components)
    except (StoreError, OSError, ValueError):
        return None
    return Salvage(rows[sound], ids[sound], views[sound], tuple(unpack_ids(ids[~sound])))
