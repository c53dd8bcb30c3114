"""Recognition of files that a store writes; no other file is ever renamed or deleted."""

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


def is_store_folder(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder has a manifest, or a shard from which `repair` can write one."""
    if not os.path.isdir(folder):  # also False for text that is not a path
        return False
    names = os.listdir(folder)
    return MANIFEST_NAME in names or any(rows_in_name(name) is not None for name in names)


def unexpected_files(folder: Path) -> list[str]:
    """Return the sorted names of files and folders in a store's folder that no store writes."""
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if not is_own(entry.name) or (entry.is_dir(follow_symlinks=False) and not _temporary(entry))
    )


def is_own(name: str) -> bool:
    """Return whether a store writes files of this name."""
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
