"""The manifest of a store in an object store: a log of changes of its list of shards.

Each generation is one object, a *change*: the shards that it adds and removes. A change is created
only if there is none of its number, so that of two writers who extend the same generation, the
second sees that and begins again. Each names the SHA-256 of the one before it. A *snapshot* is the
whole list after a change, so that readers begin there, and not at the first change.

The listing of a server may lag behind: readers ask for further changes until there is none. All
objects are untrusted: a damaged or missing one is an error, and never a shorter list.

Garbage collection may remove snapshots but the newest two, and the changes before that of the older
one of these, all being older than any delay of a listing. The first change stays, so that a store
that exists is never begun again; the others are removed in the order of their numbers, so that a
writer that was suspended finds that the change before its own is gone.

Before objects of shards are removed, a change says which are too old to be listed any more. From
then on a writer that was suspended cannot list a shard whose object may be gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...backbones.spec import BackboneSpec
from ...errors import StoreCorrupt, StoreError, StoreMismatch, StoreWriteError
from ..manifest import MAX_BYTES, NAME, Manifest, parse_manifest
from .fields import digest_in, encode_fields, time_in
from .log_names import kind_and_number
from .objects import Bucket, TooLarge, check_not_collected

_ATTEMPTS = 50
_LISTINGS = 3
_MAX_WAIT = 2.0
# A reader that begins at a snapshot reads about this many changes after it.
SNAPSHOT_EVERY = 64


@dataclass(frozen=True)
class BucketManifest(Manifest):
    """The list of shards after a change, its `generation`.

    Attributes
    ----------
    digest : str
        SHA-256 of the change, which the next one names.
    snapshot : int
        Number of the newest snapshot when it was read; 0 without one.
    collected : float
        Shards that are not listed, and whose objects are older than this time of the server, may
        have been removed.
    """

    digest: str = ""
    snapshot: int = 0
    collected: float = 0.0


class ShardsChanged(StoreError):
    """Shards to remove from the list are not listed any more: another process replaced them."""


def store_prefix(name: str) -> str:
    """Return the common beginning of the names of a store's objects."""
    return f"stores/{name}"


def manifest_folder(name: str) -> str:
    """Return the folder of the changes and snapshots of a store."""
    return f"{store_prefix(name)}/manifest"


def change_key(name: str, number: int) -> str:
    """Return the name of the object of a change of a store."""
    return f"{manifest_folder(name)}/change-{number:010d}.json"


def snapshot_key(name: str, number: int) -> str:
    """Return the name of the object of a snapshot, the list of shards after a change."""
    return f"{manifest_folder(name)}/snapshot-{number:010d}.json"


def listed_numbers(bucket: Bucket, name: str) -> tuple[list[int], list[int]]:
    """Return the numbers of the changes and of the snapshots that the server lists, sorted.

    The newest may be missing.
    """
    found = [kind_and_number(one) for one in bucket.objects(manifest_folder(name))]
    changes, snapshots = (
        sorted(one[1] for one in found if one is not None and one[0] == wanted)
        for wanted in ("change", "snapshot")
    )
    return changes, snapshots


def latest_manifest(
    bucket: Bucket, name: str, mirror: Path, known: BucketManifest | None = None
) -> BucketManifest | None:
    """Return the list of shards after the newest change of a store; None if it has none.

    Parameters
    ----------
    bucket : Bucket
    name : str
        Name of the store.
    mirror : Path
        Folder for the local copies of its files, of the store's name.
    known : BucketManifest, optional
        An earlier answer: only the changes after it are read.

    Raises
    ------
    StoreCorrupt, StoreFormatError
        If a change or a snapshot is damaged or missing, or a newer version wrote it.
    StoreError
        If it cannot be read.
    """
    error: StoreCorrupt | None = None
    for _ in range(_LISTINGS):
        changes, snapshots = listed_numbers(bucket, name)
        reading = LogReading(bucket, name, mirror, max(snapshots, default=0))
        try:
            return reading.read(max(changes, default=0), known)
        except StoreCorrupt as found:
            # The known list may be that of a change that was removed by hand, and the snapshot
            # may have been removed because there are newer ones.
            error, known = found, None
    assert error is not None
    raise error


