"""Comparison of a whole index file with the shards, for `verify`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..hdf5.shard_metadata import ShardMetadata
from ..hdf5.shard_name import Damage
from .index_file import NAME, ROWS_PER_PAGE, IndexDamaged, IndexFile, make_keys
from .manifest import Manifest


def find_index_damage(
    folder: Path, manifest: Manifest | None, all_metadata: Mapping[str, ShardMetadata]
) -> Damage | None:
    """Return the damage of a store's index file; None if it is right, or if there is none.

    Parameters
    ----------
    folder : Path
    manifest : Manifest or None
    all_metadata : mapping of str to ShardMetadata
        Of the valid shards. Others in the index were removed since it was written.
    """
    try:
        file = IndexFile(folder / NAME)
        if manifest is not None:
            file.check_spec(manifest.spec.key, manifest.width)
        _compare(file, all_metadata)
    except FileNotFoundError:
        return None
    except IndexDamaged as error:
        return Damage(NAME, 0, f"{error.reason}; no row is lost")
    return None


def _compare(file: IndexFile, all_metadata: Mapping[str, ShardMetadata]) -> None:
    """Raise `IndexDamaged` unless the table is sorted and has each row of each shard once."""
    known = [all_metadata.get(name) for name in file.head.names]
    starts = np.concatenate([[0], np.cumsum(file.rows)])
    valid = np.array([metadata is not None for metadata in known])
    expected = np.zeros(len(file), "S36")
    for start, metadata in zip(starts, known, strict=False):
        if metadata is not None:
            keys = make_keys(metadata.image_ids, metadata.views)
            expected[start : start + len(keys)] = keys
    seen = np.zeros(len(file), bool)
    last, distinct, count = np.zeros(0, "S36"), 0, 0
    for rows in file.blocks():
        keys = np.concatenate([last, rows["key"]])
        fences = file.head.fences[count : count + -(-len(rows) // ROWS_PER_PAGE)]
        if (keys[1:] < keys[:-1]).any() or (rows["key"][::ROWS_PER_PAGE] != fences).any():
            raise file.damage("its rows are not sorted")
        distinct += int(np.count_nonzero(keys[1:] != keys[:-1])) + (len(last) == 0)
        last, count = keys[-1:], count + len(fences)
        _mark_rows(file, rows, starts, valid, expected, seen)
    if not seen.all():
        raise file.damage("it lacks rows of its shards")
    if distinct != file.head.distinct:
        raise file.damage("its number of distinct rows is wrong")


def _mark_rows(
    file: IndexFile,
    rows: NDArray[np.void],
    starts: NDArray[np.int64],
    valid: NDArray[np.bool_],
    expected: NDArray[np.bytes_],
    seen: NDArray[np.bool_],
) -> None:
    place = starts[rows["shard"]] + rows["row"]
    known = valid[rows["shard"]]
    if (expected[place[known]] != rows["key"][known]).any():
        raise file.damage("it gives rows other ids than their shard")
    seen[place] = True
