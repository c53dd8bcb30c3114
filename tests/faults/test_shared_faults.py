"""Shared caches, on disks that are full or read-only, and while garbage is collected."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featcache
from conftest import photo
from featcache.errors import FeatcacheError, StoreError, StoreWriteError
from featcache.store.bucket.push import push_rows
from featcache.store.store import Store
from featcache.store.transfer import copy_rows

pytest.importorskip("fsspec", reason="fsspec is not installed")

pytestmark = pytest.mark.slow

OPTIONS: dict[str, Any] = {"engine": "keras", "batch_size": 4, "progress": False}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk; return the file to remove."""
    filler = disk / "filler"
    with contextlib.suppress(OSError):
        filler.write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
    return filler


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Forty photos, and their rows."""
    root = tmp_path_factory.mktemp("whole")
    for i in range(40):
        photo(root / "photos" / ("cat" if i % 2 else "dog") / f"{i:02d}.png", i)
    return featcache.extract("pocket", root / "photos", cache_dir=root / "cache", **OPTIONS)


def photos_of(whole: Any) -> Path:
    return Path(whole.paths[0]).parents[1]


def check(found: Any, whole: Any) -> None:
    assert list(found.ids) == list(whole.ids)
    assert list(found.y) == list(whole.y)
    np.testing.assert_allclose(found.X[:], whole.X[:], atol=1e-4)


@pytest.fixture
def bucket(whole: Any, tmp_path: Path) -> str:
    """A bucket with all rows."""
    url = f"file://{tmp_path}/bucket"
    push_rows(Store(whole.summary.folder), url, tmp_path / "pusher")
    return url


def test_a_full_disk_for_local_copies_is_said_and_then_read(
    whole: Any, bucket: str, disk: Path
) -> None:
    filler = fill(disk)
    with pytest.raises(FeatcacheError, match=r"No space left|bytes free"):
        featcache.extract(
            "pocket", photos_of(whole), cache_dir=disk, shared_dir=bucket, **OPTIONS
        ).X[:]
    filler.unlink()
    found = featcache.extract(
        "pocket", photos_of(whole), cache_dir=disk, shared_dir=bucket, **OPTIONS
    )
    assert found.summary.computed == 0
    shutil.rmtree(disk / "shared")
    filler = fill(disk)
    with pytest.raises(FeatcacheError, match="No space left"):
        found.X[:]
    filler.unlink()
    check(found, whole)


def test_a_full_disk_while_rows_are_pulled_loses_none(whole: Any, bucket: str, disk: Path) -> None:
    from featcache.store.bucket.store import find_bucket_store

    source = find_bucket_store(bucket, Path(whole.summary.folder).name, disk.parent / "mirror")
    assert source is not None
    filler = fill(disk)
    with pytest.raises((StoreError, StoreWriteError)):
        copy_rows(source, disk)
    filler.unlink()
    assert copy_rows(source, disk).rows == len(whole.ids)


def test_a_read_only_folder_for_local_copies_is_said(whole: Any, bucket: str, disk: Path) -> None:
    remount(disk, "ro")
    try:
        with pytest.raises(FeatcacheError, match="Read-only file system"):
            featcache.extract(
                "pocket", photos_of(whole), cache_dir=disk, shared_dir=bucket, **OPTIONS
            )
    finally:
        remount(disk, "rw")


def test_local_copies_on_a_disk_that_became_read_only_are_read(
    whole: Any, bucket: str, disk: Path
) -> None:
    first = featcache.extract(
        "pocket", photos_of(whole), cache_dir=disk, shared_dir=bucket, **OPTIONS
    )
    check(first, whole)
    remount(disk, "ro")
    try:
        check(first, whole)
        again = featcache.extract(
            "pocket", photos_of(whole), cache_dir=disk, shared_dir=bucket, **OPTIONS
        )
        check(again, whole)
    finally:
        remount(disk, "rw")


def test_contenders_use_a_shared_cache(
    whole: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench

    monkeypatch.setenv("FEATCACHE_SHARED", bucket)
    images = bench.Images(tuple(whole.paths), tuple(whole.ids))
    contender = bench.CachedHead("pocket", "logistic")
    contender.prepare(images, progress=False)
    contender.fit(images, np.asarray(whole.y), 2, progress=False)
    assert contender.predict_proba(images).shape == (len(whole.ids), 2)
    assert not list((tmp_path / "cache").glob("stores/*"))


def test_a_bundle_predicts_over_a_shared_cache(
    whole: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heads import LogisticHead

    bundle = featcache.make_bundle(whole, LogisticHead().fit(whole.X, whole.labels))
    here = bundle.predict(photos_of(whole), cache_dir=whole.summary.folder.parents[1])
    monkeypatch.setenv("FEATCACHE_SHARED", bucket)
    there = bundle.predict(photos_of(whole))
    for one, other in zip(there, here, strict=True):
        assert one.path == other.path
        assert one.top_classes[0][0] == other.top_classes[0][0]
        assert one.top_classes[0][1] == pytest.approx(other.top_classes[0][1], abs=1e-4)
    assert not list((tmp_path / "cache").glob("stores/*"))


@pytest.mark.distributed
@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_cluster_over_a_shared_cache(kind: str, whole: Any, tmp_path: Path) -> None:
    import distributed

    shared: Any = tmp_path / "shared"
    featcache.extract("pocket", photos_of(whole) / "cat", cache_dir=shared, **OPTIONS)
    if kind == "bucket":
        (folder,) = (shared / "stores").iterdir()
        shared = f"file://{tmp_path}/bucket"
        push_rows(Store(folder), shared, tmp_path / "pusher")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        found = featcache.extract(
            "pocket", photos_of(whole), client=client, shared_dir=shared, task_size=4, **OPTIONS
        )
    assert (found.summary.stored, found.summary.computed) == (20, 20)
    check(found, whole)


@pytest.mark.distributed
def test_a_full_disk_of_a_worker_is_named_and_the_next_call_goes_on(whole: Any, disk: Path) -> None:
    import distributed

    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        arguments: dict[str, Any] = {
            "cache_dir": disk, "client": client, "task_size": 4, **OPTIONS,
        }  # fmt: skip
        featcache.extract("pocket", photos_of(whole) / "cat", **arguments)
        filler = fill(disk)
        with pytest.raises(StoreError, match=r"No space left|bytes free"):
            featcache.extract("pocket", photos_of(whole), **arguments)
        filler.unlink()
        found = featcache.extract("pocket", photos_of(whole), **arguments)
    assert found.summary.stored >= 20
    check(found, whole)


def test_gc_at_the_same_time_takes_no_row_of_an_extraction(
    whole: Any, bucket: str, tmp_path: Path
) -> None:
    """Everything may go, local copies too, while extractions read and write."""
    from featcache.cli import main

    stop = threading.Event()
    cache = tmp_path / "own"
    done = []

    def collect() -> None:
        while not stop.is_set():
            done.append(main(["gc", "--cache-dir", str(cache), "--keep", "0"]))

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for _ in range(4):
            check(
                featcache.extract(
                    "pocket", photos_of(whole), cache_dir=cache, shared_dir=bucket, **OPTIONS
                ),
                whole,
            )
    finally:
        stop.set()
        thread.join()
    assert done
