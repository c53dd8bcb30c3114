"""Extractions whose cache is in an object store: `cache_dir="s3://bucket/prefix"`."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featcache
from conftest import photo
from featcache import extract
from featcache._io.cache_dirs import cache_folder, cache_url, local_cache
from featcache.cli import main
from featcache.errors import InvalidRequest, StoreWriteError, UnknownStore
from featcache.extraction import prepare
from featcache.store.bucket.objects import Bucket
from featcache.store.bucket.place import BucketPlace

pytest.importorskip("fsspec", reason="fsspec is not installed")

OPTIONS: dict[str, Any] = {"batch_size": 4, "progress": False, "engine": "keras"}


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/cache"


def test_rows_are_computed_once_and_kept_in_the_bucket(
    photos: Path, tiny_model: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    here = extract(tiny_model, photos, cache_dir=tmp_path / "here", **OPTIONS)
    first = extract(tiny_model, photos, cache_dir=url, **OPTIONS)
    np.testing.assert_array_equal(first.X, here.X)
    assert (first.ids, first.spec, first.quarantined) == (here.ids, here.spec, here.quarantined)
    assert str(first.summary.folder) == f"{url}/stores/{Path(here.summary.folder).name}"
    assert f"store {url}/stores/" in str(first.summary)
    assert url in repr(first.X)
    assert not (cache_folder() / "stores").exists()
    monkeypatch.setenv("FEATCACHE_CACHE", str(tmp_path / "another machine"))
    again = extract(tiny_model, photos, cache_dir=url, **OPTIONS)
    assert (again.summary.stored, again.summary.computed) == (12, 0)
    assert again.quarantined == here.quarantined
    np.testing.assert_array_equal(again.X, here.X)
    photo(photos / "cat" / "new.png", 99)
    more = extract(tiny_model, photos, cache_dir=url, **OPTIONS)
    assert (more.summary.stored, more.summary.computed) == (12, 1)


def test_the_variable_may_be_a_url(
    photos: Path, tiny_model: Any, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEATCACHE_CACHE", url)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    assert cache_url() == url
    assert cache_url(tmp_path) is None
    assert cache_folder() == tmp_path / "featcache"
    assert cache_folder(url) == cache_folder()
    with pytest.raises(InvalidRequest, match="is in an object store"):
        local_cache()
    views = extract(tiny_model, photos, views=2, augmentation="flip", **OPTIONS)
    assert views.summary.computed == 24
    assert len(Bucket(url).folders("stores")) == 2
    assert extract(tiny_model, photos, **OPTIONS).summary.stored == 12


def test_layers_in_one_pass_are_kept_in_the_bucket(photos: Path, url: str, tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([
        keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(4, 3, name="a"), keras.layers.Conv2D(5, 3, name="b"),
        keras.layers.GlobalAveragePooling2D(),
    ])  # fmt: skip
    both = extract(model, photos, layer=["a", "b"], cache_dir=url, **OPTIONS)
    here = extract(model, photos, layer=["a", "b"], cache_dir=tmp_path, **OPTIONS)
    np.testing.assert_array_equal(both.X, here.X)
    assert extract(model, photos, layer="b", cache_dir=url, **OPTIONS).summary.stored == 12


def test_a_shared_cache_lies_below_it(
    photos: Path, tiny_model: Any, url: str, tmp_path: Path
) -> None:
    extract(tiny_model, photos / "cat", cache_dir=tmp_path / "team", **OPTIONS)
    found = extract(tiny_model, photos, cache_dir=url, shared_dir=tmp_path / "team", **OPTIONS)
    assert (found.summary.stored, found.summary.computed) == (6, 6)
    whole = extract(tiny_model, photos, cache_dir=tmp_path / "whole", **OPTIONS)
    np.testing.assert_allclose(found.X, whole.X, atol=1e-5)
    assert extract(tiny_model, photos, cache_dir=url, **OPTIONS).summary.computed == 6


def test_a_lost_connection_costs_no_row_that_was_committed(
    photos: Path, tiny_model: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, shards = Bucket.create, list[str]()

    def lost(self: Bucket, name: str, data: bytes) -> bool:
        if name.endswith(".h5"):
            shards.append(name)
            if len(shards) == 2:
                raise StoreWriteError("no route to host.")
        return create(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "create", lost)
        with pytest.raises(StoreWriteError, match="committed 4 rows before, which stay"):
            extract(tiny_model, photos, cache_dir=url, **OPTIONS)
    found = extract(tiny_model, photos, cache_dir=url, **OPTIONS)
    assert found.summary.stored >= 4
    assert found.summary.stored + found.summary.computed == 12


def test_commits_are_fewer_than_to_a_disk(
    photos: Path, tiny_model: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds: list[float | None] = []
    real = featcache.extraction.compute.Computation

    def computation(*arguments: Any) -> Any:
        seconds.append(arguments[5])
        return real(*arguments)

    monkeypatch.setattr("featcache.extraction.compute.Computation", computation)
    extract(tiny_model, photos, cache_dir=url, **OPTIONS)
    extract(tiny_model, photos, **OPTIONS)
    assert seconds == [10.0, None]


def test_a_store_that_is_gone_is_an_error(
    photos: Path, tiny_model: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare.ExtractionJob, "open_store", lambda job: None)
    with pytest.raises(UnknownStore, match="was removed while its rows were used"):
        extract(tiny_model, photos, cache_dir=url, **OPTIONS)


def test_the_commands(photos: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--cache-dir", url]
    assert main(["ls", *where]) == 0
    assert f"No store in {url} yet" in capsys.readouterr().out
    command = ["extract", "pocket", str(photos), "--image-size", "32", "--no-progress"]
    assert main([*command, *where]) == 0
    assert f"store {url}/stores/pocket-" in capsys.readouterr().out
    assert main(["ls", *where]) == 0
    assert "12 x 256" in capsys.readouterr().out
    assert main(["info", "pocket", "--json", *where]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["folder"].startswith(f"{url}/stores/pocket-")
    assert record["rows"] == 12
    near = featcache.explain("pocket", photos, cache_dir=url, image_size=48)
    assert (near.exists, near.differs_in) == (False, ["image_size"])
    assert str(near.folder).startswith(f"{url}/stores/pocket-")
    assert "the nearest store, pocket-" in str(near)
    BucketPlace.of(cache_folder(), url, near.spec.folder).create(near.spec, 256, {})
    assert main(["info", "pocket", *where]) == 2
    assert "2 stores match 'pocket'" in capsys.readouterr().err
    for refused in (["pack", "pocket", "x.h5"], ["unpack", "x.h5"], ["push", "folder"],
                    ["pull", "folder"]):  # fmt: skip
        assert main([*refused, *where]) == 2, refused
        assert "object store" in capsys.readouterr().err


def test_features_of_other_programs_are_imported_into_folders(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"works on a cache\s+folder"):
        featcache.import_features(
            np.zeros((1, 2), np.float32),
            ["0" * 64],
            featcache.ImportedModel("dino", source="a script"),
            cache_dir=url,
        )


def test_a_url_that_cannot_be_a_cache_is_refused(photos: Path, tmp_path: Path) -> None:
    for url in ("https://example.org/cache", "s3://key:secret@bucket/cache"):
        with pytest.raises(InvalidRequest):
            extract("pocket", photos, cache_dir=url, **OPTIONS)
    with pytest.raises(InvalidRequest) as caught:
        local_cache("s3://key:secret@bucket/cache")
    assert "secret" not in str(caught.value)
    assert BucketPlace.of(tmp_path, "memory://b/c/", "x").location == "memory://b/c/stores/x"
