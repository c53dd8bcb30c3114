"""Recognition of files that a store writes; no other file is ever renamed or deleted."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .._io.atomic import is_temporary_name
from ..hdf5.shard_metadata import METADATA_SUFFIX
from ..hdf5.shard_name import rows_in_name
from . import quarantine
from .index_file import NAME as INDEX_NAME
from .lease import NAME as LEASE_NAME
from .lease import is_use_mark
from .manifest import NAME as MANIFEST_NAME

_SET_ASIDE = re.compile(r"damaged-(?P<name>.+?)(\.[1-9]\d*)?\.bad")
REMOVED_PREFIX = ".gone-"
# The name to restore cannot be "..", nor hidden: it would replace another file of the cache.
_REMOVED = re.compile(re.escape(REMOVED_PREFIX) + r"[0-9a-f]{32}(-(?P<name>[^.].*))?")
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
    return sorted(entry.name for entry in os.scandir(folder) if not _is_own_entry(entry))


def _is_own_entry(entry: os.DirEntry[str]) -> bool:
    is_folder = entry.is_dir(follow_symlinks=False)
    return is_own(entry.name) and (not is_folder or is_temporary_name(entry.name))


def removed_name(name: str) -> str | None:
    """Return the name that a store had before its removal; None if this is none of a removal."""
    match = _REMOVED.fullmatch(name)
    return None if match is None else match["name"] or name


def is_own(name: str) -> bool:
    """Return whether a store writes files of this name."""
    set_aside = _SET_ASIDE.fullmatch(name)
    return (
        name == LEASE_NAME
        or name in _CLUTTER
        or is_temporary_name(name)
        or is_use_mark(name)
        or _is_committed(name)
        or (set_aside is not None and _is_committed(set_aside["name"]))
    )


def _is_committed(name: str) -> bool:
    """Return whether a store writes files of this name that `repair` may set aside."""
    return (
        name in (MANIFEST_NAME, INDEX_NAME)
        or rows_in_name(name.removesuffix(METADATA_SUFFIX)) is not None
        or quarantine.is_name(name)
    )
