"""Maintenance of a store: verification, repair, and merging of small shards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .._io.logs import get_logger
from .._io.system_errors import system_errors
from .._io.wording import format_count
from ..errors import LeaseLost, StoreError
from ..hdf5.shard_metadata import metadata_path
from ..hdf5.shard_name import Damage, rows_in_name
from .index_build import remove_index, update_index
from .index_file import NAME as INDEX_NAME
from .lease import NAME as LEASE_NAME
from .lease import Lease, lease
from .manifest import NAME as MANIFEST_NAME
from .manifest import Manifest
from .merging import (
    MANY_SMALL_SHARDS,
    MERGED_SHARD_BYTES,
    SMALL_SHARD_BYTES,
    group_shards,
    merge_rows,
    rows_per_group,
)
from .own_files import is_own
from .salvage import row_keys, salvage
from .set_aside import move_orphaned_sidecars, set_aside
from .store import Store
from .survey import Survey, survey

log = get_logger(__name__)

_LEASE_WAIT = 30.0  # a merge takes seconds


def verify(folder: str | Path) -> list[Damage]:
    """Find damaged files of a store: shards, sidecars, manifest and quarantine lists.

    Reads and hashes every byte; changes nothing. Other processes may write to the store and
    merge its shards at the same time.

    Parameters
    ----------
    folder : path-like
        The folder of the store.

    Returns
    -------
    list of Damage
        Empty if every byte is as it was committed. Rows of a damaged shard that are provably
        intact, or that other shards contain as well, do not count as lost: `repair` saves them.

    Raises
    ------
    StoreError
        If the folder is not a store or cannot be read.
    """
    with system_errors(Path(folder)):
        return survey(Path(folder), {}).damages


def repair(folder: str | Path) -> list[Damage]:
    """Save the intact rows of damaged shards, set damaged files aside, rewrite the manifest.

    The rows of a damaged shard whose digests match are committed again first. Then the shard and
    its sidecar are renamed to ``damaged-<name>.bad``; they are never deleted. Files that a store
    does not write are left alone. An interrupted repair is completed by the next one. The next
    extraction computes only the lost rows.

    Parameters
    ----------
    folder : path-like
        The folder of the store.

    Returns
    -------
    list of Damage
        The damage that was found and repaired, with the rows that are lost.

    Raises
    ------
    StoreError
        If the folder is not a store, or another process is merging or repairing it for longer than
        30 seconds.
    StoreFormatError
        If a newer version wrote the store. Nothing is changed.
    StoreWriteError
        If the system refuses a write. No file has been set aside then.
    """
    folder = Path(folder)
    with system_errors(folder):
        found = survey(folder)
        if not found.damages:
            move_orphaned_sidecars(folder)  # left by a repair interrupted between two renames
            return []
        if found.newer is not None:
            raise found.newer
        with lease(folder, wait=_LEASE_WAIT) as held:
            if not held:
                raise StoreError(
                    f"{folder} cannot be repaired now: another process is merging or repairing it, "
                    f"or {LEASE_NAME} cannot be written there. Nothing was changed; run the same "
                    "command again later.",
                    path=folder,
                )
            found = survey(folder, found.findings)  # another process may have repaired it
            _repair(folder, found, held)
    return [damage for damage in found.damages if is_own(damage.name)]


def _repair(folder: Path, found: Survey, held: Lease) -> None:
    """Commit the intact rows, list them in the manifest, and only then set files aside."""
    damaged = {damage.name for damage in found.damages if is_own(damage.name)}
    if INDEX_NAME in damaged:
        held.check()
        remove_index(folder)  # first: it must not be used below, and has nothing to save
        damaged.discard(INDEX_NAME)
    if found.manifest is not None and damaged:
        _commit_saved_rows(folder, found, found.manifest)
    elif MANIFEST_NAME in damaged:
        held.check()
        # Without a shard the spec is unknown and no manifest can be written.
        set_aside(folder / MANIFEST_NAME)
    held.check()
    for name in sorted(damaged - {MANIFEST_NAME}):
        set_aside(folder / name)
    if damaged:
        move_orphaned_sidecars(folder)


def _commit_saved_rows(folder: Path, found: Survey, manifest: Manifest) -> None:
    valid = found.valid_shards()
    damaged = {damage.name for damage in found.damages if is_own(damage.name)}
    if MANIFEST_NAME in damaged:
        shards = {name: len(metadata.views) for name, metadata in valid.items()}
        replace(manifest, shards=shards).write(folder)
    for name in damaged & {metadata_path(folder / name).name for name in valid}:
        set_aside(folder / name)  # it is recreated from its shard
    store = Store(folder)
    stored = {
        key for metadata in valid.values() for key in row_keys(metadata.image_ids, metadata.views)
    }
    for name in sorted(name for name in damaged if rows_in_name(name) and (folder / name).exists()):
        saved = salvage(folder / name, store.spec.components(), store.width)
        if saved is not None and (new := saved.new(stored)).any():
            ids, views = saved.ids[new], saved.views[new]
            store.append_packed(saved.rows[new], ids, views, {"salvaged": "1"})
            stored |= set(row_keys(ids, views))
    store.write_manifest_under_lease(without=damaged)
    store.close()


def compact(
    store: Store,
    *,
    small: int = SMALL_SHARD_BYTES,
    merged: int = MERGED_SHARD_BYTES,
    many: int = MANY_SMALL_SHARDS,
) -> int:
    """Merge small shards into larger ones if there are many, and write the index file if it pays.

    A merged shard is durable before its parts are removed, and readers that miss a part list
    the store again. Only one process merges at a time; extraction by others continues.

    Parameters
    ----------
    store : Store
    small : int
        Shards of fewer bytes are merged.
    merged : int
        Maximum number of bytes of a merged shard.
    many : int
        Minimum number of small shards; with fewer, nothing is merged.

    Returns
    -------
    int
        Number of shards that were merged.
    """
    found = _compact(store, small, merged, many)
    update_index(store)
    return found


def _compact(store: Store, small: int, merged: int, many: int) -> int:
    with system_errors(store.folder):
        if len(_small_shards(store, small)) < many:
            return 0
        with lease(store.folder) as held:
            if not held:
                return 0
            try:
                return _compact_under_lease(store, small, merged, held)
            except LeaseLost as error:
                log.warning("%s", error)  # rows may be stored twice now, which is harmless
                store.write_manifest()  # the list of shards may be out of date
                return 0


def _compact_under_lease(store: Store, small: int, merged: int, held: Lease) -> int:
    store.refresh()  # another process may have merged some before we had the lease
    names = _small_shards(store, small)
    per_group = rows_per_group(store, merged)
    replaced: list[str] = []
    for group in group_shards(names, per_group):
        replaced += _merge(store, group)
    # First the manifest, then the removal: a kill in between leaves duplicate rows, which are
    # harmless, and never a manifest that lists a missing shard.
    held.check()
    store.write_manifest_under_lease(without=replaced)
    remove_shards(store.folder, replaced, held)
    move_orphaned_sidecars(store.folder)
    store.refresh()
    log.info("%s: merged %s", store.folder.name, format_count(len(replaced), "small shard"))
    return len(replaced)


def remove_shards(folder: Path, names: Iterable[str], held: Lease) -> None:
    """Remove shards whose rows are in other shards or no longer needed.

    A shard that the system does not remove is left: duplicate rows are harmless, and the next
    merge tries again.

    Raises
    ------
    LeaseLost
        If the lease was taken over: its new holder may have repaired the store, so that a shard
        to remove may be the only copy by now. Checked before each shard.
    """
    for name in names:
        held.check()
        for path in (folder / name, metadata_path(folder / name)):
            try:
                path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("%s could not be removed: %s.", path, error.strerror or error)


def _small_shards(store: Store, small: int) -> list[str]:
    found = []
    for name in store.shard_names:
        with contextlib.suppress(FileNotFoundError):
            if (store.folder / name).stat().st_size < small:
                found.append(name)
    return found


def _merge(store: Store, names: list[str]) -> list[str]:
    """Commit the rows of several shards as one; return their names."""
    found = merge_rows(store, names)
    if found is None:
        return []
    store.append_packed(found.rows, found.ids, found.views, found.provenance)
    return found.names
