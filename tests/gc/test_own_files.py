"""Collection removes files of ours only, whatever the user's own are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from featcache._io.cache_dirs import engines_folder, stores_folder
from featcache.gc.collect import collect
from featcache.hdf5.shard_metadata import metadata_path
from featcache.store.maintenance import verify
from featcache.store.store import Store
from stores import SPEC, WIDTH, filled, ids_of, shards

_LONG_AGO = (1e9, 1e9)


def old_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    os.utime(path, _LONG_AGO)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = stores_folder(tmp_path) / SPEC.folder
    filled(Store.create(folder, SPEC, WIDTH), (1, 2), (3,)).close()
    return folder


@pytest.mark.parametrize("name", ["my-notes", f"notes-{'0' * 16}", f".notes-{'0' * 16}"])
def test_a_users_folder_beside_converted_models_is_kept(tmp_path: Path, name: str) -> None:
    thesis = old_file(engines_folder(tmp_path) / name / "thesis.txt")
    old_file(thesis.with_name("model.xml"))
    assert collect(tmp_path, unused_days=100) == []
    assert thesis.exists()


def test_a_folder_under_the_name_of_a_converted_file_is_kept(tmp_path: Path) -> None:
    thesis = old_file(engines_folder(tmp_path) / f"a-{'0' * 16}" / "model.bin" / "thesis.txt")
    os.utime(thesis.parent, _LONG_AGO)
    found = collect(tmp_path, unused_days=100)
    assert ["model.bin" in kept.reason for kept in found.kept] == [True]
    assert thesis.exists()


def test_a_conversion_that_was_killed_is_removed_once_it_is_old(tmp_path: Path) -> None:
    left = old_file(engines_folder(tmp_path) / f".tmp-{'0' * 32}" / "model.xml").parent
    collect(tmp_path, unused_days=100)
    assert left.exists()
    os.utime(left, _LONG_AGO)
    collect(tmp_path, unused_days=100)
    assert not left.exists()


@pytest.mark.parametrize("name", ["x", SPEC.folder])
def test_a_link_under_the_name_of_a_removal_is_not_followed(
    store: Path, tmp_path: Path, name: str
) -> None:
    claims = [old_file(tmp_path / "other" / each) for each in (".lease", f".use-{'a' * 32}")]
    link = store.with_name(f".gone-{'d' * 32}-{name}")
    link.symlink_to(tmp_path / "other")
    found = collect(tmp_path, unused_days=100)
    assert all(path.exists() for path in (*claims, link))
    assert [kept.name for kept in found.kept] == [link.name]


@pytest.mark.parametrize("rest", ["-..", "-.", "-.hidden", "", "-x"])
def test_a_users_folder_under_the_name_of_a_removal_is_kept(store: Path, rest: str) -> None:
    thesis = old_file(store.with_name(f".gone-{'d' * 32}{rest}") / "thesis.txt")
    (thesis.parent / f".use-{'a' * 32}").touch()  # in use: it would be put back
    collect(store.parents[1], unused_days=100)
    assert thesis.exists()


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_store_elsewhere_is_not_changed_through_a_link(
    store: Path, tmp_path: Path, dry_run: bool
) -> None:
    link = stores_folder(tmp_path / "other") / SPEC.folder
    link.parent.mkdir(parents=True)
    link.symlink_to(store)
    for criterion in ({"keep_ids": ids_of(1)}, {"unused_days": 0}):
        found = collect(tmp_path / "other", dry_run=dry_run, **criterion)
        assert found == []
        assert ["symbolic link" in kept.reason for kept in found.kept] == [True]
    assert len(Store(store)) == 3


def test_abandoned_marks_are_not_removed_through_a_link(store: Path, tmp_path: Path) -> None:
    mark = old_file(tmp_path / "other" / f".use-{'a' * 32}")
    store.with_name("link").symlink_to(tmp_path / "other")
    old_file(engines_folder(tmp_path) / f"a-{'0' * 16}" / "model.xml")
    collect(tmp_path, unused_days=100)
    assert mark.exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("criterion", [{"keep_ids": ids_of(1)}, {"unused_days": 0}])
def test_a_dry_run_leaves_a_damaged_sidecar_and_an_old_mark(
    store: Path, tmp_path: Path, criterion: dict[str, Any]
) -> None:
    sidecar = metadata_path(shards(Store(store))[0])
    data = bytearray(sidecar.read_bytes())
    data[-1] ^= 1
    sidecar.write_bytes(data)
    old_file(store / f".use-{'a' * 32}")
    before = contents(store)
    found = collect(tmp_path, dry_run=True, **criterion)
    assert [removal.name for removal in found] == [store.name]
    assert contents(store) == before
    assert [damage.name for damage in verify(store)] == [sidecar.name]
