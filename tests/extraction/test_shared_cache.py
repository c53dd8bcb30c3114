"""A shared cache below one's own: its rows are used, and nothing is written there."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extraction_checks import assert_right

import featcache
from conftest import photo
from featcache import explain, extract
from featcache.cli import main
from featcache.errors import StoreCorrupt, StoreError, StoreMismatch
from featcache.store.store import Store
from heads import LogisticHead


@pytest.fixture
def shared(photos: Path, tiny_model: Any, tmp_path: Path) -> Path:
    """A cache that holds the rows of the photos of one class."""
    folder = tmp_path / "shared"
    extract(tiny_model, photos / "cat", cache_dir=folder)
    return folder


def state(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_rows_of_both_are_used_and_new_ones_are_ones_own(
    photos: Path, tiny_model: Any, shared: Path
) -> None:
    before = state(shared)
    features = extract(tiny_model, photos, shared_dir=shared)
    n_shared = len(list((photos / "cat").iterdir()))
    assert features.summary.stored == n_shared
    assert features.summary.computed == len(features) - n_shared > 0
    assert_right(features, tiny_model)
    assert state(shared) == before
    own = featcache.open_store(features.summary.folder)
    assert len(own) == features.summary.computed
    again = extract(tiny_model, photos, shared_dir=shared)
    assert (again.summary.computed, again.summary.stored) == (0, len(features))
    assert np.array_equal(again.X, features.X)
    shuffled = np.random.default_rng(0).permutation(len(features))
    assert np.array_equal(again[shuffled].X[2:9], np.asarray(features.X)[shuffled[2:9]])
    assert LogisticHead().fit(again).score(again) > 0.5


def test_with_all_rows_in_the_shared_cache_nothing_is_written(
    photos: Path, tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extract(tiny_model, photos, cache_dir=tmp_path / "whole")
    monkeypatch.setenv("FEATCACHE_SHARED", str(tmp_path / "whole"))
    own = tmp_path / "own"
    plan = explain(tiny_model, photos, cache_dir=own)
    assert (plan.stored, plan.to_compute) == (len(whole), 0)
    features = extract(tiny_model, photos, cache_dir=own)
    assert features.summary.computed == 0
    assert features.summary.folder == whole.summary.folder
    assert features.summary.seconds_per_image == whole.summary.seconds_per_image
    assert np.array_equal(features.X, whole.X)
    assert not list(own.glob("stores/*"))


def test_views_are_found_in_the_shared_cache(photos: Path, tiny_model: Any, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    options: dict[str, Any] = {"augmentation": "flip", "views": 2}
    extract(tiny_model, photos / "cat", cache_dir=shared, **options)
    extract(tiny_model, photos, cache_dir=shared)  # view 0 of all
    features = extract(tiny_model, photos, shared_dir=shared, **options)
    n_cats = len(list((photos / "cat").iterdir()))
    assert features.summary.computed == len(features) // 2 - n_cats
    whole = extract(tiny_model, photos, cache_dir=tmp_path / "c", **options)
    assert np.allclose(features.X, whole.X, atol=1e-5)
    assert np.allclose(features.mean_views().X, whole.mean_views().X, atol=1e-5)


def test_an_image_that_cannot_be_used_stays_ones_own_matter(
    photos: Path, tiny_model: Any, shared: Path
) -> None:
    (photos / "cat" / "bad.png").write_bytes(b"no image")
    features = extract(tiny_model, photos, shared_dir=shared)
    assert [Path(bad.path).name for bad in features.quarantined] == ["bad.png"]


def test_a_folder_that_is_not_there_is_an_error(photos: Path, tiny_model: Any) -> None:
    with pytest.raises(StoreError, match="is not a folder"):
        extract(tiny_model, photos, shared_dir=photos / "nowhere")


def test_a_damaged_shard_is_an_error(photos: Path, tiny_model: Any, shared: Path) -> None:
    (shard,) = shared.rglob("*.h5")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StoreCorrupt):
        np.asarray(extract(tiny_model, photos, shared_dir=shared).X)


def test_rows_of_another_key_are_refused(
    photos: Path, tiny_model: Any, shared: Path, tmp_path: Path
) -> None:
    (folder,) = (shared / "stores").iterdir()
    other = extract("pocket", photos, cache_dir=tmp_path / "other").summary.folder
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    with pytest.raises(StoreCorrupt, match="its spec is not the one"):
        extract(tiny_model, photos, shared_dir=shared)


def widen(folder: Path) -> int:
    store = featcache.open_store(folder)
    ids, spec, width = store.ids(), store.spec, store.width + 1
    shutil.rmtree(folder)
    wide = Store.create(folder, spec, width)
    wide.append(np.zeros((len(ids), width), np.float32), ids)
    wide.write_manifest()
    return width


@pytest.mark.parametrize("images", [".", "cat"])  # in "cat", all are in the shared cache
def test_rows_of_another_width_are_refused(
    images: str, photos: Path, tiny_model: Any, shared: Path
) -> None:
    (folder,) = (shared / "stores").iterdir()
    width = widen(folder)
    with pytest.raises(StoreMismatch, match=f"have width {width}"):
        extract(tiny_model, photos / images, shared_dir=shared)


def test_rows_of_ones_own_of_another_width_are_refused(
    photos: Path, tiny_model: Any, shared: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    dogs = extract(tiny_model, photos / "dog", cache_dir=own)
    width = widen(Path(dogs.summary.folder))
    with pytest.raises(StoreMismatch, match=f"have width {width}"):
        extract(tiny_model, photos, cache_dir=own, shared_dir=shared)


def test_the_command_reads_a_shared_cache(
    photos: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract("pocket", photos / "cat", cache_dir=shared)
    assert main(["extract", "pocket", str(photos), "--shared-dir", str(shared), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["stored"] == len(list((photos / "cat").iterdir()))
    photo(photos / "cat" / "new.png", 900)
    assert main(["explain", "pocket", str(photos), "--shared-dir", str(shared), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["to_compute"] == 1
