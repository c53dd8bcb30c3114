"""Collection where a disk refuses or another process was quicker: it says so and goes on."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import photo
from featcache import load_dataset
from featcache._io.cache_dirs import engines_folder, stores_folder
from featcache.gc import collect as gc
from featcache.gc.collect import collect
from featcache.images.image_file import example_ids
from featcache.store.removal import Kept
from featcache.store.store import Store
from refusals import before_first_call, refuse
from stores import SPEC, WIDTH, filled, ids_of, rows_of

OTHER = replace(SPEC, layer="other")
GONE = "another process has just removed it"


def made(cache: Path, spec: Any = SPEC) -> Path:
    folder = stores_folder(cache) / spec.folder
    filled(Store.create(folder, spec, WIDTH), (1, 2)).close()
    return folder


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A store, and a store beside it that nothing hinders."""
    return made(tmp_path), made(tmp_path, OTHER)


@pytest.fixture
def kept_photo(tmp_path: Path) -> Path:
    """A folder with one photo, which neither store has embedded."""
    return photo(tmp_path / "photos" / "a.png", 1).parent


def is_manifest_of(folder: Path) -> Any:
    return lambda path, *_: not isinstance(path, int) and Path(path) == folder / "MANIFEST.json"


# Stores and rows


def test_a_store_that_goes_while_the_images_are_looked_up_is_no_failure(
    two: tuple[Path, Path], kept_photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_first_call(monkeypatch, gc, "_ids_for", lambda: shutil.rmtree(two[0]))
    found = collect(tmp_path, keep_data=[kept_photo])
    assert found.kept == [Kept(two[0].name, GONE)]
    assert [removal.name for removal in found] == [two[1].name]


def test_a_store_whose_manifest_cannot_be_read_keeps_its_rows(
    two: tuple[Path, Path], kept_photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, os, "open", errno.EIO, concerns=is_manifest_of(two[0]))
    found = collect(tmp_path, keep_data=[kept_photo])
    assert found.kept == [Kept(two[0].name, "the system refuses: Input/output error", failed=True)]
    assert [removal.name for removal in found] == [two[1].name]
    monkeypatch.undo()
    assert len(Store(two[0])) == 2


def test_a_store_with_a_damaged_manifest_keeps_its_rows(
    two: tuple[Path, Path], kept_photo: Path, tmp_path: Path
) -> None:
    (two[0] / "MANIFEST.json").write_text("{}")
    found = collect(tmp_path, keep_data=[kept_photo])
    (kept,) = found.kept
    assert kept.name == two[0].name
    assert "`featcache repair` rebuilds it" in kept.reason
    assert [removal.name for removal in found] == [two[1].name]
    assert len(list(two[0].glob("*.h5"))) == 1


def test_a_store_whose_manifest_is_an_endless_link_is_named(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest = two[0] / "MANIFEST.json"
    manifest.unlink()
    manifest.symlink_to(manifest.name)
    found = collect(tmp_path, unused_days=0)
    assert [(kept.name, kept.failed) for kept in found.kept] == [(two[0].name, True)]
    assert "symbolic links" in found.kept[0].reason
    assert [removal.name for removal in found] == [two[1].name]
    assert len(list(two[0].glob("*.h5"))) == 1


def test_a_dry_run_says_what_the_system_refuses_to_list(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        refuse(monkeypatch, os, "listdir", errno.EACCES, concerns=lambda path: path == two[0])

    before_first_call(monkeypatch, gc, "_remove_stores", fail)
    found = collect(tmp_path, unused_days=0, dry_run=True)
    assert found.kept == [Kept(two[0].name, "the system refuses: Permission denied", failed=True)]
    assert [removal.name for removal in found] == [two[1].name]


def test_a_dry_run_beside_a_removal_says_that_the_store_is_gone(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_first_call(monkeypatch, gc, "_check_unused", lambda: shutil.rmtree(two[0]))
    before_first_call(monkeypatch, gc, "is_in_use", lambda: None)
    found = collect(tmp_path, unused_days=0, dry_run=True)
    assert found.kept == [Kept(two[0].name, GONE)]


# Converted models


@pytest.fixture
def converted(tmp_path: Path) -> list[Path]:
    """Two converted models, long ago, that no store needs."""
    folders = [engines_folder(tmp_path) / f"{name}-{'0' * 16}" for name in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "model.xml").write_text("x")
        os.utime(folder / "model.xml", (1, 1))
    return folders


def test_converted_models_stay_if_the_stores_cannot_be_listed(
    converted: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path)

    def fail() -> None:
        refuse(
            monkeypatch, Path, "iterdir", errno.EIO,
            concerns=lambda path: path == stores_folder(tmp_path),
        )  # fmt: skip

    before_first_call(monkeypatch, gc, "_remove_conversions", fail)
    found = collect(tmp_path, unused_days=100)
    assert [(kept.name, kept.failed) for kept in found.kept] == [
        (engines_folder(tmp_path).name, True)
    ]
    assert all(folder.exists() for folder in converted)


def test_a_converted_model_that_the_system_keeps_is_named_and_the_next_goes(
    converted: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, os, "rmdir", errno.EBUSY, times=1)
    found = collect(tmp_path, unused_days=100)
    assert found.kept == [
        Kept(converted[0].name, "the system refuses: Device or resource busy", failed=True)
    ]
    assert [removal.name for removal in found] == [converted[1].name]
    assert [removal.name for removal in collect(tmp_path, unused_days=100)] == [converted[0].name]


def test_a_link_to_nothing_beside_a_converted_model_keeps_it_as_the_users(
    converted: list[Path], tmp_path: Path
) -> None:
    (converted[0] / "notes").symlink_to("nothing")
    found = collect(tmp_path, unused_days=100)
    assert [kept.name for kept in found.kept] == [converted[0].name]
    assert "'notes'" in found.kept[0].reason
    assert [removal.name for removal in found] == [converted[1].name]
    assert (converted[0] / "notes").is_symlink()


# What stays, by the images


def boxed(cache: Path, layer: str, resize: str, ids: list[str]) -> Store:
    spec = replace(SPEC, layer=layer, resize=resize)
    store = Store.create(stores_folder(cache) / spec.folder, spec, WIDTH)
    store.append(rows_of(*range(len(ids))), ids)
    store.write_manifest()
    return store


def test_boxes_that_the_data_have_already_are_kept_in_all_stores_of_them(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 1, (60, 60))
    table = tmp_path / "boxes.csv"
    table.write_text("path,left,top,right,bottom\na.png,5,5,20,25")
    data = load_dataset(table, crop="box", margin=0.1)
    content = ids_of(7)[0]
    (tmp_path / "a.png").write_bytes(b"7")
    wanted = example_ids([content], data.boxes)
    stores = [
        boxed(tmp_path, layer, "box+0.1-stretch-bilinear", [*wanted, content]) for layer in "ab"
    ]
    found = collect(tmp_path, keep_data=[data])
    assert ([removal.rows for removal in found], found.kept) == ([1, 1], [])
    assert [Store(store.folder).ids() for store in stores] == [wanted, wanted]


@pytest.mark.parametrize("rule", ["seams", "faces-stretch-bilinear"])
def test_rows_of_a_resize_rule_that_is_unknown_here_stay(
    tmp_path: Path, kept_photo: Path, rule: str
) -> None:
    store = boxed(tmp_path, "pool", rule, ids_of(1))
    found = collect(tmp_path, keep_data=[kept_photo])
    assert [kept.name for kept in found.kept] == [store.folder.name]
    assert Store(store.folder).ids() == ids_of(1)
