"""Verification and repair of a store in an object store: every object is read and checked."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..._io.atomic import make_folder, remove_stale, temporary_path
from ...errors import StoreCorrupt, StoreError
from ...hdf5.row_dtype import Rows
from ...hdf5.shard_file import encode_shard
from ...hdf5.shard_metadata import (
    ShardMetadata,
    largest_shard,
    largest_sidecar,
    metadata_path,
)
from ...hdf5.shard_name import Damage, rows_in_name
from ..row_index import IdArray, unpack_ids
from ..salvage import row_keys, salvage
from ..shard_reader import ShardReader
from ..survey import ShardFindings, add_lost_rows, inspect_with_sidecar
from .leases import bucket_lease
from .log_names import foreign_names
from .log_repair import rebuild_list
from .manifests import (
    BucketManifest,
    LogReading,
    ShardsChanged,
    change_key,
    change_shards,
    latest_manifest,
    listed_numbers,
    manifest_folder,
    snapshot_key,
    store_prefix,
)
from .objects import Bucket, TooLarge
from .shard_writer import ShardWriter

_READS = 3  # an answer may have been cut off
_LEASE_WAIT = 30.0
_CLOCK_SKEW = 3600.0  # in seconds, between the machines of a server


def verify_bucket(bucket: Bucket, name: str, mirror: Path) -> list[Damage]:
    """Find damaged objects of a store: changes and snapshots of its list, shards and sidecars.

    Reads every object that a reader may use; changes nothing. Others may use the store at the
    same time.

    Parameters
    ----------
    bucket : Bucket
    name : str
        Name of the store.
    mirror : Path
        Folder for the local copies of its files, of the store's name.

    Returns
    -------
    list of Damage
        Empty if every object is as it was created. Rows of a damaged shard that are provably
        intact, or that other shards contain as well, do not count as lost: `repair_bucket` saves
        them.

    Raises
    ------
    StoreError
        If there is no such store, or it cannot be read.
    """
    damages = _log_damages(bucket, name, mirror)
    if damages:
        return damages  # the shards are unknown
    foreign = foreign_names(bucket.objects(manifest_folder(name)))
    reason = "it is not used: featcache gives no such number. Remove it"
    with _surveyed(bucket, name, mirror) as found:
        return [*(Damage(one, 0, reason) for one in foreign), *found.damages()]


def repair_bucket(bucket: Bucket, name: str, mirror: Path) -> list[Damage]:
    """Save the intact rows of damaged shards, and remove these from the list of shards.

    The rows of a damaged shard whose digests match are written to a new one. A copy of the damaged
    shard stays, named ``damaged-<name>.bad``. The next extraction computes only the lost rows.

    If the list itself is damaged, it is made again from what is intact of it, and from all shards
    that are there: rows that a damaged change has removed may be back.

    Parameters
    ----------
    bucket, name, mirror
        As for `verify_bucket`.

    Returns
    -------
    list of Damage
        The damage that was found and repaired, with the rows that are lost.

    Raises
    ------
    StoreCorrupt
        If no change and no snapshot of the list is intact.
    StoreError
        If another process merges, removes or repairs its shards, or the server cannot be reached.
    StoreWriteError
        If the server refuses.
    """
    with bucket_lease(bucket, name, wait=_LEASE_WAIT) as held:
        if not held:
            raise StoreError(
                f"{bucket.url}/{store_prefix(name)} cannot be repaired now: another process is "
                "merging, removing or repairing its shards. Nothing was changed; run the same "
                "command again later.",
                path=bucket.url,
            )
        log = _log_damages(bucket, name, mirror)
        if log:
            held.check()
            rebuild_list(bucket, name, mirror)
        with _surveyed(bucket, name, mirror) as found:
            damages = [*log, *found.damages()]
            held.check()
            try:
                found.repair()
            except ShardsChanged as error:
                raise StoreError(
                    f"The shards of {bucket.url}/{store_prefix(name)} were changed by another "
                    "process during the repair. Run the same command again.",
                    path=bucket.url,
                ) from error
        return damages


def _log_damages(bucket: Bucket, name: str, mirror: Path) -> list[Damage]:
    """Return the damage of the changes and snapshots that are needed, and of the list they give.

    Readers begin at one of the newest two snapshots; what is before them, `gc` removes.
    """
    changes, snapshots = listed_numbers(bucket, name)
    reading = LogReading(bucket, name, mirror, 0)
    first = snapshots[-2] if len(snapshots) > 1 else 0
    keys = [(change_key(name, number), number) for number in changes if number >= first]
    keys += [(snapshot_key(name, number), number) for number in snapshots[-2:]]
    found = []
    for key, number in keys:
        for left in reversed(range(_READS)):
            try:
                data = reading.fetch(key)
                if data is not None:  # else `gc` has removed it since it was listed
                    reading.parse(key, data, number)
                break
            except StoreCorrupt as error:
                if not left:
                    found.append(Damage(key.rpartition("/")[2], 0, str(error.reason)))
    if not found:
        try:
            found += _time_damages(bucket, name, latest_manifest(bucket, name, mirror))
        except StoreCorrupt as error:
            found.append(Damage("manifest", 0, str(error.reason)))
    return found


def _time_damages(bucket: Bucket, name: str, manifest: BucketManifest | None) -> list[Damage]:
    """Return the damage of a list whose `collected` is later than its newest change.

    No shard could be added to it. The time of the change is one of the server, and asking for it
    creates no object, as asking for the present time would.
    """
    if manifest is None:
        return []
    key = change_key(name, manifest.generation)
    state = bucket.state(key)
    if state is None or manifest.collected <= state.modified + _CLOCK_SKEW:
        return []
    reason = "its time of the last removal is in the future, so that no shard can be added"
    return [Damage(key.rpartition("/")[2], 0, reason)]


@contextlib.contextmanager
def _surveyed(bucket: Bucket, name: str, mirror: Path) -> Iterator[_BucketSurvey]:
    make_folder(mirror.parent, private=True)
    remove_stale(mirror.parent)  # what killed processes left
    folder = temporary_path(mirror.parent)
    folder.mkdir(mode=0o700)
    try:
        yield _BucketSurvey(bucket, name, mirror, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _BucketSurvey:
    """Every listed shard, read and checked; damaged ones stay in a folder for their repair.

    Parameters
    ----------
    bucket, name, mirror
        As for `verify_bucket`.
    folder : Path
    """

    def __init__(self, bucket: Bucket, name: str, mirror: Path, folder: Path) -> None:
        self._bucket, self._name, self._mirror, self._folder = bucket, name, mirror, folder
        self._manifest = self._latest()
        self._stored: set[bytes] = set()
        checked = {shard: self._check(shard) for shard in sorted(self._manifest.shards)}
        listed = self._latest().shards  # a shard that is missing may have been merged
        self._findings = {shard: found for shard, found in checked.items() if shard in listed}

    def damages(self) -> list[Damage]:
        """Return the damage of shards, with the lost rows, and of sidecars."""
        found = []
        for shard, finding in self._findings.items():
            if finding.damage is not None:
                path = self._folder / shard
                found.append(
                    add_lost_rows(path, finding.damage, self._manifest, self._stored)
                    if path.exists() and not finding.damage.ids else finding.damage
                )  # fmt: skip
            if finding.sidecar is not None:
                found.append(finding.sidecar)
        return found

    def repair(self) -> None:
        """Replace damaged shards by those of their intact rows, in one change of the list."""
        damaged = [s for s, found in self._findings.items() if found.damage or found.sidecar]
        writer = ShardWriter(self._bucket, self._name)
        added: dict[str, int] = {}
        for shard in damaged:
            if self._findings[shard].damage is not None:
                self._set_aside(shard)
            saved = self._saved_rows(shard)
            if saved is not None:
                rows, ids, views = saved
                data, metadata = encode_shard(
                    rows, ids, views, self._manifest.spec.components(), {"salvaged": "1"}
                )
                added[writer.create(data, rows, metadata)] = len(rows)
                self._stored |= set(row_keys(ids, views))
        if damaged:
            change_shards(
                self._bucket, self._name, self._mirror, self._manifest,
                add=added, remove=damaged, known=self._manifest,
            )  # fmt: skip

    def _latest(self) -> BucketManifest:
        found = latest_manifest(self._bucket, self._name, self._mirror)
        if found is None:
            raise StoreError(
                f"{self._bucket.url} has no store {self._name}.", path=self._bucket.url
            )
        return found

    def _check(self, shard: str) -> ShardFindings:
        """Read a shard and its sidecar, again if they seem damaged; keep damaged ones."""
        for _ in range(_READS):
            found = self._read(shard)
            if found.damage is found.sidecar is None:
                break
        if found.metadata is not None:
            self._stored |= set(row_keys(found.metadata.image_ids, found.metadata.views))
        if found.damage is found.sidecar is None:
            for path in (self._folder / shard, metadata_path(self._folder / shard)):
                path.unlink()
        return found

    def _read(self, shard: str) -> ShardFindings:
        path, rows = self._folder / shard, rows_in_name(shard) or 0
        sidecar = metadata_path(path)
        data = self._read_sidecar(sidecar.name, largest_sidecar(shard))
        sidecar.write_bytes(data or b"")
        most = largest_shard(rows, self._manifest.spec.row_bytes(self._manifest.width))
        path.unlink(missing_ok=True)
        try:
            content = self._bucket.read(f"{store_prefix(self._name)}/{shard}", most)
        except TooLarge:
            return ShardFindings(None, Damage(shard, rows, "it is larger than it may be"), None)
        if content is None:
            return ShardFindings(None, Damage(shard, rows, "it is missing"), None)
        path.write_bytes(content)
        found = inspect_with_sidecar(path, self._manifest.spec)
        wrong = None if found.metadata is None else self._wrong_rows(shard, found.metadata)
        if wrong is not None:
            return ShardFindings(None, wrong, None)
        if data is None:
            reason = "it is missing, so that the rows of its shard are not found"
            return ShardFindings(found.metadata, found.damage, Damage(sidecar.name, 0, reason))
        return found

    def _read_sidecar(self, name: str, limit: int) -> bytes | None:
        with contextlib.suppress(TooLarge):
            return self._bucket.read(f"{store_prefix(self._name)}/{name}", limit)
        return b""

    def _wrong_rows(self, shard: str, metadata: ShardMetadata) -> Damage | None:
        """Return the damage of a shard whose bytes are intact, but not its rows."""
        if metadata.width != self._manifest.width:
            reason = f"its rows have width {metadata.width}, not {self._manifest.width}"
            return Damage(shard, len(metadata.views), reason)
        rows = ShardReader(self._folder).read_all(shard, metadata.layout, len(metadata.views))
        if (bad := ~np.isfinite(rows).all(axis=1)).any():
            ids = tuple(unpack_ids(metadata.image_ids[bad]))
            return Damage(shard, len(ids), "it has rows with values that are not finite", ids)
        return None

    def _set_aside(self, shard: str) -> None:
        """Keep a damaged shard and its sidecar under other names, which nothing removes."""
        for path in (self._folder / shard, metadata_path(self._folder / shard)):
            if path.exists():
                key = f"{store_prefix(self._name)}/damaged-{path.name}.bad"
                self._bucket.create(key, path.read_bytes())

    def _saved_rows(self, shard: str) -> tuple[Rows, IdArray, NDArray[np.int32]] | None:
        """Return rows, ids and views that are intact, and not in another shard if it is damaged."""
        path, metadata = self._folder / shard, self._findings[shard].metadata
        if metadata is not None:  # its sidecar is damaged
            rows = ShardReader(self._folder).read_all(shard, metadata.layout, len(metadata.views))
            return rows, metadata.image_ids, metadata.views
        if not path.exists():
            return None
        saved = salvage(path, self._manifest.spec.components(), self._manifest.width)
        if saved is None:
            return None
        new = saved.new(self._stored) & np.isfinite(saved.rows).all(axis=1)
        return (saved.rows[new], saved.ids[new], saved.views[new]) if new.any() else None
