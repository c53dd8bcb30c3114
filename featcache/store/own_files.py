"""Which files of a folder a store wrote: no other file is ever renamed or deleted with it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .._io.atomic import TEMPORARY_PREFIX
from ..hdf5.shard_metadata import METADATA_SUFFIX
from ..hdf5.shard_name import rows_in_name
from . import quarantine
from .lease import NAME as LEASE_NAME
from .lease import USE_PREFIX
from .manifest import NAME as MANIFEST_NAME

_SET_ASIDE = re.compile(r"damaged-.*\.bad")
# Operating systems write these into any folder.
_CLUTTER = {".DS_Store", "Thumbs.db", "desktop.ini"}


def holds_a_store(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder has a manifest or a shard: without a manifest it can be repaired."""
    if not os.path.isdir(folder):  # also False for what is no path at all
        return False
    names = os.listdir(folder)
    return MANIFEST_NAME in names or any(rows_in_name(name) is not None for name in names)


def foreign_files(folder: Path) -> list[str]:
    """Return the sorted names of files and folders that no store writes."""
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if not is_own(entry.name) or (entry.is_dir(follow_symlinks=False) and not _temporary(entry))
    )


def is_own(name: str) -> bool:
    """Tell whether a store writes files of a name."""
    return (
        name in (MANIFEST_NAME, LEASE_NAME)
        or name in _CLUTTER
        or name.startswith((TEMPORARY_PREFIX, USE_PREFIX))
        or rows_in_name(name.removesuffix(METADATA_SUFFIX)) is not None
        or quarantine.is_name(name)
        or _SET_ASIDE.fullmatch(name) is not None
    )


def _temporary(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(TEMPORARY_PREFIX)
