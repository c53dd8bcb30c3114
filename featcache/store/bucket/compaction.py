"""Merging of small shards of a store in an object store."""

from __future__ import annotations

from ..._io.logs import get_logger
from ..._io.wording import format_count
from ...errors import StoreError
from ...hdf5.shard_file import encode_shard
from ...hdf5.shard_name import rows_in_name
from ..merging import (
    MANY_SMALL_SHARDS,
    MERGED_SHARD_BYTES,
    SMALL_SHARD_BYTES,
    bytes_per_row,
    group_shards,
    merge_rows,
    rows_per_group,
)
from .leases import bucket_lease
from .manifests import ShardsChanged, change_shards
from .shard_writer import ShardWriter
from .store import BucketStore

log = get_logger(__name__)


def compact_bucket(
    store: BucketStore,
    *,
    small: int = SMALL_SHARD_BYTES,
    merged: int = MERGED_SHARD_BYTES,
    many: int = MANY_SMALL_SHARDS,
) -> int:
    """Merge small shards into larger ones if there are many.

    For each merged shard, its objects are created first; then one change lists it, and its parts
    no more. Their objects stay until `featcache gc`, for those who read an earlier list. Others
    may add rows at the same time. If the server refuses, the store stays as it is.

    Parameters
    ----------
    store : BucketStore
    small : int
        Shards of about fewer bytes are merged.
    merged : int
        Maximum number of bytes of a merged shard.
    many : int
        Minimum number of small shards; with fewer, nothing is merged.

    Returns
    -------
    int
        Number of shards that were merged.
    """
    if len(_small_shards(store, small)) < many:
        return 0
    count = 0
    try:
        with bucket_lease(store.bucket, store.folder.name) as held:
            if not held:
                return 0
            store.refresh()  # another process may have merged some before we had the lease
            groups = group_shards(_small_shards(store, small), rows_per_group(store, merged))
            for group in groups:
                held.check()
                count += _merge(store, group)
    except ShardsChanged:
        log.info("%s: another process replaces its shards", store.folder.name)
    except StoreError as error:  # all rows are stored: no reason for an extraction to fail
        log.warning("%s: small shards were not merged: %s", store.folder.name, error)
    store.refresh()
    if count:
        log.info("%s: merged %s", store.folder.name, format_count(count, "small shard"))
    return count


def _small_shards(store: BucketStore, small: int) -> list[str]:
    most = small // bytes_per_row(store)
    return [name for name in store.shard_names if (rows_in_name(name) or 0) < most]


def _merge(store: BucketStore, names: list[str]) -> int:
    """Create a shard of the rows of several ones, and list it in their place."""
    known = store.manifest
    found = merge_rows(store, names)
    if found is None:
        return 0
    data, metadata = encode_shard(
        found.rows, found.ids, found.views, store.spec.components(), found.provenance
    )
    shard = ShardWriter(store.bucket, store.folder.name).create(data, found.rows, metadata)
    change_shards(
        store.bucket, store.folder.name, store.folder, known,
        add={shard: len(found.ids)}, remove=found.names, known=known,
    )  # fmt: skip
    return len(found.names)
