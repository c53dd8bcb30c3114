"""Rows that go from a store that stays: what is wanted of a shard is written again first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from ..errors import FeatcacheError, LeaseLost, StoreError, StoreWriteError
from .lease import Lease, is_in_use, lease
from .maintenance import remove_shards
from .manifest import NAME as MANIFEST_NAME
from .manifest import read_manifest
from .removal import FULL, GONE, LEASED, USED, Kept, Removal, Removals, refused
from .row_index import unpack_ids
from .store import Store


def remove_rows(path: Path, kept: Collection[str], *, dry_run: bool = False) -> Removals:
    """Remove all rows of a store but some.

    Parameters
    ----------
    path : Path
        Folder of the store.
    kept : collection of str
        Example ids of the rows that stay.
    dry_run : bool
        Change nothing.

    Returns
    -------
    Removals
        Empty if all rows stay; its `kept` says what was in the way, also of a part of the rows.
    """
    try:
        with contextlib.closing(Store(path)) as store:
            unwanted = len(set(store.ids()).difference(kept))
            if not unwanted:
                return Removals()
            if dry_run:
                used = is_in_use(path)
                return _kept(path, USED) if used else _removed(store, unwanted)
            return _remove_under_lease(store, kept, unwanted)
    except OSError as error:
        if not isinstance(error, FeatcacheError):
            return Removals(kept=[refused(path, error)])
        return _kept(path, str(error), failed=True)
    except FeatcacheError as error:
        if not os.path.lexists(path / MANIFEST_NAME):
            return _kept(path, GONE)
        return _kept(path, str(error), failed=True)


def _kept(path: Path, reason: str, *, failed: bool = False) -> Removals:
    return Removals(kept=[Kept(path.name, reason, failed)])


def _removed(store: Store, rows: int) -> Removals:
    if not rows:
        return Removals()
    size = rows * (4 * store.width + 36)
    reason = "its images are not among those that stay"
    return Removals([Removal(store.folder.name, rows, size, reason)])


def _remove_under_lease(store: Store, kept: Collection[str], unwanted: int) -> Removals:
    path = store.folder
    with lease(path) as held:
        if not held:
            if held.refused is not None:
                return Removals(kept=[refused(path, held.refused)])
            return _kept(path, LEASED)
        # Under the lease: an extraction that begins now waits for it, and looks again.
        if is_in_use(path):
            return _kept(path, USED)
        try:
            return _rewrite(store, kept, unwanted, held)
        except LeaseLost as error:
            lost = error
    store.write_manifest()  # what was listed last may be out of date
    return _kept(path, str(lost), failed=True)


def _rewrite(store: Store, kept: Collection[str], unwanted: int, held: Lease) -> Removals:
    """Write what stays as new shards, list them, and only then remove the old ones.

    Where there is no room for all of the new shards, the old ones that can go make some.
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
    left = len(set(store.ids()).difference(kept))
    found = _removed(store, unwanted - left)
    if left or error is not None:
        found.kept += _kept(store.folder, _reason(store, left, error), failed=True).kept
    return found


def _reason(store: Store, rows: int, error: StoreWriteError | None) -> str:
    if error is not None:
        return f"{rows:,} of the rows that were to go stay. {error}"
    return (
        f"{rows:,} of its rows stay, in shards that are damaged or that the system does not let "
        f"go. Run `featcache verify {store.folder.name}`, then the same again"
    )


def _sort_shards(store: Store, kept: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the shards of which nothing stays, and those of which some rows do."""
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
    """Write the rows that stay again.

    Returns
    -------
    (dict of str to str, StoreWriteError or None)
        The new shard for each old one, and what ended it early.
    """
    written: dict[str, str] = {}
    for name in names:
        found = store.read_shard(name)
        if found is None:
            continue  # it stays, with all its rows: it may be a disk that fails
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


def _take_back(store: Store, names: Collection[str], held: Lease) -> None:
    """Remove shards that were written in vain: the old ones stay, and hold the same rows."""
    with contextlib.suppress(StoreError, OSError):
        # A manifest whose folder could not be synced is in its place all the same.
        if not set(names) & set(read_manifest(store.folder).shards):
            remove_shards(store.folder, names, held)


def _list_and_remove(
    store: Store, emptied: list[str], written: Mapping[str, str], held: Lease
) -> None:
    """Remove shards of which nothing is wanted, once the manifest lists them no more."""
    names = [*emptied, *written]
    held.check()
    try:
        store.write_manifest_under_lease(without=names)
    except StoreWriteError as error:
        held.check()
        if not emptied or error.system_errno not in FULL:
            _take_back(store, written.values(), held)
            raise
        # Where nothing can be written, what goes whole makes room for the manifest. Until that
        # is written, `verify` misses these shards.
        remove_shards(store.folder, emptied, held)
        store.write_manifest_under_lease(without=names)
    remove_shards(store.folder, names, held)