class LogReading:
    """One attempt to read the log of a store.

    Parameters
    ----------
    bucket, name, mirror
        As for `latest_manifest`.
    snapshot : int
        Number of the newest snapshot; 0 without one.
    """

    def __init__(self, bucket: Bucket, name: str, mirror: Path, snapshot: int) -> None:
        self._bucket, self._name, self._path = bucket, name, mirror / NAME
        self._snapshot = snapshot

    def read(self, listed: int, known: BucketManifest | None) -> BucketManifest | None:
        """Return the newest list; `listed` is the number of the newest change that is listed."""
        state = known if known is not None and self._is_there(known) else self._begin()
        shards = {} if state is None else dict(state.shards)
        while True:
            number = 1 if state is None else state.generation + 1
            data = self.fetch(change_key(self._name, number))
            if data is None:
                break
            state = self._apply(state, shards, number, data)
        if number <= listed:
            raise self._corrupt(
                change_key(self._name, number), f"it is missing, but change {listed} is there"
            )
        return state and replace(state, shards=shards, snapshot=self._snapshot)

    def fetch(self, key: str) -> bytes | None:
        """Return the bytes of a change or a snapshot; None if there is none."""
        try:
            return self._bucket.read(key, MAX_BYTES)
        except TooLarge as error:
            raise self._corrupt(key, "it is larger than it may be") from error

    def _is_there(self, known: BucketManifest) -> bool:
        """Return whether the change of a known list is still what it was."""
        data = self.fetch(change_key(self._name, known.generation))
        return data is not None and hashlib.sha256(data).hexdigest() == known.digest

    def _begin(self) -> BucketManifest | None:
        """Return the list of the newest snapshot; None without one."""
        if not self._snapshot:
            return None
        key = snapshot_key(self._name, self._snapshot)
        data = self.fetch(key)
        if data is None:
            raise self._corrupt(key, "it is listed, but missing")
        manifest, more = self.parse(key, data, self._snapshot)
        with self.checking(key):
            found = _with_digest(manifest, digest_in(more["change"]))
            found = replace(found, collected=time_in(more["collected"]))
        if not self._is_there(found):  # else one that is made up would hide the list before it
            raise self._corrupt(key, "its change is missing, or was replaced")
        return found

    def _apply(
        self, state: BucketManifest | None, shards: dict[str, int], number: int, data: bytes
    ) -> BucketManifest:
        """Return the list after a change, without its shards: those are updated in place."""
        key = change_key(self._name, number)
        change, more = self.parse(key, data, number)
        with self.checking(key):
            if state is not None and (change.spec, change.width) != (state.spec, state.width):
                raise ValueError("it is of another spec or width than the one before it")
            if more["previous"] != ("" if state is None else state.digest):
                raise ValueError("it does not follow the one before it, which was replaced")
            removed = [str(shard) for shard in more["removed"]]
            if not shards.keys() >= set(removed):
                raise ValueError("it removes a shard that is not listed")
            # Not the largest so far: writers carry it on, and a repair sets a wrong one back.
            collected = time_in(more["collected"])
        for shard in removed:
            del shards[shard]
        shards.update(change.shards)
        digest = hashlib.sha256(data).hexdigest()
        base = _with_digest(change, digest) if state is None else state
        return replace(base, generation=number, digest=digest, shards={}, collected=collected)

    def parse(self, key: str, data: bytes, number: int) -> tuple[Manifest, dict[str, Any]]:
        """Check the bytes of a change or a snapshot; return its fields, and further ones."""
        try:
            manifest = parse_manifest(self._path, data)
        except StoreCorrupt as error:
            raise self._corrupt(key, str(error.reason)) from error
        if manifest.generation != number:
            raise self._corrupt(key, f"it is number {manifest.generation}")
        return manifest, json.loads(data)

    @contextlib.contextmanager
    def checking(self, key: str) -> Any:
        """Context manager that turns an error of a field into one of the object."""
        try:
            yield
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise self._corrupt(key, f"a field is wrong ({error})") from error

    def _corrupt(self, key: str, reason: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self._bucket.url}/{key} cannot be used: {reason}. Run the same command again, in "
            f"case the answer was cut off. If it is damaged there, `featcache repair {self._name} "
            f"--cache-dir {self._bucket.url}` makes the list again.",
            path=self._bucket.url, reason=reason,
        )  # fmt: skip


