"""Renaming of damaged files, which are never read again and never deleted."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .._io.atomic import sync_folder
from ..hdf5.shard_metadata import METADATA_SUFFIX, metadata_path
from ..hdf5.shard_name import rows_in_name


def set_aside(path: Path) -> None:
    """Rename a damaged file to ``damaged-<name>.bad``, and the sidecar of a shard with it.

    The shard first, so that a sidecar never belongs to another shard;
    `move_orphaned_sidecars` completes what a kill in between leaves. A missing file is ignored.
    """
    for each in (path, metadata_path(path)):
        with contextlib.suppress(FileNotFoundError):
            os.rename(each, _free_name(each))
    sync_folder(path.parent)


def move_orphaned_sidecars(folder: Path) -> None:
    """Remove sidecars of merged shards, and set aside those of shards that were set aside.

    A reader may have written a sidecar after its shard was removed or renamed.
    """
    for path in folder.glob(f"*.h5{METADATA_SUFFIX}"):
        shard = path.with_name(path.name.removesuffix(METADATA_SUFFIX))
        if rows_in_name(shard.name) is None or shard.exists():
            continue
        with contextlib.suppress(OSError):
            if any(folder.glob(f"damaged-{shard.name}*.bad")):
                os.rename(path, _free_name(path))
            else:
                path.unlink()


def _free_name(path: Path) -> Path:
    name = path.with_name(f"damaged-{path.name}.bad")
    number = 1
    while os.path.lexists(name):  # never overwrite an earlier damaged file
        number += 1
        name = path.with_name(f"damaged-{path.name}.{number}.bad")
    return name
