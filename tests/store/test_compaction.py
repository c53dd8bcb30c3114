"""Compaction merges small shards, keeps every row, and leaves alone what others use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from featcache.store import maintenance
from featcache.store.lease import lease
from featcache.store.store import Store
from stores import SPEC, WIDTH, filled, ids_of, rows_of, shards


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store", SPEC, WIDTH)


def test_a_shard_that_goes_while_its_size_is_asked_is_not_merged(store: Store) -> None:
    filled(store, (1,), (2,), (3,))
    shards(store)[0].unlink()
    assert len(maintenance._small_shards(store, 10**6)) == 2


def test_compaction_keeps_every_row_and_leaves_fewer_files(store: Store) -> None:
    filled(store, *[(i, i + 1) for i in range(0, 60, 2)])
    before = store.read(ids_of(*range(60)))
    assert maintenance.compact(store, many=10) == 30
    assert len(shards(store)) == 1
    assert maintenance.verify(store.folder) == []
    assert np.array_equal(Store(store.folder).read(ids_of(*range(60))), before)


def test_a_reader_that_was_open_before_a_compaction_goes_on_reading(store: Store) -> None:
    filled(store, *[(i,) for i in range(12)])
    reader = Store(store.folder)
    maintenance.compact(store, many=2)
    assert np.array_equal(reader.read(ids_of(*range(12))), rows_of(*range(12)))


def test_compaction_leaves_a_damaged_shard_for_verify_to_see(store: Store) -> None:
    filled(store, (1,), (2,), (3,))
    victim = shards(store)[0]
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    maintenance.compact(Store(store.folder), many=2)
    assert victim.exists()


def test_merging_passes_over_what_others_remove_and_what_cannot_be_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled(store, (1,), (2,), (3,))
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".h5":
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok)

    gone = shards(store)[0]
    gone.rename(gone.with_suffix(".away"))
    monkeypatch.setattr(Path, "unlink", refused)
    assert maintenance.compact(store, many=2) == 2
    assert "could not be removed: Operation not permitted" in caplog.text
    monkeypatch.undo()
    with lease(store.folder) as held:
        maintenance.remove_shards(store.folder, ["never-there.h5"], held)
    gone.with_suffix(".away").rename(gone)
    again = Store(store.folder)
    assert np.array_equal(again.read(ids_of(1, 2, 3)), rows_of(1, 2, 3))


def test_shards_are_merged_into_several_of_the_wanted_size(store: Store) -> None:
    filled(store, *[tuple(range(start, start + 100)) for start in range(0, 500, 100)])
    size = max(path.stat().st_size for path in shards(store)) + 1
    assert maintenance.compact(store, small=size, merged=size, many=2) == 4
    assert sorted(len(head.views) for head in store._metadata.values()) == [100, 200, 200]
    assert maintenance.verify(store.folder) == []
    assert np.array_equal(Store(store.folder).read(ids_of(*range(500))), rows_of(*range(500)))


def test_shards_that_are_large_enough_are_left_as_they_are(store: Store) -> None:
    hundreds = [tuple(range(start, start + 100)) for start in range(0, 500, 100)]
    filled(store, *hundreds, (500,), (501,))
    large = [path for path in shards(store) if int(path.name.split("-")[2]) == 100]
    size = min(path.stat().st_size for path in large)
    assert maintenance.compact(store, small=size, merged=8 * size, many=2) == 2
    assert len(shards(store)) == len(large) + 1
    assert set(large) <= set(shards(store))
    assert maintenance.compact(store, small=size, merged=8 * size, many=2) == 0
    assert np.array_equal(Store(store.folder).read(ids_of(*range(502))), rows_of(*range(502)))


def test_nothing_is_merged_of_which_all_but_one_are_damaged(store: Store) -> None:
    filled(store, (1,), (2,))
    for path in shards(store)[:1]:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    assert maintenance.compact(Store(store.folder), many=2) == 0
    assert len(shards(store)) == 2


def test_compaction_by_one_process_at_a_time(store: Store) -> None:
    filled(store, (1,), (2,), (3,))
    with lease(store.folder):
        assert maintenance.compact(store, many=2) == 0
