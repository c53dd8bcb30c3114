"""What is committed is read back to the bit, and nothing else ever is."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featcache.errors import (
    InvalidRequest,
    LeaseLost,
    MissingRows,
    StoreCorrupt,
    StoreError,
    StoreFormatError,
    StoreMismatch,
    StoreWriteError,
)
from featcache.hdf5.shard_file import ShardFile
from featcache.store import maintenance
from featcache.store.lease import lease
from featcache.store.manifest import find_stores, read_manifest
from featcache.store.row_index import RowIndex, pack_ids
from featcache.store.store import Store
from hostile_shards import HOSTILE, planted, sound_parts
from stores import SPEC, WIDTH, filled, ids_of, rows_of, shards, signed


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store", SPEC, WIDTH)


# Round trips


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        hnp.arrays(
            np.float32,
            st.tuples(st.integers(1, 9), st.just(WIDTH)),
            elements=st.floats(width=32, allow_nan=False, allow_subnormal=False),
        ),
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_any_rows_come_back_to_the_bit_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, batches: list[Any], random: Any
) -> None:
    store = Store.create(tmp_path_factory.mktemp("s"), SPEC, WIDTH)
    expected: dict[str, Any] = {}
    for number, batch in enumerate(batches):
        ids = ids_of(*[100 * number + i for i in range(len(batch))])
        store.append(batch, ids)
        expected.update(zip(ids, batch, strict=True))
    store = Store(store.folder)
    wanted = [*expected, *expected]
    random.shuffle(wanted)
    assert len(store) == len(expected)
    if wanted:
        got = store.read(wanted)
        assert got.tobytes() == np.array([expected[i] for i in wanted]).tobytes()


def test_a_shard_is_a_plain_hdf5_file_that_describes_itself(store: Store) -> None:
    filled(store, (1, 2))
    with h5py.File(shards(store)[0]) as file:
        assert np.array_equal(file["embeddings"][()], rows_of(1, 2))
        assert [bytes(i).hex() for i in file["image_id"][()]] == ids_of(1, 2)
        assert json.loads(file.attrs["spec"]) == SPEC.components()
        assert file.attrs["format_version"] == 1


@pytest.mark.parametrize(("count", "width"), [(1, 1), (40, 6), (300, 4096), (5, 300_000)])
def test_a_commit_tells_of_itself_what_its_shard_does(
    tmp_path: Path, count: int, width: int
) -> None:
    store = Store.create(tmp_path / "store", SPEC, width)
    rows = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    store.append(rows, ids_of(*range(count)), {"seconds": "1.5"})
    (head,) = store.folder.glob("*.head")
    written = head.read_bytes()
    head.unlink()
    assert (Store(store.folder).read(ids_of(*range(count))) == rows).all()
    assert head.read_bytes() == written


def test_rows_that_others_commit_are_seen_after_a_refresh(store: Store) -> None:
    other = Store(store.folder)
    filled(store, (1,))
    assert not other.contains(ids_of(1))[0]
    other.refresh()
    assert other.contains(ids_of(1))[0]


def test_a_read_finds_rows_committed_since_the_store_was_opened(store: Store) -> None:
    other = Store(store.folder)
    filled(store, (1,))
    assert np.array_equal(other.read(ids_of(1)), rows_of(1))


def test_the_same_row_committed_twice_is_one_row(store: Store) -> None:
    filled(store, (1, 2), (2, 3))
    assert len(store) == 3
    assert store.ids() == list(dict.fromkeys(store.ids()))
    assert np.array_equal(store.read(ids_of(2)), rows_of(2))


def test_an_unknown_id_is_an_error_that_names_it(store: Store) -> None:
    with pytest.raises(MissingRows) as raised:
        filled(store, (1,)).read(ids_of(1, 9))
    assert raised.value.ids == ids_of(9)


def test_a_store_travels_to_another_process_without_its_open_files(store: Store) -> None:
    filled(store, (1,)).read(ids_of(1))
    assert np.array_equal(pickle.loads(pickle.dumps(store)).read(ids_of(1)), rows_of(1))


@pytest.mark.parametrize(
    "rows", [np.zeros((2, WIDTH)), np.zeros((1, WIDTH + 1)), np.zeros(WIDTH), np.zeros((0, WIDTH))]
)
def test_rows_that_do_not_fit_are_refused(store: Store, rows: Any) -> None:
    with pytest.raises(StoreMismatch):
        store.append(rows, ids_of(1)[: len(rows) or 0] if len(rows) != 2 else ids_of(1))


def test_a_store_of_another_spec_is_not_opened_for_writing(store: Store) -> None:
    with pytest.raises(StoreMismatch, match="rows have width 6, but the backbone gives 7"):
        Store.create(store.folder, SPEC, WIDTH + 1)
    with pytest.raises(StoreMismatch, match="another spec"):
        Store.create(store.folder, replace(SPEC, layer="other"), WIDTH)


def test_quarantine_entries_outlive_the_process(store: Store) -> None:
    store.add_to_quarantine({ids_of(5)[0]: "is damaged"})
    assert Store(store.folder).quarantined == {ids_of(5)[0]: "is damaged"}


def test_temporary_files_of_a_killed_process_are_removed_in_time(store: Store) -> None:
    old, new = (store.folder / f".tmp-{digit * 32}" for digit in "01")
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    Store.create(store.folder, SPEC, WIDTH)
    assert (old.exists(), new.exists()) == (False, True)


# Damage


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


def test_what_changes_after_it_was_checked_is_checked_again(store: Store) -> None:
    filled(store, (1, 2, 3))
    assert np.array_equal(store.read(ids_of(2)), rows_of(2))
    (path,) = shards(store)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreCorrupt, match="SHA-256"):
        store.read(ids_of(2))


@pytest.mark.parametrize("order", [(), (3,), (3, 1, 1, 5), (5, 4, 3, 2, 1, 0)])
def test_rows_come_in_any_order_and_as_often_as_asked(store: Store, order: Any) -> None:
    filled(store, (0, 1, 2), (3, 4, 5))
    expected = rows_of(*order) if order else np.empty((0, WIDTH), np.float32)
    assert np.array_equal(store.read(ids_of(*order)), expected)


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


def test_ids_that_are_none_are_refused(store: Store) -> None:
    for wrong in (["xy" * 32], ["ab"], ["ab" * 33]):
        with pytest.raises(InvalidRequest, match="64 hexadecimal digits"):
            store.contains(wrong)


def test_a_run_of_ids_with_other_views_is_not_taken_for_the_plain_images() -> None:
    ids = pack_ids(ids_of(1, 2, 3))
    index = RowIndex([(ids, np.array([0, 0, 7], np.int32))])
    assert index.find(ids)[1].tolist() == [0, 1, -1]
    assert index.find(ids, np.array([0, 0, 7], np.int32))[1].tolist() == [0, 1, 2]


def test_a_store_says_what_it_is(store: Store) -> None:
    assert repr(filled(store, (1, 2))) == f"<Store {store.folder} 2 rows x {WIDTH}>"


def test_a_shard_that_shrinks_after_it_was_checked_gives_no_rows(store: Store) -> None:
    filled(store, (1, 2))
    store.read(ids_of(1))
    (path,) = shards(store)
    check = store._reader.check
    store._reader.check = lambda names: (check(names), os.truncate(path, 2100))  # type: ignore
    with pytest.raises(StoreCorrupt, match="it was truncated"):
        store.read(ids_of(2, 1))


def test_rows_merged_away_again_and_again_are_looked_for_only_so_often(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(store, (1,))

    def gone(names: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(store._reader, "check", gone)
    monkeypatch.setattr("featcache.store.store._MAX_ATTEMPTS", 3)
    with pytest.raises(MissingRows):
        store.read(ids_of(1))


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


def test_a_shard_that_goes_while_its_size_is_asked_is_not_merged(store: Store) -> None:
    filled(store, (1,), (2,), (3,))
    shards(store)[0].unlink()
    assert len(maintenance._small_shards(store, 10**6)) == 2


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


# Compaction and leases


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


def test_a_lease_is_exclusive_and_a_dead_owners_is_taken_over(tmp_path: Path) -> None:
    with lease(tmp_path) as first, lease(tmp_path) as second:
        assert (bool(first), bool(second)) == (True, False)
    pid = os.fork()
    if not pid:
        with lease(tmp_path):
            os._exit(0)
    os.waitpid(pid, 0)
    assert (tmp_path / ".lease").exists()
    with lease(tmp_path) as held:
        assert held


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


def test_leases_of_others_are_left_alone_and_old_ones_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lease"
    for content in (b"", b"\xff", b"[]", b"{}", b'{"host": "elsewhere", "pid": 1}'):
        path.write_bytes(content)
        with lease(tmp_path) as held:
            assert not held
    os.utime(path, (1, 1))
    replace = os.rename
    monkeypatch.setattr(os, "rename", lambda *names: (_ for _ in ()).throw(OSError()))
    with lease(tmp_path) as held:  # another one was quicker
        assert not held
    monkeypatch.setattr(os, "rename", replace)
    with lease(tmp_path) as held:
        assert held
    assert not path.exists()


def test_a_lease_that_was_taken_over_is_not_given_back(tmp_path: Path) -> None:
    with lease(tmp_path) as held:
        assert held.still_held()
        (tmp_path / ".lease").unlink()
        (tmp_path / ".lease").write_text("another's")
        assert not held.still_held()
        with pytest.raises(LeaseLost):
            held.check()
    assert (tmp_path / ".lease").read_text() == "another's"


def test_compaction_by_one_process_at_a_time(store: Store) -> None:
    filled(store, (1,), (2,), (3,))
    with lease(store.folder):
        assert maintenance.compact(store, many=2) == 0


# The system says no


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_a_clear_error(store: Store) -> None:
    store.folder.chmod(0o500)
    with pytest.raises(StoreWriteError, match="may not write"):
        store.append(rows_of(1), ids_of(1))


def test_a_folder_removed_under_us_is_a_clear_error(store: Store) -> None:
    (store.folder / "MANIFEST.json").unlink()
    store.folder.rmdir()
    with pytest.raises(StoreWriteError, match="removed while it was in use"):
        store.append(rows_of(1), ids_of(1))


def test_the_manifest_lists_what_is_there(store: Store) -> None:
    filled(store, (1, 2), (3,))
    manifest = read_manifest(store.folder)
    assert sum(manifest.shards.values()) == 3
    assert manifest.spec == SPEC
