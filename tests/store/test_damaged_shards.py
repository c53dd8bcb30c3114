"""Shards that are damaged, planted, cut or gone: noticed, and no wrong row is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featcache.errors import MissingRows, StoreCorrupt
from featcache.hdf5.shard_file import ShardFile
from featcache.store import maintenance
from featcache.store.manifest import read_manifest
from featcache.store.store import Store
from hostile_shards import HOSTILE, planted, sound_parts
from stores import SPEC, WIDTH, filled, ids_of, rows_of, shards


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store", SPEC, WIDTH)


def test_every_flipped_bit_is_noticed_and_no_wrong_value_is_ever_read(store: Store) -> None:
    filled(store, (1, 2, 3))
    (path,) = shards(store)
    sound = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(150):
        at, bit = int(generator.integers(len(sound))), int(generator.integers(8))
        damaged = bytearray(sound)
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        assert maintenance.verify(store.folder)
        with pytest.raises((StoreCorrupt, MissingRows)):
            Store(store.folder).read(ids_of(1, 2, 3))
    path.write_bytes(sound)
    assert maintenance.verify(store.folder) == []
    assert np.array_equal(Store(store.folder).read(ids_of(1, 2, 3)), rows_of(1, 2, 3))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_shard_is_passed_over_and_its_neighbours_serve(
    store: Store, share: float
) -> None:
    filled(store, (1,), (2,))
    victim = shards(store)[0]
    victim.write_bytes(victim.read_bytes()[: int(victim.stat().st_size * share)])
    again = Store(store.folder)
    assert [d.name for d in again.damaged] == [victim.name]
    assert len(again) == 1


def test_a_lost_shard_is_reported_with_its_rows(store: Store) -> None:
    filled(store, (1, 2), (3,))
    victim = next(p for p in shards(store) if "-2-" in p.name)
    victim.unlink()
    assert [(d.name, d.rows) for d in maintenance.verify(store.folder)] == [(victim.name, 2)]


def test_repair_sets_the_damaged_shard_aside_and_keeps_the_others(store: Store) -> None:
    filled(store, (1,), (2,))
    victim = shards(store)[0]
    data = victim.read_bytes()[:100]
    victim.write_bytes(data)
    assert len(maintenance.repair(store.folder)) == 1
    assert maintenance.verify(store.folder) == []
    assert len(Store(store.folder)) == 1
    assert (store.folder / f"damaged-{victim.name}.bad").read_bytes() == data


def test_what_changes_after_it_was_checked_is_checked_again(store: Store) -> None:
    filled(store, (1, 2, 3))
    assert np.array_equal(store.read(ids_of(2)), rows_of(2))
    (path,) = shards(store)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreCorrupt, match="SHA-256"):
        store.read(ids_of(2))


# Hostile shards: the name's SHA-256 is right, the content is not a shard


def test_a_planted_shard_of_the_right_form_is_read(store: Store) -> None:
    # The control: without it the refusals below could have another cause.
    planted(store, sound_parts)
    assert len(Store(store.folder).shard_names) == 1


@pytest.mark.parametrize("build", HOSTILE)
def test_a_hostile_shard_is_passed_over_with_a_reason(store: Store, build: Any) -> None:
    filled(store, (7,))
    name = planted(store, build).name
    again = Store(store.folder)
    assert [d.name for d in again.damaged] == [name]
    assert np.array_equal(again.read(ids_of(7)), rows_of(7))
    assert [d.name for d in maintenance.verify(store.folder)] == [name]
    assert [d.name for d in maintenance.repair(store.folder)] == [name]
    assert maintenance.verify(store.folder) == []
    assert Store(store.folder).ids() == ids_of(7)


def test_a_shard_that_shrinks_after_it_was_checked_gives_no_rows(store: Store) -> None:
    filled(store, (1, 2))
    store.read(ids_of(1))
    (path,) = shards(store)
    check = store._reader.check
    store._reader.check = lambda names: (check(names), os.truncate(path, 2100))  # type: ignore
    with pytest.raises(StoreCorrupt, match="it was truncated"):
        store.read(ids_of(2, 1))


def test_a_shard_removed_between_listing_and_opening_is_no_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(store, (1,))
    # A name that is listed though it is not there, before HDF5 looks and while it does.
    (path,) = shards(store)
    path.rename(path.with_suffix(".away"))
    other = Store(store.folder)
    assert other._lookup.find(path.name, read_manifest(store.folder)) is None
    assert [damage.reason for damage in other.damaged] == ["it is missing"]

    def fails(*arguments: Any, **options: Any) -> Any:
        raise OSError("HDF5 says only this")

    monkeypatch.setattr(h5py, "File", fails)
    assert other._lookup.find(path.name, read_manifest(store.folder)) is None
    assert len(other.damaged) == 1


def test_a_shard_that_is_gone_is_gone_and_not_damaged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(store, (1,))
    (path,) = shards(store)
    with pytest.raises(FileNotFoundError):
        ShardFile(path.with_name("gone.h5"))

    def fails(*arguments: Any, **options: Any) -> Any:
        path.unlink()  # between the two looks that HDF5 takes at a name
        raise OSError("unable to open")

    monkeypatch.setattr(h5py, "File", fails)
    with pytest.raises(FileNotFoundError, match="it was removed"):
        ShardFile(path)


def test_a_chunk_that_was_never_written_is_noticed(tmp_path: Path) -> None:
    # In rows so short that the sums of the other chunks make up for its bytes.
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.attrs.update({"format": "featcache-shard", "format_version": 1})
        file.attrs.update({"spec": "{}", "provenance": "{}"})
        sound_parts(file, "embeddings")
        rows = file.create_dataset("embeddings", (3, 1), "<f4", chunks=(1, 1), fletcher32=True)
        rows[:2] = 1
    with pytest.raises(StoreCorrupt, match="never written"):
        ShardFile(tmp_path / "s.h5")


def test_a_file_among_the_shards_that_is_none_is_told_by_verify(store: Store) -> None:
    filled(store, (1,))
    (store.folder / "mine.h5").write_bytes(b"x")
    assert len(Store(store.folder)) == 1
    (found,) = maintenance.verify(store.folder)
    assert (found.name, found.reason) == ("mine.h5", "its name is not that of a shard")
