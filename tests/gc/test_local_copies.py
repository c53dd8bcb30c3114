"""Local copies of stores in object stores: bounded together, and removed by age and size."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from featcache._io.cache_dirs import stores_folder
from featcache.gc.collect import collect
from featcache.store.bucket.local_copies import copies_bytes, copies_in, copy_folders, last_opened
from featcache.store.bucket.push import push_rows
from featcache.store.bucket.store import BucketStore, find_bucket_store, mirror_folder
from featcache.store.store import Store
from stores import HALF, SPEC, WIDTH, filled, ids_of, rows_of, shards

pytest.importorskip("fsspec", reason="fsspec is not installed")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A bucket with two stores of three shards."""
    url = f"file://{tmp_path}/bucket"
    for spec in (SPEC, HALF):
        store = Store.create(stores_folder(tmp_path / "a") / spec.folder, spec, WIDTH, {})
        push_rows(filled(store, (1,), (2,), (3,)), url, tmp_path / "a")
    return url


def opened(url: str, cache: Path, name: str = SPEC.folder) -> BucketStore:
    store = find_bucket_store(url, name, cache)
    assert store is not None
    return store


def make_older(folder: Path, days: float) -> None:
    for path in folder.iterdir():
        used = path.stat().st_mtime - 86400 * days
        os.utime(path, (used, used))


def test_all_stores_share_one_bound(url: str, tmp_path: Path) -> None:
    size = shards(Store(stores_folder(tmp_path / "a") / SPEC.folder))[0].stat().st_size
    cache = tmp_path / "b"
    old, new = opened(url, cache), opened(url, cache, HALF.folder)
    old.read(ids_of(1, 2, 3))
    make_older(old.folder, 1)
    limited = BucketStore(url, HALF.folder, new.folder, max_bytes=4 * size)
    limited.read(ids_of(1, 2, 3))
    assert len(copies_in(new.folder)) == 3
    assert len(copies_in(old.folder)) < 3
    assert copies_bytes(cache) <= 4 * size
    assert np.array_equal(old.read(ids_of(1, 2, 3)), rows_of(1, 2, 3))


def test_copies_are_removed_by_age(url: str, tmp_path: Path) -> None:
    cache = tmp_path / "b"
    old, new = opened(url, cache), opened(url, cache, HALF.folder)
    for store in (old, new):
        store.read(ids_of(1, 2))
    make_older(old.folder, 5)
    assert collect(cache, unused_days=6) == []
    would = collect(cache, unused_days=4, dry_run=True)
    assert old.folder.is_dir()
    (found,) = collect(cache, unused_days=4)
    assert [found] == would
    assert found.name == old.folder.relative_to(cache).as_posix()
    assert (found.rows, found.bytes > 1000) == (0, True)
    assert "not used for 5.0 days" in found.reason
    assert copy_folders(cache) == [new.folder]
    assert np.array_equal(old.read(ids_of(2)), rows_of(2))  # opened before
    make_older(old.folder, 5)
    make_older(new.folder, 5)
    assert len(collect(cache, unused_days=4)) == 2
    assert list((cache / "shared").iterdir()) == []


def test_copies_are_removed_before_stores(url: str, tmp_path: Path) -> None:
    cache = tmp_path / "a"
    store, kept = opened(url, cache), Store(stores_folder(cache) / SPEC.folder)
    store.read(ids_of(1, 2, 3))
    make_older(store.folder, 0.5)
    store.read(ids_of(2))
    one = copies_in(store.folder)[0].size
    stores = sum(Store(stores_folder(cache) / s.folder).size_on_disk() for s in (SPEC, HALF))
    would = collect(cache, max_bytes=stores + one, dry_run=True)
    (found,) = collect(cache, max_bytes=stores + one)
    assert [found] == would
    assert "2 copies of shards" in found.reason
    assert found.bytes == 2 * one
    assert len(copies_in(store.folder)) == 1
    assert len(kept) == 3
    names = [removal.name for removal in collect(cache, max_bytes=0)]
    assert names[0].startswith("shared/")
    assert len(names) == 3
    assert np.array_equal(store.read(ids_of(3, 1)), rows_of(3, 1))
    assert collect(cache, max_bytes=0, names=[]) == []


def test_other_files_are_no_copies(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folder = mirror_folder(cache, "s3://a/b", SPEC.folder)
    folder.mkdir(parents=True)
    (folder / "photos.h5").write_bytes(b"of a user")
    (folder / f"{'0' * 8}-000001-1-{'0' * 64}.h5").symlink_to(tmp_path / "elsewhere")
    (folder.parent / "notes").mkdir()
    (cache / "shared" / "mine" / SPEC.folder).mkdir(parents=True)
    (cache / "shared" / ("0" * 16)).symlink_to(folder.parent)
    (folder.parent / HALF.folder).symlink_to(folder)
    assert copy_folders(cache) == [folder]
    assert copies_in(folder) == []
    assert collect(cache, max_bytes=0) == []
    assert time.time() - last_opened(tmp_path / "nowhere") < 60
