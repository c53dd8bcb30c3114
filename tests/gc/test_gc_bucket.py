"""Garbage collection of a cache in an object store."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import photo
from featcache._io.cache_dirs import stores_folder
from featcache.errors import InvalidRequest, StoreError, UnknownStore
from featcache.gc.bucket import collect_bucket
from featcache.images.image_file import content_id
from featcache.store.bucket import removal
from featcache.store.bucket.manifests import store_prefix
from featcache.store.bucket.push import push_rows
from featcache.store.bucket.store import bucket_stores
from featcache.store.store import Store
from stores import HALF, SPEC, WIDTH, filled, ids_of

pytest.importorskip("fsspec", reason="fsspec is not installed")

BOXES = replace(SPEC, resize="stretch-bilinear-box")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket"


def push(url: str, tmp_path: Path, *batches: tuple[int, ...], spec: Any = SPEC) -> None:
    store = Store.create(stores_folder(tmp_path / "a") / spec.folder, spec, WIDTH, {})
    push_rows(filled(store, *batches), url, tmp_path / "a")


def days_later(tmp_path: Path, days: float, spec: Any = None) -> None:
    for path in (tmp_path / "bucket").rglob("*" if spec is None else f"{spec.folder}/**/*"):
        modified = path.stat().st_mtime - days * 86400
        os.utime(path, (modified, modified))


def rows_left(url: str, tmp_path: Path) -> dict[str, int]:
    return {one.folder.name: len(one) for one in bucket_stores(url, [], tmp_path / "b")}


def test_stores_are_removed_by_age_and_size(url: str, tmp_path: Path) -> None:
    push(url, tmp_path, (1, 2), (3,))
    push(url, tmp_path, (1,), spec=HALF)
    cache = tmp_path / "c"
    assert collect_bucket(url, cache) == []
    days_later(tmp_path, 3, SPEC)
    assert collect_bucket(url, cache, unused_days=4) == []
    would = collect_bucket(url, cache, unused_days=2, dry_run=True)
    (found,) = collect_bucket(url, cache, unused_days=2)
    assert [found] == would
    assert (found.name, found.rows) == (SPEC.folder, 3)
    assert "not used for 3.0 days" in found.reason
    assert rows_left(url, tmp_path) == {SPEC.folder: 0, HALF.folder: 1}
    (found,) = collect_bucket(url, cache, max_bytes=10)
    assert (found.name, found.rows) == (HALF.folder, 1)
    assert "MiB in all, the limit is" in found.reason
    assert collect_bucket(url, cache, unused_days=0, max_bytes=0) == []
    days_later(tmp_path, 2)
    assert sum("objects of shards" in one.reason for one in collect_bucket(url, cache)) == 2
    folders = [tmp_path / "bucket" / store_prefix(spec.folder) for spec in (SPEC, HALF)]
    assert not [path for folder in folders for path in folder.glob("*.h5*")]


def test_rows_of_other_images_are_removed(url: str, tmp_path: Path) -> None:
    path = tmp_path / "photos" / "one.png"
    path.parent.mkdir()
    photo(path, 7)
    image_id = content_id(path.read_bytes())
    store = Store.create(stores_folder(tmp_path / "a") / SPEC.folder, SPEC, WIDTH, {})
    store.append(np.ones((1, WIDTH), np.float32), [image_id])
    push(url, tmp_path, (1,), (2,))
    push(url, tmp_path, (1,), spec=BOXES)
    found = collect_bucket(
        url, tmp_path / "c", keep_data=[path.parent], keep_ids=ids_of(2), grace_days=0
    )
    assert [one.rows for one in found] == [1, 0]
    assert [(one.name, one.failed) for one in found.kept] == [(BOXES.folder, False)]
    assert rows_left(url, tmp_path) == {SPEC.folder: 2, BOXES.folder: 1}
    (found,) = collect_bucket(url, tmp_path / "c", names=[BOXES.folder], keep_ids=[])
    assert (found.name, found.rows) == (BOXES.folder, 1)


def test_what_cannot_be_removed_is_kept_with_a_reason(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidRequest, match="0 or more"):
        collect_bucket(url, tmp_path, grace_days=-1)
    with pytest.raises(UnknownStore):
        collect_bucket(url, tmp_path, names=["resnet50"])
    push(url, tmp_path, (1,))
    push(url, tmp_path, (1,), spec=HALF)
    manifest = tmp_path / "bucket" / store_prefix(HALF.folder) / "manifest"
    (manifest / "change-0000000001.json").write_bytes(b"damaged")
    (tmp_path / "bucket" / store_prefix("other-0123456789abcdef")).mkdir(parents=True)

    def refused(*arguments: Any, **options: Any) -> None:
        raise StoreError("503")

    monkeypatch.setattr(removal, "change_shards", refused)
    found = collect_bucket(url, tmp_path / "c", max_bytes=0)
    assert found == []
    assert [(one.name, one.failed) for one in found.kept] == [
        (HALF.folder, True), (SPEC.folder, True)
    ]  # fmt: skip
    assert found.kept[1].reason == "503"
