"""What is committed is read back to the bit, by any process; what does not fit is refused."""

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

from featcache.backbones.spec import BackboneSpec
from featcache.errors import InvalidRequest, MissingRows, StoreMismatch, StoreWriteError
from featcache.store.row_index import RowIndex, pack_ids
from featcache.store.store import Store
from stores import BOTH, SPEC, WIDTH, as_stored, filled, ids_of, rows_of, shards


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store", SPEC, WIDTH)


@pytest.mark.parametrize("spec", BOTH, ids=["float32", "float16"])
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
    tmp_path_factory: pytest.TempPathFactory, spec: BackboneSpec, batches: list[Any], random: Any
) -> None:
    with np.errstate(over="ignore"):  # large values are infinite in float16 from the start
        batches = [as_stored(batch, spec) for batch in batches]
    store = Store.create(tmp_path_factory.mktemp("s"), spec, WIDTH)
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


@pytest.mark.parametrize("spec", BOTH, ids=["float32", "float16"])
@pytest.mark.parametrize(("count", "width"), [(1, 1), (40, 6), (300, 4096), (5, 300_000)])
def test_a_commit_tells_of_itself_what_its_shard_does(
    tmp_path: Path, spec: BackboneSpec, count: int, width: int
) -> None:
    store = Store.create(tmp_path / "store", spec, width)
    rows = np.random.default_rng(0).normal(size=(count, width))
    rows = as_stored(rows, spec)
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


@pytest.mark.parametrize("order", [(), (3,), (3, 1, 1, 5), (5, 4, 3, 2, 1, 0)])
def test_rows_come_in_any_order_and_as_often_as_asked(store: Store, order: Any) -> None:
    filled(store, (0, 1, 2), (3, 4, 5))
    expected = rows_of(*order) if order else np.empty((0, WIDTH), np.float32)
    assert np.array_equal(store.read(ids_of(*order)), expected)


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


def test_rows_merged_away_again_and_again_are_looked_for_only_so_often(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(store, (1,))

    def gone(names: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(store._reader, "check", gone)
    monkeypatch.setattr("featcache.store.store.MAX_LISTINGS", 3)
    with pytest.raises(MissingRows):
        store.read(ids_of(1))


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
