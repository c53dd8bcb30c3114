"""Removal of objects that a store in an object store does not need any more.

A shard that is not listed may be about to be listed, by the process that created it, or be read by
one that holds an earlier list. Therefore it stays for a time of grace, measured by the clock of the
server, from its creation and from the change that removed it. Before an object is removed, a change
says so: whoever would list a shard that is older begins again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from ..._io.wording import format_count
from ...errors import StoreCorrupt, StoreError
from ...hdf5.shard_metadata import METADATA_SUFFIX
from ...hdf5.shard_name import rows_in_name
from ..manifest import MAX_BYTES
from ..removal import LEASED, Kept, Removal, Removals
from .leases import BucketLease, bucket_lease, claims_folder, expired_claims, server_time
from .manifests import (
    BucketManifest,
    LogReading,
    change_key,
    change_shards,
    latest_manifest,
    listed_numbers,
    manifest_folder,
    snapshot_key,
    store_prefix,
)
from .objects import Bucket, ObjectState

GRACE_SECONDS = 86400.0
_UNLISTED = "shards that are not listed"
_EARLIER = "earlier lists of shards"
_MOST_UNLISTED = 1000  # changes that a listing leaves out; more are a gap that a repair has left
_BATCH = 50  # the list is read again, and the lease checked, after so many removals


def collect_objects(
    bucket: Bucket,
    name: str,
    mirror: Path,
    *,
    grace: float = GRACE_SECONDS,
    dry_run: bool = False,
) -> Removals:
    """Remove the objects that no list of shards needs, and old changes, snapshots and marks.

    Parameters
    ----------
    bucket : Bucket
    name : str
        Name of the store.
    mirror : Path
        Folder for the local copies of its files, of the store's name.
    grace : float
        Seconds for which objects stay that are not listed, or not listed any more.
    dry_run : bool
        Remove nothing.

    Returns
    -------
    Removals
        Their `rows` are 0, since no row that can be read is removed.
    """
    try:
        if dry_run:
            return _Collection(bucket, name, mirror, grace).find()
        with bucket_lease(bucket, name) as held:
            if not held:
                return Removals(kept=[Kept(name, LEASED)])
            return _Collection(bucket, name, mirror, grace).run(held)
    except StoreError as error:
        return Removals(kept=[Kept(name, str(error), failed=True)])


class _Collection:
    """What may be removed from a store, and its removal."""

    def __init__(self, bucket: Bucket, name: str, mirror: Path, grace: float) -> None:
        self._bucket, self._name, self._mirror = bucket, name, mirror
        self._cutoff = server_time(bucket, claims_folder(name))[0] - grace
        self._manifest = self._latest(None)

    def find(self) -> Removals:
        """Return what would be removed."""
        found = Removals()
        states = self._unlisted()
        self._record(found, list(states), states, _UNLISTED)
        log = self._old_log()
        self._record(found, list(log), log, _EARLIER)
        return found

    def run(self, held: BucketLease) -> Removals:
        """Remove what may be removed, under the lease of the store."""
        found = Removals()
        states, log, removed = self._unlisted(), dict[str, ObjectState](), list[str]()
        gone = list[str]()
        try:
            if states:
                self._announce()
            for key in self._checked(list(states), held):
                self._bucket.remove(key)
                removed.append(key)
            log = self._old_log()
            for key in log:
                held.check()
                self._bucket.remove(key)
                gone.append(key)
            for key in expired_claims(self._bucket, self._name):
                self._bucket.remove(key)
        except StoreError as error:
            found.kept.append(Kept(self._name, str(error), failed=True))
        self._record(found, removed, states, _UNLISTED)
        self._record(found, gone, log, _EARLIER)
        return found

    def _latest(self, known: BucketManifest | None) -> BucketManifest:
        found = latest_manifest(self._bucket, self._name, self._mirror, known)
        if found is None:
            raise StoreError(f"{self._bucket.url} has no store {self._name}.", path=self._name)
        return found

    def _unlisted(self) -> dict[str, ObjectState]:
        """Return the objects of shards that no list needs, by key; a sidecar after its shard."""
        states = self._bucket.states(store_prefix(self._name))
        recent = self._recently_removed()
        found = {}
        for one, state in sorted(states.items()):
            shard = one.removesuffix(METADATA_SUFFIX)
            needed = shard in self._manifest.shards or shard in recent
            if rows_in_name(shard) is not None and not needed and state.modified < self._cutoff:
                found[f"{store_prefix(self._name)}/{one}"] = state
        return found

    def _recently_removed(self) -> set[str]:
        """Return the shards that changes within the time of grace removed from the list.

        Changes that the listing does not show count as recent: it may lag behind.
        """
        states = self._bucket.states(manifest_folder(self._name))
        changes = [number for number in listed_numbers(self._bucket, self._name)[0] if number > 1]
        found: set[str] = set()
        for number in _possible_numbers(changes, self._manifest.generation):
            key = change_key(self._name, number)
            state = states.get(key.rpartition("/")[2])
            if state is not None and state.modified < self._cutoff:
                continue
            data, reading = self._bucket.read(key, MAX_BYTES), self._reading(0)
            if data is not None:
                # Without the shards of a damaged one, readers of an earlier list read it again.
                with contextlib.suppress(StoreCorrupt), reading.checking(key):
                    found |= set(reading.parse(key, data, number)[1]["removed"])
        return found

    def _reading(self, snapshot: int) -> LogReading:
        return LogReading(self._bucket, self._name, self._mirror, snapshot)

    def _announce(self) -> None:
        """Make a change after which no older object is listed, before any is removed."""
        self._manifest = change_shards(
            self._bucket, self._name, self._mirror, self._manifest,
            known=self._manifest, collected=self._cutoff,
        )  # fmt: skip

    def _checked(self, keys: Collection[str], held: BucketLease) -> Iterator[str]:
        """Yield the keys of objects that are still not listed, while the lease is held."""
        for number, key in enumerate(keys):
            if number % _BATCH == 0:
                held.check()
                self._manifest = self._latest(self._manifest)
            shard = key.rpartition("/")[2].removesuffix(METADATA_SUFFIX)
            if shard not in self._manifest.shards:
                yield key

    def _old_log(self) -> dict[str, ObjectState]:
        """Return the old snapshots, then the changes before the newest two, by key.

        Raises
        ------
        StoreCorrupt
            If the two snapshots that stay do not give the present list.
        """
        states = self._bucket.states(manifest_folder(self._name))
        changes, snapshots = listed_numbers(self._bucket, self._name)
        if len(snapshots) < 2:
            return {}
        older = snapshots[-2]
        old = [snapshot_key(self._name, number) for number in snapshots[:-2]]
        old += [change_key(self._name, n) for n in changes if 1 < n < older]
        prefix = f"{manifest_folder(self._name)}/"
        found = {}
        for key in old:
            state = states.get(key.removeprefix(prefix))
            if state is None or state.modified >= self._cutoff:
                break  # in the order of their numbers, so that no later one is removed before it
            found[key] = state
        if found:
            self._check_snapshots(snapshots[-2:])
        return found

    def _check_snapshots(self, numbers: Collection[int]) -> None:
        for number in numbers:
            now = self._latest(self._manifest)
            found = self._reading(number).read(now.generation, None)
            if found is None or (found.generation, found.shards) != (now.generation, now.shards):
                raise StoreCorrupt(
                    f"{self._bucket.url}/{snapshot_key(self._name, number)} does not give the "
                    "present list of shards. No change was removed; run the same command again, "
                    "and `featcache verify` if this does not pass.",
                    path=self._bucket.url, reason="it does not give the present list",
                )  # fmt: skip

    def _record(
        self, found: Removals, keys: Collection[str], states: dict[str, ObjectState], what: str
    ) -> None:
        if keys:
            size = sum(states[key].size for key in keys)
            reason = f"{format_count(len(keys), 'object')} of {what}"
            found.append(Removal(self._name, 0, size, reason))


def _possible_numbers(changes: Collection[int], newest: int) -> Iterator[int]:
    """Yield the numbers of the listed changes, sorted, and of those between that may be there."""
    start = min(changes, default=2)
    for number in sorted({*changes, newest}):
        yield from range(max(start, number - _MOST_UNLISTED), number + 1)
        start = number + 1
