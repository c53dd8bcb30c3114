"""The manifest of a store: damaged, forged, endless, of a later version, or repaired."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featcache.errors import StoreCorrupt, StoreError, StoreFormatError
from featcache.store import maintenance
from featcache.store.lease import NAME as LEASE
from featcache.store.lease import lease
from featcache.store.manifest import find_stores, read_manifest
from featcache.store.store import Store
from hostile_shards import planted, sound_parts
from refusals import refuse
from stores import SPEC, WIDTH, filled, ids_of, rows_of, signed


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store", SPEC, WIDTH)


@pytest.mark.parametrize("content", ["", "{}", '{"format_version": 1}', "[]", "null", "\x00"])
def test_a_damaged_manifest_is_refused_and_repaired_from_the_shards(
    store: Store, content: str
) -> None:
    filled(store, (1,))
    (store.folder / "MANIFEST.json").write_text(content)
    with pytest.raises(StoreCorrupt, match="featcache repair"):
        Store(store.folder)
    maintenance.repair(store.folder)
    assert np.array_equal(Store(store.folder).read(ids_of(1)), rows_of(1))


def test_a_changed_manifest_is_noticed_by_its_checksum(store: Store) -> None:
    manifest = store.folder / "MANIFEST.json"
    manifest.write_text(manifest.read_text().replace('"width": 6', '"width": 7'))
    with pytest.raises(StoreCorrupt, match="checksum"):
        Store(store.folder)


def test_a_newer_format_says_to_upgrade(store: Store) -> None:
    signed(store.folder, format_version=99)
    with pytest.raises(StoreFormatError, match="Upgrade featcache"):
        Store(store.folder)


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a store"):
        Store(tmp_path)


def test_a_damaged_store_does_not_hide_its_neighbours(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    other = Store.create(store.folder.parent / "other", SPEC, WIDTH)
    (store.folder / "MANIFEST.json").write_text("{}")
    assert [folder for folder, _ in find_stores(store.folder.parent)] == [other.folder]
    assert "cannot be used" in caplog.text


def test_a_manifest_that_the_disk_cannot_read_does_not_hide_its_neighbours(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = Store.create(store.folder.parent / "other", SPEC, WIDTH)
    path = store.folder / "MANIFEST.json"
    refuse(monkeypatch, os, "open", errno.EIO, concerns=lambda file, *_: file == path)
    assert [folder for folder, _ in find_stores(store.folder.parent)] == [other.folder]
    assert f"{path} cannot be read: Input/output error." in caplog.text


def test_a_writer_that_loses_its_lease_every_time_comes_to_an_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, writes = Store.write_manifest_under_lease, list[int]()

    def suspended(writer: Store) -> None:
        real(writer)
        writes.append(1)
        (store.folder / LEASE).unlink()

    monkeypatch.setattr("featcache.store.store.MAX_LISTINGS", 3)
    monkeypatch.setattr(Store, "write_manifest_under_lease", suspended)
    filled(store, (1,), (2,))
    assert len(writes) == 3
    assert maintenance.verify(store.folder) == []
    assert np.array_equal(Store(store.folder).read(ids_of(1, 2)), rows_of(1, 2))


def test_a_manifest_that_is_being_written_by_another_is_left_to_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.store.store._LEASE_WAIT", 0.05)
    before = read_manifest(store.folder)
    with lease(store.folder):
        filled(store, (1,))
    assert read_manifest(store.folder) == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": "ab" * 32}, "its key does not belong"),
        ({"width": "x"}, "a field is wrong"),
        ({"spec": {}}, "a field is wrong"),
        ({"shards": 3}, "a field is wrong"),
    ],
)
def test_a_manifest_that_lies_is_refused_though_its_checksum_fits(
    store: Store, changes: Any, reason: str
) -> None:
    signed(filled(store, (1,)).folder, **changes)
    with pytest.raises(StoreCorrupt, match=reason):
        read_manifest(store.folder)


def test_an_endless_manifest_is_not_read(store: Store) -> None:
    os.truncate(store.folder / "MANIFEST.json", 2**40)
    with pytest.raises(StoreCorrupt, match="larger than"):
        read_manifest(store.folder)


def test_a_folder_without_manifest_among_the_stores_is_passed_over(store: Store) -> None:
    (store.folder.parent / "notes").mkdir()
    assert [folder for folder, _ in find_stores(store.folder.parent)] == [store.folder]


def test_a_store_with_nothing_sound_left_is_a_fresh_start(store: Store) -> None:
    filled(store, (1,))
    for path in [*store.folder.glob("*.h5*"), store.folder / "MANIFEST.json"]:
        path.write_bytes(b"nothing")
    assert len(maintenance.repair(store.folder)) == 3
    assert not (store.folder / "MANIFEST.json").exists()
    assert len(filled(Store.create(store.folder, SPEC, WIDTH), (1,))) == 1


def test_a_planted_shard_with_a_senseless_spec_makes_no_manifest(store: Store) -> None:
    def senseless(file: h5py.File) -> None:
        sound_parts(file)
        file.attrs["spec"] = "{}"

    planted(store, senseless)
    (store.folder / "MANIFEST.json").unlink()
    reasons = [damage.reason for damage in maintenance.repair(store.folder)]
    assert reasons == ["it is missing", "its spec is invalid"]
    assert not (store.folder / "MANIFEST.json").exists()


def test_the_manifest_lists_what_is_there(store: Store) -> None:
    filled(store, (1, 2), (3,))
    manifest = read_manifest(store.folder)
    assert sum(manifest.shards.values()) == 3
    assert manifest.spec == SPEC
