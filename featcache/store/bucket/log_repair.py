"""Repair of the list of shards of a store in an object store, if changes or snapshots are damaged.

Objects are never replaced: the list is written again as the snapshots of two new changes, where
readers begin.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import StoreCorrupt, StoreError, StoreMismatch
from ...hdf5.shard_metadata import (
    METADATA_SUFFIX,
    check_metadata,
    largest_sidecar,
    metadata_path,
    read_metadata,
)
from ...hdf5.shard_name import rows_in_name
from ..manifest import MAX_BYTES, Manifest
from .fields import encode_fields
from .leases import claims_folder, server_time
from .log_names import MAX_NUMBER
from .manifests import (
    LogReading,
    change_key,
    latest_manifest,
    listed_numbers,
    snapshot_key,
    store_prefix,
)
from .objects import Bucket, TooLarge


def rebuild_list(bucket: Bucket, name: str, mirror: Path) -> None:
    """Write the list of shards again. The caller holds the lease of the store.

    If it cannot be read, it is made from the newest intact snapshot and the intact changes, and of
    all shards that are there and that no intact change has removed.

    Parameters
    ----------
    bucket : Bucket
    name : str
        Name of the store.
    mirror : Path
        Folder for the local copies of its files, of the store's name.

    Raises
    ------
    StoreCorrupt
        If no change and no snapshot is intact, so that the spec is unknown.
    StoreError
        If another process makes a change at the same time, or there is one of the largest number.
    """
    newest = _newest_number(bucket, name)
    try:
        found: Manifest | None = latest_manifest(bucket, name, mirror)
    except StoreCorrupt:
        found = _collected_list(bucket, name, mirror)
    if found is None:
        raise StoreCorrupt(
            f"No change and no snapshot of the list of {bucket.url}/{store_prefix(name)} is "
            "intact. Restore one of these objects from a backup or an earlier version of it, and "
            "run the same command again.",
            path=bucket.url, reason="no part of its list of shards is intact",
        )  # fmt: skip
    # Whoever has created a shard before cannot list it any more: which may be gone is unknown.
    collected = server_time(bucket, claims_folder(name))[0]
    for number in (newest + 1, newest + 2):
        before = b""  # of a damaged one, whose digest nobody compares
        with contextlib.suppress(TooLarge):
            before = bucket.read(change_key(name, number - 1), MAX_BYTES) or b""
        change = Manifest(found.spec, found.width, number, {}, found.metadata)
        data = encode_fields(
            change, previous=hashlib.sha256(before).hexdigest(), removed=[], collected=collected
        )
        snapshot = replace(change, shards=found.shards)
        digest = hashlib.sha256(data).hexdigest()
        if not bucket.create(change_key(name, number), data) or not bucket.create(
            snapshot_key(name, number),
            encode_fields(snapshot, change=digest, collected=collected),
        ):
            raise StoreError(
                f"The list of shards of {bucket.url}/{store_prefix(name)} was changed by another "
                "process during the repair. Run the same command again.",
                path=bucket.url,
            )


def _newest_number(bucket: Bucket, name: str) -> int:
    """Return the largest number of a change or a snapshot, after which the list is written."""
    changes, snapshots = listed_numbers(bucket, name)
    newest = max([*changes, *snapshots], default=0)
    while bucket.state(change_key(name, newest + 1)) is not None:
        newest += 1
    if newest + 2 > MAX_NUMBER:
        raise StoreError(
            f"The list of shards of {bucket.url}/{store_prefix(name)} has a change or a snapshot "
            f"of the number {newest}, after which no other can be written. featcache did not write "
            "it. Remove that object and run the same command again.",
            path=bucket.url,
        )
    return newest


def _collected_list(bucket: Bucket, name: str, mirror: Path) -> Manifest | None:
    """Return the list that intact changes, snapshots and shards give; None without any."""
    changes, snapshots = listed_numbers(bucket, name)
    log = list(_intact(bucket, name, mirror, changes, change_key))
    digests = {change.generation: fields["sha256"] for change, fields in log}
    # One without its change, or of another, was not written by featcache.
    snapshots = [n for n in snapshots if bucket.state(change_key(name, n)) is not None]
    intact = [
        snapshot
        for snapshot, fields in _intact(bucket, name, mirror, snapshots, snapshot_key)
        if fields.get("change") == digests.get(snapshot.generation, fields.get("change"))
    ]
    base = intact[-1] if intact else None
    shards = {} if base is None else dict(base.shards)
    removed: set[str] = set()
    for change, fields in log:
        base = base or change
        gone = set(fields["removed"])
        removed |= gone
        if change.generation > base.generation or base is change:
            shards |= change.shards
    if base is None:
        return None
    shards |= _unlisted(bucket, name, base, shards.keys() | removed)
    return replace(base, shards={n: rows for n, rows in shards.items() if n not in removed})


def _intact(
    bucket: Bucket, name: str, mirror: Path, numbers: list[int], key: Any
) -> Iterator[tuple[Manifest, dict[str, Any]]]:
    reading = LogReading(bucket, name, mirror, 0)
    for number in numbers:
        with contextlib.suppress(StoreCorrupt):
            data = reading.fetch(key(name, number))
            if data is not None:
                manifest, fields = reading.parse(key(name, number), data, number)
                with reading.checking(key(name, number)):
                    fields["removed"] = [str(shard) for shard in fields.get("removed", ())]
                yield manifest, {**fields, "sha256": hashlib.sha256(data).hexdigest()}


def _unlisted(bucket: Bucket, name: str, base: Manifest, known: set[str]) -> dict[str, int]:
    """Return the other shards that are there, with an intact sidecar of the same spec and width."""
    states = bucket.states(store_prefix(name))
    found: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for shard in states:
            if (
                rows_in_name(shard) is None
                or shard in known
                or shard + METADATA_SUFFIX not in states
            ):
                continue
            path = Path(folder) / shard
            key = f"{store_prefix(name)}/{shard}{METADATA_SUFFIX}"
            with contextlib.suppress(StoreCorrupt, StoreMismatch, TooLarge):
                metadata_path(path).write_bytes(bucket.read(key, largest_sidecar(shard)) or b"")
                metadata = read_metadata(path)
                if metadata is not None:
                    check_metadata(metadata[0], shard, base.spec.components(), base.width)
                    found[shard] = len(metadata[0].views)
    return found