def change_shards(
    bucket: Bucket,
    name: str,
    mirror: Path,
    first: Manifest,
    *,
    add: Mapping[str, int] | None = None,
    remove: Collection[str] = (),
    known: BucketManifest | None = None,
    collected: float = 0.0,
    since: float = 0.0,
) -> BucketManifest:
    """Add shards to the list of a store and remove others from it, in one change.

    Parameters
    ----------
    bucket, name, mirror
        As for `latest_manifest`.
    first : Manifest
        Spec and width of the store, and its description if there is no change yet.
    add : mapping of str to int, optional
        Numbers of rows by name, of shards whose objects exist. Each has a name of its own, of no
        earlier object.
    remove : collection of str
        Names. Their objects stay for those who read an earlier list.
    known : BucketManifest, optional
        An earlier answer, as for `latest_manifest`.
    collected : float
        Time of the server: of older objects, those of shards that are not listed are about to be
        removed, and no change may list them from now on.
    since : float
        The `collected` of a list that was read before the objects of `add` were created: they are
        looked for only if others were removed since.

    Returns
    -------
    BucketManifest
        From now on, readers find the rows of `add`. Without a change to make, the present list;
        a store without one gets its first.

    Raises
    ------
    StoreMismatch
        If the store has another spec or width.
    ShardsChanged
        If a shard to remove is not listed: another process has replaced it. Nothing was changed.
    StoreError
        If other writers were first in every attempt.
    StoreWriteError
        If the server refuses, or the objects of `add` may have been removed, since this process
        was suspended after it created them.
    """
    add, remove = dict(add or {}), frozenset(remove)
    for attempt in range(_ATTEMPTS):
        known = latest_manifest(bucket, name, mirror, known)
        check_same(known, first.spec, first.width, bucket)
        shards = {} if known is None else known.shards
        done = add.items() <= shards.items() and remove.isdisjoint(shards)
        if known is not None and done and collected <= known.collected:
            return known  # also if the answer to our own request was lost
        if gone := remove - shards.keys():
            raise ShardsChanged(
                f"{len(gone)} of the {len(remove)} shards to remove from the list of {name} in "
                f"{bucket.url} are not listed any more. Begin again with the present list.",
                path=bucket.url,
            )
        if known is not None and known.collected > since:
            new = add.keys() - shards.keys()
            check_not_collected(bucket, store_prefix(name), new, known.collected)
        changed = _create_change(bucket, name, first, known, add, remove, collected)
        if changed is not None:
            return changed
        # Writers that were refused together would be refused together again.
        time.sleep(random.uniform(0, min(_MAX_WAIT, 0.01 * 2**attempt)))
    raise StoreError(
        f"{bucket.url} was changed by other writers during each of {_ATTEMPTS} attempts to change "
        "the list of shards. Run the same command again.",
        path=bucket.url,
    )


def _create_change(
    bucket: Bucket,
    name: str,
    first: Manifest,
    known: BucketManifest | None,
    add: Mapping[str, int],
    remove: Collection[str],
    collected: float,
) -> BucketManifest | None:
    """Create the change after a list; return the new list, None if there is one of its number."""
    base = known or _with_digest(replace(first, generation=0, shards={}), "")
    number = base.generation + 1
    new = {shard: rows for shard, rows in add.items() if shard not in base.shards}
    change = Manifest(base.spec, base.width, number, new, base.metadata)
    collected = max(collected, base.collected)
    data = encode_fields(change, previous=base.digest, removed=sorted(remove), collected=collected)
    if not bucket.create(change_key(name, number), data) or not _follows(bucket, name, base):
        return None
    kept = {shard: rows for shard, rows in base.shards.items() if shard not in remove}
    digest = hashlib.sha256(data).hexdigest()
    result = replace(
        base, generation=number, shards={**kept, **new}, digest=digest, collected=collected
    )
    if number - base.snapshot >= SNAPSHOT_EVERY:
        with contextlib.suppress(StoreWriteError):  # the change is made; the next one tries again
            bucket.create(
                snapshot_key(name, number),
                encode_fields(result, change=digest, collected=collected),
            )
    return result


def _follows(bucket: Bucket, name: str, base: BucketManifest) -> bool:
    """Return whether readers find a change that was just created after a list.

    If this process was suspended, the number may be that of a change which was removed since. Then
    those before it were removed as well, except the first.
    """
    if base.generation <= 1:
        return max(listed_numbers(bucket, name)[1], default=0) <= base.generation + 1
    before = bucket.read(change_key(name, base.generation), MAX_BYTES) or b""
    return hashlib.sha256(before).hexdigest() == base.digest


def check_same(manifest: Manifest | None, spec: BackboneSpec, width: int, bucket: Bucket) -> None:
    """Raise `StoreMismatch` unless a manifest is of a spec and a width."""
    if manifest is not None and (manifest.spec != spec or manifest.width != width):
        raise StoreMismatch(
            f"The store {spec.folder} in {bucket.url} holds rows of another spec or width "
            f"(key {manifest.spec.key[:16]}, width {manifest.width}) than those here (key "
            f"{spec.key[:16]}, width {width}).",
            path=bucket.url,
            stored=manifest.spec,
            requested=spec,
        )


def _with_digest(manifest: Manifest, digest: str) -> BucketManifest:
    return BucketManifest(
        manifest.spec, manifest.width, manifest.generation, manifest.shards, manifest.metadata,
        digest,
    )  # fmt: skip
