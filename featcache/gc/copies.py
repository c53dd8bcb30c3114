"""Removal of local copies of stores in object stores, by age and size."""

from __future__ import annotations

import time
from pathlib import Path

from .._io.disk_space import folder_bytes
from .._io.wording import format_count
from ..store.bucket.local_copies import (
    LocalCopy,
    copies_in,
    copy_folders,
    last_opened,
    oldest_copies,
    remove_copies,
    remove_copy_folder,
)
from ..store.removal import Removal, Removals

_SECONDS_PER_DAY = 86400


def collect_copies(
    cache: Path,
    found: Removals,
    *,
    unused_days: float | None,
    max_bytes: int | None,
    beside: int,
    dry_run: bool,
) -> int:
    """Remove local copies that were not read for some days, then those that were read longest ago.

    Parameters
    ----------
    cache : Path
        The cache folder.
    found : Removals
        What is removed is added to it. Its `rows` are 0: all of them are in the object store.
    unused_days : float or None
        The age; None to remove none for its age.
    max_bytes : int or None
        How much copies and stores may take together; None to remove none for its size.
    beside : int
        How much the stores take.
    dry_run : bool
        Change nothing.

    Returns
    -------
    int
        Size of the copies that are left.
    """
    left = list[LocalCopy]()
    for folder in copy_folders(cache):
        age = (time.time() - last_opened(folder)) / _SECONDS_PER_DAY
        if unused_days is None or age <= unused_days:
            left += copies_in(folder)
            continue
        reason = f"copies of an object store, not used for {age:.1f} days"
        found.append(_removal(cache, folder, folder_bytes(folder), reason))
        if not dry_run:
            remove_copy_folder(folder)
    size = sum(copy.size for copy in left)
    removed = oldest_copies(left, 0 if max_bytes is None else size + beside - max_bytes)
    if not dry_run:
        remove_copies(removed)
    for folder in sorted({copy.path.parent for copy in removed}):
        copies = [copy for copy in removed if copy.path.parent == folder]
        reason = f"{format_count(len(copies), 'copy', 'copies')} of shards of an object store"
        found.append(_removal(cache, folder, sum(copy.size for copy in copies), reason))
    return size - sum(copy.size for copy in removed)


def _removal(cache: Path, folder: Path, size: int, reason: str) -> Removal:
    return Removal(folder.relative_to(cache).as_posix(), 0, size, reason)
