"""Repair loses nothing: rows first, then the rename; again and again, and beside others."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache import Features, explain, extract
from featcache.errors import FeatcacheError, StoreCorrupt, StoreError, StoreWriteError
from featcache.hdf5.shard_metadata import metadata_path, read_metadata
from featcache.store import maintenance
from featcache.store.lease import lease
from featcache.store.maintenance import compact, repair, verify
from featcache.store.set_aside import move_orphaned_sidecars, set_aside
from featcache.store.store import Store
from stores import SPEC, WIDTH, filled, ids_of, rows_of, shards

NUMBERS = tuple(range(10))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "stores" / SPEC.folder, SPEC, WIDTH)
    return filled(store, NUMBERS[:5], NUMBERS[5:])


def spoil(shard: Path, row: int) -> None:
    known = read_metadata(shard)
    assert known is not None
    data = bytearray(shard.read_bytes())
    data[int(known[0].layout.offsets[0]) + row * 4 * WIDTH] ^= 1
    shard.write_bytes(data)


def has(folder: Path, count: int) -> None:
    store = Store(folder)
    there = [n for n in NUMBERS if store.contains(ids_of(n))[0]]
    assert len(there) == count
    assert np.array_equal(store.read(ids_of(*there)), rows_of(*there))
    assert verify(folder) == []


@pytest.mark.parametrize("step", ["os.rename", "os.replace", "os.fsync", "os.open"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_system_that_refuses_a_step_loses_no_row(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    name = step.removeprefix("os.")
    original = getattr(os, name)
    spoil(shards(store)[0], 2)
    for when in range(1, 30):
        calls: list[int] = []

        def refused(*arguments: Any, when: int = when, **options: Any) -> Any:
            calls.append(1)  # noqa: B023
            if len(calls) == when:  # noqa: B023
                raise OSError(number, os.strerror(number))
            return original(*arguments, **options)

        monkeypatch.setattr(os, name, refused)
        try:
            repair(store.folder)
            done = True
        except FeatcacheError as error:
            done, text = False, str(error)
        monkeypatch.setattr(os, name, original)
        if done:
            break
        assert "What to do" in text
    assert done
    repair(store.folder)
    has(store.folder, 9)


def test_on_a_full_disk_nothing_is_set_aside(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(shards(store)[0], 2)
    before = {path.name: path.read_bytes() for path in store.folder.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("featcache._io.atomic._write_new", full)
    with pytest.raises(StoreWriteError, match="the disk is full"):
        repair(store.folder)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in store.folder.iterdir()} == before
    assert [(d.rows, len(d.ids)) for d in repair(store.folder)] == [(1, 1)]
    has(store.folder, 9)


def test_what_is_set_aside_keeps_its_sidecar(store: Store) -> None:
    shard = shards(store)[0]
    sidecar = metadata_path(shard).read_bytes()
    spoil(shard, 2)
    repair(store.folder)
    assert (store.folder / f"damaged-{metadata_path(shard).name}.bad").read_bytes() == sidecar
    compact(Store(store.folder), many=2)
    assert (store.folder / f"damaged-{metadata_path(shard).name}.bad").read_bytes() == sidecar


def test_a_kill_between_the_two_renames_leaves_the_sidecar_for_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = shards(store)[0]
    spoil(shard, 2)
    rename = os.rename

    def once(*names: Any) -> None:
        monkeypatch.setattr(os, "rename", killed)
        rename(*names)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", once)
    with pytest.raises(KeyboardInterrupt):
        repair(store.folder)
    monkeypatch.undo()
    assert metadata_path(shard).exists()
    has(store.folder, 9)
    (store.folder / "mine.h5.head").write_bytes(b"somebody's")
    move_orphaned_sidecars(store.folder)
    assert (store.folder / "mine.h5.head").exists()
    assert not metadata_path(shard).exists()
    assert (store.folder / f"damaged-{metadata_path(shard).name}.bad").exists()


def test_a_file_of_an_earlier_repair_is_not_overwritten(store: Store) -> None:
    shard = shards(store)[0]
    aside = store.folder / f"damaged-{shard.name}.bad"
    aside.write_bytes(b"earlier")
    spoil(shard, 2)
    data = shard.read_bytes()
    set_aside(shard)
    assert aside.read_bytes() == b"earlier"
    assert (store.folder / f"damaged-{shard.name}.2.bad").read_bytes() == data


def test_a_row_of_two_damaged_shards_is_saved_from_the_one_that_has_it(store: Store) -> None:
    store.append(rows_of(*NUMBERS[:5]), ids_of(*NUMBERS[:5]))
    store.write_manifest()
    first, second = (
        path for path in shards(store) if np.array_equal(ids(path), ids(shards(store)[-1]))
    )
    spoil(first, 2)
    spoil(second, 3)
    repair(store.folder)
    has(store.folder, 10)


def ids(shard: Path) -> Any:
    known = read_metadata(shard)
    assert known is not None
    return known[0].image_ids


def test_rows_that_other_shards_hold_are_not_lost_and_not_committed_twice(store: Store) -> None:
    store.append(rows_of(*NUMBERS), ids_of(*NUMBERS))
    store.write_manifest()
    spoil(next(path for path in shards(store) if "-5-" in path.name), 2)
    (found,) = repair(store.folder)
    assert (found.rows, found.ids) == (0, ())
    assert sum(len(ids(path)) for path in shards(store)) == 15
    has(store.folder, 10)


def test_a_store_whose_shards_are_all_damaged_is_told_by_its_sidecars(store: Store) -> None:
    for shard in shards(store):
        spoil(shard, 1)
    (store.folder / "MANIFEST.json").unlink()
    assert sum(damage.rows for damage in repair(store.folder)) == 2
    has(store.folder, 8)


def test_repairs_at_the_same_time_save_each_row_once(store: Store) -> None:
    spoil(shards(store)[0], 2)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(repair(store.folder))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, found)) == [0, 0, 0, 1]
    assert sum(len(ids(path)) for path in shards(store)) == 9
    has(store.folder, 9)


def test_repair_waits_for_a_merge_and_says_so_if_it_does_not_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "_LEASE_WAIT", 0.05)
    spoil(shards(store)[0], 2)
    with lease(store.folder), pytest.raises(StoreError, match="Nothing was changed"):
        repair(store.folder)
    assert len(shards(store)) == 2
    repair(store.folder)
    has(store.folder, 9)


def test_rows_that_are_committed_during_a_repair_stay(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(shards(store)[0], 2)
    original = maintenance._commit_saved_rows

    def interposed(*arguments: Any) -> None:
        writer = Store(store.folder)
        writer.append(rows_of(100), ids_of(100))
        original(*arguments)
        writer.append(rows_of(101), ids_of(101))

    monkeypatch.setattr(maintenance, "_commit_saved_rows", interposed)
    repair(store.folder)
    assert Store(store.folder).contains(ids_of(100, 101)).all()
    has(store.folder, 9)


def failing_reads(monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> None:
    """Make the disk fail to read a file, so often."""
    import featcache._io.hashes

    original, left = open, [times]

    def refused(path: Any, *arguments: Any, **options: Any) -> Any:
        if Path(path).name == name and left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "Input/output error", str(path))
        return original(path, *arguments, **options)

    monkeypatch.setattr(featcache._io.hashes, "open", refused, raising=False)


def test_a_shard_that_could_not_be_read_once_is_not_set_aside(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_reads(monkeypatch, shards(store)[0].name, 1)
    assert repair(store.folder) == []
    assert len(shards(store)) == 2


def test_a_shard_that_the_disk_cannot_read_is_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = shards(store)[0].name
    failing_reads(monkeypatch, name, 10**6)
    assert [damage.name for damage in verify(store.folder)] == [name]
    opened = Store(store.folder)
    with pytest.raises(StoreCorrupt, match="Input/output error"):
        opened.read(ids_of(*NUMBERS))
    repair(store.folder)  # the rows themselves can be read, and are right by their own sums
    has(store.folder, 10)


def test_a_disk_that_does_not_answer_has_nothing_set_aside(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk of the network, say, that comes back."""
    from featcache.store import salvage

    spoil(shards(store)[0], 2)
    before = {path.name: path.read_bytes() for path in store.folder.iterdir()}
    monkeypatch.setattr(salvage, "_fill", lambda *_: False)
    assert [damage.rows for damage in verify(store.folder)] == [5]
    with pytest.raises(StoreError, match="check the disk"):
        repair(store.folder)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in store.folder.iterdir()} == before
    repair(store.folder)
    has(store.folder, 9)


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    for call in (verify, repair):
        with pytest.raises(StoreError, match="There is no folder"):
            call(tmp_path / "nowhere")


def test_an_extraction_computes_nothing_again_after_its_manifest_was_lost(
    photos: Path, tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = extract(tiny_model, photos)
    manifest = first.summary.folder / "MANIFEST.json"
    about = dict(Store(first.summary.folder).metadata)
    for look in (extract, explain):
        manifest.unlink()
        caplog.clear()
        again = look(tiny_model, photos)
        stored = again.summary.stored if isinstance(again, Features) else again.stored
        assert stored == 12
        assert "had lost its MANIFEST.json" in caplog.text
    assert dict(Store(first.summary.folder).metadata) == about
    assert verify(first.summary.folder) == []
