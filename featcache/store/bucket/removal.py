"""Removal of rows and of whole stores in an object store, by one change of the list of shards.

The objects stay until `collect_objects` removes them, for those who read an earlier list.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ...errors import StoreError
from ...hdf5.shard_file import encode_shard
from ...hdf5.shard_metadata import METADATA_SUFFIX
from ..removal import LEASED, USED, Kept, Removal, Removals
from ..row_index import unpack_ids
from ..row_removal import make_removal
from .failures import remove_failures
from .leases import bucket_lease, claims_folder, is_bucket_in_use, server_time
from .manifests import change_shards, store_prefix
from .shard_writer import ShardWriter
from .store import BucketStore


def unused_seconds(store: BucketStore) -> float:
    """Return for how many seconds no row was added to a store, and no mark showed its use.

    By the clock of the server. Those who only read it as a shared cache leave no mark.
    """
    name = store.folder.name
    now, claims = server_time(store.bucket, claims_folder(name))
    used = [state.modified for one, state in claims.items() if one.startswith("use")]
    shards = store.bucket.states(store_prefix(name))
    used += [state.modified for one, state in shards.items() if one in store.manifest.shards]
    return now - max(used, default=now)


def listed_bytes(store: BucketStore) -> int:
    """Return the size of the objects of the listed shards."""
    states = store.bucket.objects(store_prefix(store.folder.name))
    shards = store.manifest.shards
    return sum(size for one, size in states.items() if one.removesuffix(METADATA_SUFFIX) in shards)


def remove_all_shards(store: BucketStore, reason: str, *, dry_run: bool = False) -> Removal | Kept:
    """Remove all shards of a store from its list.

    Parameters
    ----------
    store : BucketStore
    reason : str
        Part of the result.
    dry_run : bool
        Change nothing.

    Returns
    -------
    Removal or Kept
        What is removed, or why it is not.
    """
    name = store.folder.name
    try:
        removal = Removal(name, len(store), listed_bytes(store), reason)
        if dry_run:
            return Kept(name, USED) if is_bucket_in_use(store.bucket, name) else removal
        with bucket_lease(store.bucket, name) as held:
            if not held:
                return Kept(name, LEASED)
            if is_bucket_in_use(store.bucket, name):
                return Kept(name, USED)
            held.check()
            _change(store, {}, list(store.manifest.shards))
            remove_failures(store.bucket, name)
            return removal
    except StoreError as error:
        return Kept(name, str(error), failed=True)


def remove_bucket_rows(
    store: BucketStore, kept: Collection[str], *, dry_run: bool = False
) -> Removals:
    """Remove all rows of a store except those of given ids.

    Parameters
    ----------
    store : BucketStore
    kept : collection of str
        Example ids of the rows to keep.
    dry_run : bool
        Change nothing.

    Returns
    -------
    Removals
        Empty if no row is removed; its `kept` says why rows could not be removed.
    """
    name = store.folder.name
    try:
        unwanted = len(set(store.ids()).difference(kept))
        if not unwanted:
            return Removals()
        if dry_run:
            used = is_bucket_in_use(store.bucket, name)
            return Removals(kept=[Kept(name, USED)]) if used else make_removal(store, unwanted)
        with bucket_lease(store.bucket, name) as held:
            if not held:
                return Removals(kept=[Kept(name, LEASED)])
            if is_bucket_in_use(store.bucket, name):
                return Removals(kept=[Kept(name, USED)])
            store.refresh()
            held.check()
            return _rewrite(store, kept)
    except StoreError as error:
        return Removals(kept=[Kept(name, str(error), failed=True)])


def _rewrite(store: BucketStore, kept: Collection[str]) -> Removals:
    """Create shards of the rows to keep, and list them in place of those with others."""
    before = set(store.ids())
    added: dict[str, int] = {}
    removed: list[str] = []
    writer = ShardWriter(store.bucket, store.folder.name)
    for name in store.shard_names:
        stays = np.array([one in kept for one in unpack_ids(store.ids_in(name))])
        if stays.all():
            continue
        if stays.any():
            found = store.read_shard(name)
            if found is None:
                continue  # keep the whole shard: `repair` saves its rows
            rows, metadata = found
            data, new = encode_shard(
                rows[stays], metadata.image_ids[stays], metadata.views[stays],
                store.spec.components(), {"seconds": f"{metadata.seconds * stays.mean():.6f}"},
            )  # fmt: skip
            added[writer.create(data, rows[stays], new)] = int(stays.sum())
        removed.append(name)
    _change(store, added, removed)
    left = set(store.ids())
    result = make_removal(store, len(before - left))
    if more := len(left.difference(kept)):
        reason = (
            f"{more:,} of the rows to remove are left, in shards that are damaged or that were "
            f"added since. Run `featcache verify {store.folder.name}`, then the same command again"
        )
        result.kept.append(Kept(store.folder.name, reason, failed=True))
    return result


def _change(store: BucketStore, added: dict[str, int], removed: Collection[str]) -> None:
    known = store.manifest
    change_shards(
        store.bucket, store.folder.name, store.folder, known,
        add=added, remove=removed, known=known,
    )  # fmt: skip
    store.refresh()
