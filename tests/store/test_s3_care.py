"""Merges and garbage collection in a real object store, killed before each of their requests."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from featcache._io.cache_dirs import stores_folder
from featcache.store.bucket import leases, manifests
from featcache.store.bucket.collection import collect_objects
from featcache.store.bucket.compaction import compact_bucket
from featcache.store.bucket.leases import BucketLease, bucket_lease, claims_folder, server_time
from featcache.store.bucket.manifests import store_prefix
from featcache.store.bucket.objects import Bucket
from featcache.store.bucket.push import push_rows
from featcache.store.bucket.store import BucketStore, find_bucket_store, mirror_folder
from featcache.store.bucket.verification import repair_bucket, verify_bucket
from featcache.store.bucket.writable import WritableBucketStore
from featcache.store.store import Store
from stores import SPEC, WIDTH, filled, ids_of, rows_of

pytestmark = [pytest.mark.s3, pytest.mark.usefixtures("s3_files"), pytest.mark.timeout(600)]

NAME = SPEC.folder
# Leases count as expired: the next process does not wait for that of a killed one.
EXPIRED = {"LIFETIME": -1.0, "_RENEWALS": -0.001}

KILLED = """
import os, signal, sys
from pathlib import Path
from featcache.store.bucket import leases
from featcache.store.bucket.collection import collect_objects
from featcache.store.bucket.compaction import compact_bucket
from featcache.store.bucket.objects import Bucket
from featcache.store.bucket.store import BucketStore
action, url, name, mirror, left = sys.argv[1:]
leases.LIFETIME, leases._RENEWALS, left = -1.0, -0.001, int(left)
def killing(method):
    def request(*arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*arguments)
    return request
store = BucketStore(url, name, Path(mirror))
Bucket.create, Bucket.remove = killing(Bucket.create), killing(Bucket.remove)
if action == "merge":
    compact_bucket(store, many=2)
else:
    found = collect_objects(store.bucket, name, store.folder, grace=0)
    assert not found.kept, found.kept
