"""Rows that are copied between caches: the missing ones alone, verified, and resumed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache import verify
from featcache._io import disk_space
from featcache._io.cache_dirs import stores_folder
from featcache.cli import main
from featcache.errors import StoreError, StoreWriteError
from featcache.store import transfer
from featcache.store.maintenance import compact
from featcache.store.store import Store
from featcache.store.transfer import copy_rows
from stores import BOTH, SPEC, WIDTH, as_stored, filled, ids_of, rows_of, shards


def make(cache: Path, *batches: tuple[int, ...], spec: Any = SPEC) -> Store:
    store = Store.create(stores_folder(cache) / spec.folder, spec, WIDTH, {"backbone": "tiny"})
    return filled(store, *batches)


@pytest.mark.parametrize("spec", BOTH)
def test_missing_rows_alone_are_copied(spec: Any, tmp_path: Path) -> None:
    source = make(tmp_path / "a", (1, 2, 3), (4, 5), spec=spec)
    make(tmp_path / "b", (2, 5, 9), spec=spec)
    found = copy_rows(source, tmp_path / "b")
    assert (found.rows, found.present, found.damaged) == (3, 2, ())
    target = Store(found.store.folder)
    assert len(target) == 6
    expected = as_stored(rows_of(1, 2, 3, 4, 5, 9), spec)
    assert np.array_equal(target.read(ids_of(1, 2, 3, 4, 5, 9)), expected)
    assert verify(target.folder) == []
    before = shards(target)
    assert copy_rows(source, tmp_path / "b").rows == 0
    assert shards(target) == before
    assert len(source) == 5


_batches = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=5, unique=True), max_size=4)


@settings(max_examples=25, deadline=None)
@given(here=_batches, there=_batches)
def test_both_caches_together_hold_all_rows(
    here: list[list[int]], there: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("caches")
    source = make(folder / "a", *map(tuple, here))
    make(folder / "b", *map(tuple, there))
    found = copy_rows(source, folder / "b")
    mine, theirs = set().union(*here), set().union(*there)
    assert found.rows == len(mine - theirs)
    assert found.present == len(mine & theirs)
    everything = sorted(mine | theirs)
    target = Store(found.store.folder)
    assert len(target) == len(everything)
    if everything:
        assert np.array_equal(target.read(ids_of(*everything)), rows_of(*everything))


def test_the_first_copy_makes_the_store(tmp_path: Path) -> None:
    source = make(tmp_path / "a", (1, 2))
    found = copy_rows(source, tmp_path / "new" / "cache")
    assert found.store.metadata["backbone"] == "tiny"
    assert not list(found.store.folder.glob("in-use*"))


def test_the_cost_of_rows_goes_with_them(tmp_path: Path) -> None:
    source = make(tmp_path / "a")
    source.append(rows_of(1, 2, 3, 4), ids_of(1, 2, 3, 4), {"seconds": "8.0"})
    source.write_manifest()
    make(tmp_path / "b", (1, 2))
    found = copy_rows(source, tmp_path / "b")
    assert Store(found.store.folder).seconds_per_image() == pytest.approx(1.0)  # 4 s of 4 rows


def test_rows_of_a_damaged_shard_are_not_copied_and_the_others_are(tmp_path: Path) -> None:
    source = make(tmp_path / "a", (1, 2), (3, 4))
    bad = shards(source)[0]
    data = bytearray(bad.read_bytes())
    data[-20] ^= 1
    bad.write_bytes(data)
    found = copy_rows(Store(source.folder), tmp_path / "b")
    assert found.damaged == (bad.name,)
    assert found.rows == 2
    assert verify(found.store.folder) == []


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    source = make(tmp_path / "a", (1, 2), (3, 4))
    lost = shards(source)[0]
    lost.unlink()
    found = copy_rows(Store(source.folder), tmp_path / "b")
    assert (found.rows, found.damaged) == (2, (lost.name,))


def test_shards_that_are_merged_meanwhile_lose_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "a", *[(i, 100 + i) for i in range(30)])
    read = Store.read_shard
    calls: list[str] = []

    def merging(self: Store, name: str) -> Any:
        calls.append(name)
        if len(calls) == 3:
            assert compact(Store(source.folder), many=2) > 0
        return read(self, name)

    monkeypatch.setattr(Store, "read_shard", merging)
    found = copy_rows(source, tmp_path / "b")
    assert (found.rows, found.damaged) == (60, ())


def test_an_interrupted_copy_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "a", (1, 2), (3, 4), (5, 6))
    append, calls = Store.append_packed, []

    def stopped(self: Store, *arguments: Any) -> str:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return append(self, *arguments)

    with monkeypatch.context() as inner:
        inner.setattr(Store, "append_packed", stopped)
        with pytest.raises(KeyboardInterrupt):
            copy_rows(source, tmp_path / "b")
    found = copy_rows(source, tmp_path / "b")
    assert (found.rows, found.present) == (4, 2)


def test_the_same_cache_is_refused_also_by_another_name(tmp_path: Path) -> None:
    source = make(tmp_path / "a", (1, 2))
    os.symlink(tmp_path / "a", tmp_path / "link")
    for name in ("a", "link"):
        with pytest.raises(StoreError, match="another cache folder"):
            copy_rows(source, tmp_path / name)


def test_a_disk_without_room_is_refused_before_anything_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "a", (1, 2))
    monkeypatch.setattr(disk_space, "free_bytes", lambda _: 10)
    with pytest.raises(StoreWriteError, match="2 rows of tiny"):
        copy_rows(source, tmp_path / "b")


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setenv("FEATCACHE_CACHE", str(tmp_path / "here"))
    return tmp_path / "here", tmp_path / "there"


def test_push_and_pull_copy_what_the_other_side_lacks(
    caches: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = caches
    make(here, (1, 2, 3))
    assert main(["push", str(there)]) == 0
    assert "3 rows copied, 0 there" in capsys.readouterr().out
    make(there, (7,))
    assert main(["pull", str(there), "tiny", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["copied"], record["present"]) == (1, 3)
    assert len(Store(stores_folder(here) / SPEC.folder)) == 4
    assert main(["push", str(there), "nothing"]) == 2
    assert "There is no store 'nothing'" in capsys.readouterr().err


def test_the_status_says_that_a_shard_is_damaged(
    caches: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = caches
    bad = shards(make(here, (1, 2)))[0]
    bad.write_bytes(bad.read_bytes()[:-30])
    assert main(["push", str(there)]) == 1
    assert "featcache repair" in capsys.readouterr().out


def test_an_empty_cache_has_nothing_to_copy(
    caches: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(caches[1])]) == 0
    assert f"no store to copy in {caches[0]}." in capsys.readouterr().out
    caches[1].mkdir(exist_ok=True)
    assert main(["pull", str(caches[1])]) == 0
    assert f"no store to copy in {caches[1]}." in capsys.readouterr().out


def test_a_store_that_is_always_being_merged_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "a", (1, 2), (3, 4))
    monkeypatch.setattr(transfer, "MAX_LISTINGS", 2)
    monkeypatch.setattr(source, "refresh", lambda: None)
    shards(source)[0].unlink()
    with pytest.raises(StoreError, match="merged its shards"):
        copy_rows(source, tmp_path / "b")
