"""Damaged files of a store, renamed so that nothing reads them and nothing is lost."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

from .._io.atomic import sync_folder
from ..hdf5.shard_metadata import METADATA_SUFFIX, metadata_path
from ..hdf5.shard_name import rows_in_name


def set_aside(path: Path) -> None:
    """Rename a damaged file to ``damaged-<name>.bad``, and the sidecar of a shard with it.

    The shard goes first: what tells its rows never stands under the name of another one, and
    `move_orphans` finishes what a kill in between leaves. A file that is gone is passed over.
    """
    for each in (path, metadata_path(path)):
        with contextlib.suppress(FileNotFoundError):
            os.rename(each, _free_name(each))
    sync_folder(path.parent)


def move_orphans(folder: Path) -> None:
    """Remove the sidecars of shards that were merged away; keep those of damaged ones.

    A reader may have written one after the shard was removed. Where the shard was set aside,
    its sidecar follows it.
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
    for number in itertools.count(1):
        ending = ".bad" if number == 1 else f".{number}.bad"
        name = path.with_name(f"damaged-{path.name}{ending}")
        if not os.path.lexists(name):  # an earlier one is kept: nobody knows what is in it
            return name
    raise AssertionError("unreachable")
