"""What goes, what is packed and what is computed again: never a row too many or another value."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from conftest import make_tiny_model, photo
from featcache import Features, extract, load_dataset, verify
from featcache._io.cache_dirs import cache_folder, stores_folder
from featcache.cli import main
from featcache.errors import InvalidRequest, MissingRows, StoreError, StoreMismatch, StoreWriteError
from featcache.extraction.recheck import verify_sample
from featcache.gc.collect import collect
from featcache.store.lease import lease, mark_in_use
from featcache.store.manifest import read_manifest
from featcache.store.pack import pack, unpack
from featcache.store.store import Store


def aged(folder: Path, days: float) -> None:
    """Make a store look as if it was last written and used so long ago."""
    then = time.time() - days * 86400
    for file in folder.iterdir():
        os.utime(file, (then, then))


@pytest.fixture
def three(photos: Path) -> list[Path]:
    """Stores that were last used 30, 10 and 1 days ago."""
    folders = []
    for seed, days in enumerate((30, 10, 1)):
        folder = extract(make_tiny_model(seed), photos, batch_size=4).summary.folder
        aged(folder, days)
        folders.append(folder)
    return folders


def names(folders: list[Path]) -> set[str]:
    return {folder.name for folder in folders}


def test_stores_that_nothing_used_for_long_go(three: list[Path]) -> None:
    told = collect(cache_folder(), unused_days=5, dry_run=True)
    assert {removal.name for removal in told} == names(three[:2])
    assert all(folder.is_dir() for folder in three)
    assert collect(cache_folder(), unused_days=5) == told
    assert [folder.is_dir() for folder in three] == [False, False, True]
    assert verify(three[2]) == []


def test_using_a_store_keeps_it(three: list[Path], photos: Path) -> None:
    assert extract(make_tiny_model(0), photos).summary.computed == 0
    assert {r.name for r in collect(cache_folder(), unused_days=5)} == {three[1].name}


def test_the_longest_unused_go_until_the_rest_fits(three: list[Path]) -> None:
    size = Store(three[2]).size_on_disk()
    removed = collect(cache_folder(), max_bytes=2 * size + 100)
    assert [r.name for r in removed] == [three[0].name]
    assert removed[0].rows == 12
    assert not collect(cache_folder(), max_bytes=2 * size + 100)


def test_a_store_in_use_stays(three: list[Path], photos: Path) -> None:
    with lease(three[0]):
        assert collect(cache_folder(), unused_days=20) == []
    with mark_in_use(three[0]):
        for dry_run in (True, False):
            found = collect(cache_folder(), unused_days=20, dry_run=dry_run)
            assert found == []
            assert [(kept.name, kept.failed) for kept in found.kept] == [(three[0].name, False)]
    assert three[0].is_dir()
    assert [r.name for r in collect(cache_folder(), unused_days=20)] == [three[0].name]


def test_only_named_stores_are_looked_at(three: list[Path]) -> None:
    assert collect(cache_folder(), unused_days=0, names=[three[2].name])[0].name == three[2].name
    assert three[0].is_dir()
    with pytest.raises(StoreError, match="no store 'nowhere'"):
        collect(cache_folder(), unused_days=0, names=["nowhere"])


def test_rows_of_absent_images_go_and_the_others_keep_their_values(
    photos: Path, tiny_model: Any
) -> None:
    features = extract(tiny_model, photos, batch_size=5)
    before = np.asarray(features.X)
    kept = [0, 3, 4, 11]
    keep_ids = [features.ids[i] for i in kept]
    told = collect(cache_folder(), keep_ids=keep_ids, dry_run=True)
    assert [removal.rows for removal in told] == [8]
    assert len(Store(features.summary.folder)) == 12
    assert collect(cache_folder(), keep_ids=keep_ids) == told
    store = Store(features.summary.folder)
    assert sorted(store.ids()) == sorted(keep_ids)
    assert np.array_equal(store.read(keep_ids), before[kept])
    assert verify(store.folder) == []
    # What went is computed again, and only that.
    again = extract(tiny_model, photos)
    assert (again.summary.computed, again.summary.stored) == (8, 4)
    assert np.allclose(np.asarray(again.X), before, rtol=1e-5, atol=1e-5)


def test_a_removal_that_was_killed_is_finished_by_the_next(three: list[Path]) -> None:
    three[0].rename(three[0].with_name(".gone-" + "0" * 32))
    collect(cache_folder(), unused_days=100)
    assert names(list(stores_folder(cache_folder()).iterdir())) == names(three[1:])


@pytest.mark.parametrize("wrong", [{}, {"unused_days": -1}, {"max_bytes": -1}])
def test_nothing_goes_without_being_asked_for(wrong: Any, three: list[Path]) -> None:
    with pytest.raises(InvalidRequest):
        collect(cache_folder(), **wrong)


def test_the_gc_command(
    three: list[Path], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gc", "--unused-days", "5", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"would remove: {three[0].name}, 12 rows" in out
    assert "2 removals" in out
    assert main(["gc", three[2].name, "--only", str(photos / "cat"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"][0]["rows"] == 6
    assert len(Store(three[2])) == 6
    assert main(["gc", "--keep", "1G"]) == 0
    assert main(["gc", "--keep", "much"]) == 2
    assert "not a size" in capsys.readouterr().err
    (photos / "cat" / "99.png").mkdir()
    (photos / "cat" / "98.png").symlink_to("/nowhere")
    assert main(["gc", "--only", str(photos / "cat")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert len(Store(three[1])) == 12


# Packing


@pytest.fixture
def features(photos: Path, tiny_model: Any) -> Features:
    return extract(tiny_model, photos, batch_size=5)


def test_a_packed_store_comes_back_bit_by_bit(features: Features, tmp_path: Path) -> None:
    store = Store(features.summary.folder)
    assert pack(store, tmp_path / "p.h5") == 12
    other = unpack(tmp_path / "p.h5", tmp_path / "elsewhere")
    assert (other.spec, other.width, dict(other.metadata)) == (
        store.spec,
        store.width,
        dict(store.metadata),
    )
    ids = store.ids()
    assert np.array_equal(other.read(ids), store.read(ids))
    assert verify(other.folder) == []
    # Again, and into the store it came from: nothing is there twice.
    assert len(unpack(tmp_path / "p.h5", tmp_path / "elsewhere").shard_names) == 1
    assert len(unpack(tmp_path / "p.h5", cache_folder())) == 12


def test_it_is_plain_hdf5_with_labels_beside_the_rows(
    features: Features, photos: Path, tmp_path: Path
) -> None:
    pack(Store(features.summary.folder), tmp_path / "p.h5", load_dataset(photos))
    with h5py.File(tmp_path / "p.h5") as file:
        assert np.array_equal(file["embeddings"][()], np.asarray(features.X))
        assert [label.decode() for label in file["label"]] == features.labels
        assert [path.decode() for path in file["path"]] == features.paths
        assert json.loads(file.attrs["spec"]) == features.spec.components()


def test_an_unpacked_store_is_a_hit(features: Features, photos: Path, tmp_path: Path) -> None:
    pack(Store(features.summary.folder), tmp_path / "p.h5")
    unpack(tmp_path / "p.h5", tmp_path / "elsewhere")
    again = extract(make_tiny_model(), photos, cache_dir=tmp_path / "elsewhere")
    assert again.summary.computed == 0


def test_rows_that_are_not_stored_cannot_be_packed(
    features: Features, photos: Path, tmp_path: Path
) -> None:
    from featcache import load_dataset

    photo(photos / "cat" / "new.png", 999)
    with pytest.raises(MissingRows):
        pack(Store(features.summary.folder), tmp_path / "p.h5", load_dataset(photos))
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name or p.suffix == ".h5"] == []


def test_images_without_labels_are_packed_without_them(
    features: Features, photos: Path, tmp_path: Path
) -> None:
    images = [str(path) for path in sorted(photos.rglob("*.png"))]
    pack(Store(features.summary.folder), tmp_path / "p.h5", load_dataset(images))
    with h5py.File(tmp_path / "p.h5") as file:
        assert set(file) == {"embeddings", "image_id", "path"}


@pytest.mark.parametrize(
    ("cells", "packed"),
    [(["3", "10", "3"], [b"3", b"10", b"3"]), (["a", "", "b"], [b"a", b"", b"b"])],
    ids=["numbers", "one missing"],
)
def test_labels_of_any_type_are_packed_as_text(
    features: Features, photos: Path, tmp_path: Path, cells: list[str], packed: list[bytes]
) -> None:
    images = [str(path) for path in sorted(photos.rglob("*.png"))][:3]
    rows = [f"{path},{label}" for path, label in zip(images, cells, strict=True)]
    table = tmp_path / "photos.csv"
    table.write_text("\n".join(["path,label", *rows]))
    pack(Store(features.summary.folder), tmp_path / "p.h5", load_dataset(table))
    with h5py.File(tmp_path / "p.h5") as file:
        assert list(file["label"]) == packed


def test_a_disk_that_refuses_a_pack_leaves_the_old_one(
    features: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(features.summary.folder)
    pack(store, tmp_path / "p.h5")
    before = (tmp_path / "p.h5").read_bytes()

    def full(*names: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featcache._io.atomic.os.replace", full)
    with pytest.raises(StoreWriteError, match="the disk is full"):
        pack(store, tmp_path / "p.h5")
    assert [path.name for path in tmp_path.glob("*p.h5")] == ["p.h5"]
    assert (tmp_path / "p.h5").read_bytes() == before


def test_the_pack_commands(
    features: Features, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, file = features.summary.folder.name, str(tmp_path / "p.h5")
    assert main(["pack", name, file, "--data", str(photos)]) == 0
    assert main(["unpack", file, "--cache-dir", str(tmp_path / "other")]) == 0
    assert "12 rows x 8" in capsys.readouterr().out
    assert main(["unpack", str(photos / "cat" / "00.png")]) == 2


# Computing a sample again


def test_a_sample_of_a_sound_store_agrees(photos: Path) -> None:
    folder = extract("mobilenet", photos, weights="random:3", image_size=32).summary.folder
    check = verify_sample(folder, photos, 5)
    assert check.images == 5
    assert check.largest < 1e-5
    assert not check.differing
    assert verify_sample(folder, photos, 99).images == 12


def test_weights_are_chosen_by_what_the_store_records_not_by_a_text_for_people(
    photos: Path,
) -> None:
    features = extract("mobilenet", photos, weights="random:3", image_size=32)
    manifest = read_manifest(features.summary.folder)
    replace(manifest, metadata={**manifest.metadata, "weights": "seed three"}).write(
        features.summary.folder
    )
    assert not verify_sample(features.summary.folder, photos, 2).differing
    replace(manifest, metadata={}).write(features.summary.folder)
    with pytest.raises(InvalidRequest, match=r"does not record .* Pass weights= \(--weights\)"):
        verify_sample(features.summary.folder, photos, 2)
    assert not verify_sample(features.summary.folder, photos, 2, weights="random:3").differing


def test_a_row_that_is_not_its_images_is_found(photos: Path, tiny_model: Any) -> None:
    # Such a store has sound bytes: only computing again can tell.
    features = extract(tiny_model, photos)
    folder = features.summary.folder
    spec, width = features.spec, features.X.shape[1]
    rows = np.asarray(features.X).copy()
    rows[[2, 3]] = rows[[3, 2]]
    for file in folder.iterdir():
        file.unlink()
    store = Store.create(folder, spec, width, {"preprocessing": "none"})
    store.append(rows, features.ids)
    store.write_manifest()
    assert verify(folder) == []
    check = verify_sample(folder, photos, 12, backbone=make_tiny_model())
    assert sorted(path for path, _ in check.differing) == sorted(features.paths[2:4])
    assert check.largest > 1e-3
    with pytest.raises(InvalidRequest, match="pass that model"):
        verify_sample(folder, photos)
    with pytest.raises(StoreMismatch, match="in weights"):
        verify_sample(folder, photos, backbone=make_tiny_model(seed=1))


def test_a_sample_needs_images_that_are_stored(photos: Path, tmp_path: Path) -> None:
    folder = extract("mobilenet", photos, weights="random", image_size=32).summary.folder
    photo(tmp_path / "others" / "a.png", 77)
    with pytest.raises(InvalidRequest, match="0 of the 1 images are stored"):
        verify_sample(folder, tmp_path / "others")


def test_the_verify_command_takes_a_sample(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = extract("pocket", photos).summary.folder
    assert main(["verify", folder.name, "--sample", "4", "--data", str(photos)]) == 0
    assert "4 images computed again; the largest relative difference" in capsys.readouterr().out
    assert main(["verify", folder.name, "--sample", "4"]) == 2
    assert "--data" in capsys.readouterr().err
    assert main(["verify", folder.name, "--sample", "2", "--data", str(photos), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2
