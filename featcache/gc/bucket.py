"""Garbage collection of a cache in an object store."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest, StoreError
from ..store.bucket.collection import GRACE_SECONDS, collect_objects
from ..store.bucket.removal import (
    listed_bytes,
    remove_all_shards,
    remove_bucket_rows,
    unused_seconds,
)
from ..store.bucket.store import BucketStore, find_bucket_store, mirror_folder
from ..store.bucket.store_names import store_names
from ..store.removal import Kept, Removals
from .kept_images import KeptImages, kept_ids

_SECONDS_PER_DAY = 86400
GRACE_DAYS = GRACE_SECONDS / _SECONDS_PER_DAY


def collect_bucket(
    url: str,
    cache: Path,
    *,
    unused_days: float | None = None,
    max_bytes: int | None = None,
    keep_ids: Collection[str] | None = None,
    keep_data: Sequence[Any] | None = None,
    names: Sequence[str] = (),
    grace_days: float = GRACE_DAYS,
    dry_run: bool = False,
) -> Removals:
    """Remove stores and rows that are no longer needed, and objects that no store needs.

    Rows are removed by a change of the list of shards. Objects that are not listed for longer than
    the time of grace are removed.

    Parameters
    ----------
    url : str
        The URL of the cache.
    cache : Path
        One's own cache folder, for local copies of its files.
    unused_days, max_bytes, keep_ids, keep_data, dry_run
        As for `featcache.gc.collect.collect`; none is needed. The size is that of the objects that
        are listed.
    names : sequence of str
        Beginnings of the names of the stores to consider. Without any, all.
    grace_days : float
        Days for which objects stay that are not listed, or not listed any more.

    Returns
    -------
    Removals

    Raises
    ------
    InvalidRequest
        If a number is negative, or a file of `keep_data` cannot be read. Nothing is removed.
    StoreError
        If there is no store of a name, or the server cannot be reached.
    """
    if not all(0 <= (number or 0) < math.inf for number in (unused_days, max_bytes, grace_days)):
        raise InvalidRequest("An age in days and a size in bytes must be 0 or more, and finite.")
    images = None if keep_data is None else KeptImages(keep_data, cache)
    found = Removals()
    stores = _opened(url, cache, store_names(url, names), found)
    _remove_stores(found, stores, unused_days, max_bytes, dry_run)
    done = {each.name for each in (*found, *found.kept)}
    for store, _, _ in stores:
        name = store.folder.name
        if name not in done and (keep_ids is not None or images is not None):
            ids = kept_ids(name, store.spec, keep_ids, images)
            if isinstance(ids, Kept):
                found.kept.append(ids)
            else:
                _add(found, remove_bucket_rows(store, ids, dry_run=dry_run))
        mirror = mirror_folder(cache, url, name)
        grace = grace_days * _SECONDS_PER_DAY
        _add(found, collect_objects(store.bucket, name, mirror, grace=grace, dry_run=dry_run))
    return found


def _opened(
    url: str, cache: Path, names: Sequence[str], found: Removals
) -> list[tuple[BucketStore, float, int]]:
    """Return stores with the seconds since their last use and their sizes, unused longest first."""
    opened = []
    for name in names:
        try:
            store = find_bucket_store(url, name, cache)
            if store is not None:
                opened.append((store, unused_seconds(store), listed_bytes(store)))
        except StoreError as error:
            found.kept.append(Kept(name, str(error), failed=True))
    return sorted(opened, key=lambda one: -one[1])


def _remove_stores(
    found: Removals,
    stores: Sequence[tuple[BucketStore, float, int]],
    unused_days: float | None,
    max_bytes: int | None,
    dry_run: bool,
) -> None:
    total = sum(size for _, _, size in stores)
    for store, seconds, size in stores:
        days, reason = seconds / _SECONDS_PER_DAY, None
        if unused_days is not None and days > unused_days:
            reason = f"not used for {days:.1f} days"
        elif max_bytes is not None and total > max_bytes:
            mebibytes = total / 2**20, max_bytes / 2**20
            reason = "{:,.1f} MiB in all, the limit is {:,.1f}".format(*mebibytes)
        if reason is None or not store.manifest.shards:
            continue
        outcome = remove_all_shards(store, reason, dry_run=dry_run)
        if isinstance(outcome, Kept):
            found.kept.append(outcome)
        else:
            found.append(outcome)
            total -= size


def _add(found: Removals, more: Removals) -> None:
    found += more
    found.kept += more.kept
