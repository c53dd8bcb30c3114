"""Removal of rows from a store: the rows to keep are written to new shards first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from ..errors import FeatcacheError, LeaseLost, StoreError, StoreWriteError
from .index_build import renew_index
from .lease import Lease, is_in_use, lease
from .maintenance import remove_shards
from .manifest import NAME as MANIFEST_NAME
from .manifest import read_manifest
from .merging import bytes_per_row
from .removal import FULL, GONE, LEASED, USED, Kept, Removal, Removals, failed_removal
from .row_index import unpack_ids
from .store import Store


def remove_rows(path: Path, kept: Collection[str], *, dry_run: bool = False) -> Removals:
    """Remove all rows of a store except those of given ids.

    Parameters
    ----------
    path : Path
        Folder of the store.
    kept : collection of str
        Example ids of the rows to keep.
    dry_run : bool
        Change nothing.

    Returns
    -------
    Removals
        Empty if no row is removed; its `kept` says why rows could not be removed.
    """
    if path.is_symlink():
        return _not_removed(path, "it is a symbolic link; name the cache folder of its target")
    try:
        with contextlib.closing(Store(path, write_sidecars=not dry_run)) as store:
            unwanted = len(set(store.ids()).difference(kept))
            if not unwanted:
                return Removals()
            if dry_run:
                used = is_in_use(path, remove_abandoned=False)
                return _not_removed(path, USED) if used else make_removal(store, unwanted)
            return _remove_under_lease(store, kept, unwanted)
    except OSError as error:
        if not isinstance(error, FeatcacheError):
            return Removals(kept=[failed_removal(path, error)])
        return _not_removed(path, str(error), failed=True)
    except FeatcacheError as error:
        if not os.path.lexists(path / MANIFEST_NAME):
            return _not_removed(path, GONE)
        return _not_removed(path, str(error), failed=True)


def _not_removed(path: Path, reason: str, *, failed: bool = False) -> Removals:
    return Removals(kept=[Kept(path.name, reason, failed)])


def make_removal(store: Store, rows: int) -> Removals:
    """Return the record of removed rows, empty without any."""
    if not rows:
        return Removals()
    reason = "its images are not among those to keep"
    return Removals([Removal(store.folder.name, rows, rows * bytes_per_row(store), reason)])


def _remove_under_lease(store: Store, kept: Collection[str], unwanted: int) -> Removals:
    path = store.folder
    with lease(path) as held:
        if not held:
            if held.refused is not None:
                return Removals(kept=[failed_removal(path, held.refused)])
            return _not_removed(path, LEASED)
        # Under the lease: an extraction that begins now waits for it and lists the store again.
        if is_in_use(path):
            return _not_removed(path, USED)
        try:
            return _rewrite(store, kept, unwanted, held)
        except LeaseLost as error:
            lost = error
    store.write_manifest()  # the list of shards may be out of date
    return _not_removed(path, str(lost), failed=True)


def _rewrite(store: Store, kept: Collection[str], unwanted: int, held: Lease) -> Removals:
    """Write the kept rows to new shards, list these, and only then remove the old shards.

    If the disk is full, removing old shards step by step makes space for new ones.
    """
    store.refresh()
    emptied, mixed = _sort_shards(store, kept)
    error: StoreWriteError | None = None
    try:
        while emptied or mixed:
            written, error = _write_kept(store, mixed, kept)
            if not emptied and not written:
                break
            _list_and_remove(store, emptied, written, held)
            emptied, mixed = [], [name for name in mixed if name not in written]
    except StoreWriteError as failure:
        error = failure
    store.refresh()
    renew_index(store, held)
    left = len(set(store.ids()).difference(kept))
    found = make_removal(store, unwanted - left)
    if left or error is not None:
        found.kept += _not_removed(store.folder, _reason(store, left, error), failed=True).kept
    return found


def _reason(store: Store, rows: int, error: StoreWriteError | None) -> str:
    if error is not None:
        return f"{rows:,} of the rows to remove are left. {error}"
    return (
        f"{rows:,} of the rows to remove are left, in shards that are damaged or that the system "
        f"does not remove. Run `featcache verify {store.folder.name}`, then the same command again"
    )


def _sort_shards(store: Store, kept: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the shards without rows to keep, and those with some rows to keep."""
    emptied, mixed = [], []
    for name in store.shard_names:
        found = store.read_shard(name)
        if found is None:
            continue
        stays = [image_id in kept for image_id in unpack_ids(found[1].image_ids)]
        if not any(stays):
            emptied.append(name)
        elif not all(stays):
            mixed.append(name)
    return emptied, mixed


def _write_kept(
    store: Store, names: Iterable[str], kept: Collection[str]
) -> tuple[dict[str, str], StoreWriteError | None]:
    """Write the rows to keep to new shards.

    Returns
    -------
    (dict of str to str, StoreWriteError or None)
        The new shard for each old one, and the error that stopped it early.
    """
    written: dict[str, str] = {}
    for name in names:
        found = store.read_shard(name)
        if found is None:
            continue  # keep the whole shard: the disk may be failing
        rows, metadata = found
        stays = np.array([image_id in kept for image_id in unpack_ids(metadata.image_ids)])
        fraction = {"seconds": f"{metadata.seconds * stays.mean():.6f}"}
        try:
            written[name] = store.append_packed(
                rows[stays], metadata.image_ids[stays], metadata.views[stays], fraction
            )
        except StoreWriteError as error:
            return written, error
    return written, None


def _undo_write(store: Store, names: Collection[str], held: Lease) -> None:
    """Remove the new shards after an error: the old ones still contain the same rows."""
    with contextlib.suppress(StoreError, OSError):
        # A manifest may have been replaced even if syncing its folder failed.
        if not set(names) & set(read_manifest(store.folder).shards):
            remove_shards(store.folder, names, held)


def _list_and_remove(
    store: Store, emptied: list[str], written: Mapping[str, str], held: Lease
) -> None:
    """Write a manifest without the old shards, then remove these."""
    names = [*emptied, *written]
    held.check()
    try:
        store.write_manifest_under_lease(without=names)
    except StoreWriteError as error:
        held.check()
        if not emptied or error.system_errno not in FULL:
            _undo_write(store, written.values(), held)
            raise
        # On a full disk, removing the shards without rows to keep makes space for the manifest.
        # Until it is written, `verify` reports these shards as missing.
        remove_shards(store.folder, emptied, held)
        store.write_manifest_under_lease(without=names)
    remove_shards(store.folder, names, held)
