"""Removal of rows on a disk that fails or is full: no row to keep is lost, the rest is said."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import StoreWriteError
from featcache.store import row_removal
from featcache.store.lease import NAME as LEASE
from featcache.store.lease import lease, mark_in_use
from featcache.store.maintenance import verify
from featcache.store.manifest import Manifest
from featcache.store.removal import Kept
from featcache.store.row_removal import remove_rows
from featcache.store.store import Store
from refusals import before_first_call, refuse
from stores import SPEC, WIDTH, filled, ids_of, rows_of, shards

KEPT = ids_of(3, 5)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a shard without rows to keep, and two with one row to keep each."""
    folder = tmp_path / "store"
    filled(Store.create(folder, SPEC, WIDTH), (1, 2), (3, 4), (5, 6)).close()
    return folder


def has(folder: Path, *numbers: int) -> bool:
    """Return whether a store has these rows, and no others."""
    store = Store(folder)
    same = np.array_equal(store.read(ids_of(*numbers)), rows_of(*numbers))
    return same and sorted(store.ids()) == sorted(ids_of(*numbers))


def shard_of(folder: Path, number: int) -> Path:
    store = Store(folder)
    return next(
        path for path in shards(store)
        if ids_of(number)[0] in [bytes(i).hex() for i in store._metadata[path.name].image_ids]
    )  # fmt: skip


def only(found: Any) -> Kept:
    (kept,) = found.kept
    return kept


# What others do at the same time


def test_rows_of_a_store_in_use_stay_and_that_is_no_failure(store: Path) -> None:
    with mark_in_use(store):
        assert only(remove_rows(store, KEPT)) == Kept("store", "it is in use")
    with lease(store):
        kept = only(remove_rows(store, KEPT))
        assert (kept.failed, kept.reason[:25]) == (False, "another process is mergin")
    assert has(store, 1, 2, 3, 4, 5, 6)


def test_a_store_that_another_process_has_just_removed_is_no_failure(tmp_path: Path) -> None:
    assert remove_rows(tmp_path / "store", KEPT).kept == [
        Kept("store", "another process has just removed it")
    ]


def test_rows_of_a_store_with_a_damaged_manifest_stay(store: Path) -> None:
    (store / "MANIFEST.json").write_text("{}")
    kept = only(remove_rows(store, KEPT))
    assert kept.failed
    assert "featcache repair" in kept.reason
    assert len(list(store.glob("*.h5"))) == 3


def test_a_lost_lease_on_a_disk_that_refuses_the_manifest_is_a_failure(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_over() -> None:
        (store / LEASE).unlink()
        refuse(monkeypatch, os, "replace", errno.EIO, concerns=lambda _, path: "MANI" in str(path))

    before_first_call(monkeypatch, row_removal, "_list_and_remove", take_over)
    found = remove_rows(store, KEPT)
    assert (list(found), only(found).failed) == ([], True)
    assert only(found).reason.startswith("Could not write the manifest")
    monkeypatch.undo()
    assert has(store, 1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_store_that_can_no_longer_be_listed_is_said(
    store: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    def fail() -> None:
        refuse(monkeypatch, os, "listdir", errno.EACCES)

    before_first_call(monkeypatch, row_removal, "is_in_use", fail)
    assert remove_rows(store, KEPT, dry_run=dry_run).kept == [
        Kept("store", "the system refuses: Permission denied", failed=True)
    ]
    monkeypatch.undo()
    assert has(store, 1, 2, 3, 4, 5, 6)


# Disks that fail or are full


def test_a_disk_that_refuses_the_lease_keeps_all_rows(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, os, "open", errno.EROFS, concerns=lambda _, flags, *__: flags & os.O_CREAT)
    assert remove_rows(store, KEPT).kept == [
        Kept("store", "the system refuses: Read-only file system", failed=True)
    ]
    monkeypatch.undo()
    assert has(store, 1, 2, 3, 4, 5, 6)


def test_a_shard_that_is_damaged_in_between_is_left_as_it_is(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_rows(store, ids_of(3, 4, 5, 6))  # no shard is without a row to keep
    victims = [shard_of(store, 3), shard_of(store, 5)]

    def damage() -> None:
        for path in victims:
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)

    before_first_call(monkeypatch, row_removal, "_write_kept", damage)
    found = remove_rows(store, KEPT)
    assert (list(found), only(found).failed) == ([], True)
    assert only(found).reason.startswith("2 of the rows to remove are left, in shards that are dam")
    assert all(path.exists() for path in victims)


@pytest.fixture
def limit_file_size() -> Iterator[Callable[[int], None]]:
    """Function after whose call the system refuses to write larger files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_takes_no_new_shard_loses_the_shards_without_rows_to_keep(
    store: Path, limit_file_size: Callable[[int], None]
) -> None:
    limit_file_size((store / "MANIFEST.json").stat().st_size + 100)
    found = remove_rows(store, KEPT)
    assert [removal.rows for removal in found] == [2]
    assert only(found).failed
    assert "2 of the rows to remove are left. " in only(found).reason
    assert "File too large" in only(found).reason
    assert has(store, 3, 4, 5, 6)
    assert verify(store) == []


def test_new_shards_that_a_manifest_lists_after_all_are_not_taken_back(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Manifest.write

    def not_synced(manifest: Manifest, folder: Path) -> None:
        real(manifest, folder)
        raise StoreWriteError("the folder cannot be synced", system_errno=errno.EIO)

    monkeypatch.setattr(Manifest, "write", not_synced)
    found = remove_rows(store, KEPT)
    assert "the folder cannot be synced" in only(found).reason
    monkeypatch.undo()
    assert verify(store) == []
    assert has(store, 1, 2, 3, 4, 5, 6)
    assert [removal.rows for removal in remove_rows(store, KEPT)] == [4]
    assert has(store, 3, 5)


def test_on_a_full_disk_removed_shards_make_space_for_the_manifest(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied = shard_of(store, 1)
    failed = refuse(
        monkeypatch, os, "replace", errno.ENOSPC,
        concerns=lambda _, path: Path(path).name == "MANIFEST.json" and emptied.exists(),
    )  # fmt: skip
    found = remove_rows(store, KEPT)
    assert failed
    assert ([removal.rows for removal in found], found.kept) == ([4], [])
    assert has(store, 3, 5)
    assert verify(store) == []