"""


def push(url: str, cache: Path, *batches: tuple[int, ...]) -> None:
    store = Store.create(stores_folder(cache) / NAME, SPEC, WIDTH, {"backbone": "tiny"})
    push_rows(filled(store, *batches), url, cache, progress=False)


def opened(url: str, cache: Path) -> BucketStore:
    store = find_bucket_store(url, NAME, cache)
    assert store is not None
    return store


def check(store: BucketStore, count: int) -> None:
    numbers = [*range(count)]
    assert np.array_equal(store.read(ids_of(*numbers)), rows_of(*numbers))
    assert len(store) == count
    assert store.damaged == []


def run_killed(action: str, url: str, folder: Path, prepare: Callable[[int], int]) -> int:
    """Run an action, killed before its first request, its second and so on, until it is done.

    After each kill, a reader that opened the store before and a new one find all rows.
    """
    for left in range(100):
        count = prepare(left)
        early = opened(url, folder / "early")
        mirror = mirror_folder(folder / "child", url, NAME)
        words = [action, url, NAME, str(mirror), str(left)]
        done = subprocess.run([sys.executable, "-c", KILLED, *words], check=False)
        check(early, count)
        check(opened(url, folder / "new"), count)
        if done.returncode == 0:
            return left
        assert done.returncode == -signal.SIGKILL
    raise AssertionError("it was never done")


def test_a_killed_merge_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "s3://photos/merge"
    monkeypatch.setattr(manifests, "SNAPSHOT_EVERY", 5)

    def prepare(left: int) -> int:
        push(url, tmp_path / f"{left}", (2 * left,), (2 * left + 1,))
        return 2 * left + 2

    assert run_killed("merge", url, tmp_path, prepare) > 4
    store = opened(url, tmp_path / "end")
    assert len(store.shard_names) == 1
    assert verify_bucket(store.bucket, NAME, store.folder) == []


def test_a_killed_collection_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "s3://photos/collect"
    monkeypatch.setattr(manifests, "SNAPSHOT_EVERY", 5)
    for name, value in EXPIRED.items():
        monkeypatch.setattr(leases, name, value)

    def prepare(left: int) -> int:
        push(url, tmp_path / f"{left}", (2 * left,), (2 * left + 1,))
        assert compact_bucket(opened(url, tmp_path / "merger"), many=2) >= 2
        return 2 * left + 2

    assert run_killed("collect", url, tmp_path, prepare) > 8
    store = opened(url, tmp_path / "end")
    time.sleep(1.1)  # the server gives times in seconds
    assert collect_objects(store.bucket, NAME, store.folder, grace=0).kept == []
    there = {n for n in store.bucket.objects(store_prefix(NAME)) if n.endswith(".h5")}
    assert there == set(store.manifest.shards)


def test_one_of_many_gets_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket("s3://photos/lease")
    for _ in range(3):
        several = [BucketLease(bucket, claims_folder("tiny"), "exclusive") for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            acquired = list(pool.map(BucketLease.acquire, several))
        assert acquired.count(True) == 1
        held = several[acquired.index(True)]
        held.renew()
        held.check()
        held.release()
    now, _ = server_time(bucket, claims_folder("tiny"))
    assert abs(now - time.time()) < 60
    with bucket_lease(bucket, "tiny"):
        monkeypatch.setattr(leases, "LIFETIME", 2.0)
        deadline = time.monotonic() + 30
        other = BucketLease(bucket, claims_folder("tiny"), "exclusive")
        while not other.acquire() and time.monotonic() < deadline:
            time.sleep(0.5)
        assert other.still_held()  # the first was not renewed in time


@pytest.mark.parametrize("content", [b"damaged", b""])
def test_a_damaged_shard_is_replaced(content: bytes, tmp_path: Path, s3_files) -> None:  # type: ignore[no-untyped-def]
    url = f"s3://photos/repair-{len(content)}"
    push(url, tmp_path / "a", (0, 1), (2,))
    store = opened(url, tmp_path / "b")
    (bad,) = [name for name in store.shard_names if "-2-" in name]
    s3_files.pipe(f"{url.removeprefix('s3://')}/{store_prefix(NAME)}/{bad}", content)
    (found,) = repair_bucket(store.bucket, NAME, store.folder)
    assert (found.name, found.rows) == (bad, 2)
    assert verify_bucket(store.bucket, NAME, store.folder) == []
    push(url, tmp_path / "a")
    check(opened(url, tmp_path / "c"), 3)


def test_writers_merges_and_collections_at_once(tmp_path: Path) -> None:
    url, writers, each = "s3://photos/at-once", 3, 12
    push(url, tmp_path / "first", (0,))

    def write(number: int) -> None:
        mirror = mirror_folder(tmp_path / f"w{number}", url, NAME)
        store = WritableBucketStore(url, NAME, mirror)
        for n in range(each):
            row = 1 + number * each + n
            store.append(rows_of(row), ids_of(row))
            if n % 4 == 3:
                compact_bucket(opened(url, tmp_path / f"m{number}"), many=4)

    def collect(_: int) -> None:
        store = opened(url, tmp_path / "collector")
        for _ in range(6):
            collect_objects(store.bucket, NAME, store.folder, grace=3.0)
            time.sleep(0.5)

    with ThreadPoolExecutor(writers + 1) as pool:
        tasks = [pool.submit(write, number) for number in range(writers)]
        tasks.append(pool.submit(collect, 0))
        for task in tasks:
            task.result()
    store = opened(url, tmp_path / "end")
    check(store, 1 + writers * each)
    time.sleep(2)
    found = collect_objects(store.bucket, NAME, store.folder, grace=0)
    assert found.kept == []
    check(opened(url, tmp_path / "last"), 1 + writers * each)
    assert verify_bucket(store.bucket, NAME, store.folder) == []
