"""A cache in a real object store: writers at once, kills, and servers that fail now and then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache import extract
from featcache._io.cache_dirs import stores_folder
from featcache.store.bucket.objects import Bucket
from featcache.store.bucket.push import push_rows
from featcache.store.bucket.store import find_bucket_store
from featcache.store.store import Store
from featcache.store.transfer import copy_rows
from stores import SPEC, WIDTH, filled, ids_of, rows_of

pytestmark = [pytest.mark.s3, pytest.mark.usefixtures("s3_files")]

PUSH = """
import sys
from pathlib import Path
from featcache.store.bucket.push import push_rows
from featcache.store.store import Store
source, url, cache = sys.argv[1:]
print("ready", flush=True)
print(push_rows(Store(source), url, Path(cache), progress=False).rows, flush=True)
"""


def make(cache: Path, *batches: tuple[int, ...]) -> Store:
    store = Store.create(stores_folder(cache) / SPEC.folder, SPEC, WIDTH, {"backbone": "tiny"})
    return filled(store, *batches)


def test_an_object_is_created_once() -> None:
    bucket = Bucket("s3://photos/once")
    assert bucket.create("a/b", b"first")
    assert not bucket.create("a/b", b"second")
    assert bucket.read("a/b", 100) == b"first"
    assert bucket.read("a/c", 100) is None
    assert bucket.objects("a") == {"b": 5}
    assert bucket.objects("nothing") == {}
    assert bucket.folders("") == ["a"]
    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(lambda n: bucket.create("race", b"%d" % n), range(16)))
    assert created.count(True) == 1


def test_writers_at_once_and_a_reader(tmp_path: Path) -> None:
    url = "s3://photos/at-once"
    sources = [
        make(tmp_path / str(n), *[(100 * n + i, 100 * n + 50 + i) for i in range(5)])
        for n in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(lambda s: push_rows(s, url, s.folder.parent.parent, progress=False), sources)
        )
    assert [one.rows for one in done] == [10] * 4
    store = find_bucket_store(url, SPEC.folder, tmp_path / "reader")
    assert store is not None
    assert len(store) == 40
    numbers = [100 * n + i for n in range(4) for i in range(5)]
    assert np.array_equal(store.read(ids_of(*numbers)), rows_of(*numbers))
    assert copy_rows(store, tmp_path / "reader").rows == 40


def test_an_extraction_uses_a_bucket(photos: Path, tiny_model: Any, tmp_path: Path) -> None:
    url = "s3://photos/shared"
    cats = extract(tiny_model, photos / "cat", cache_dir=tmp_path / "a")
    push_rows(Store(cats.summary.folder), url, tmp_path / "a")
    features = extract(tiny_model, photos, shared_dir=url)
    assert features.summary.stored == len(cats)
    assert np.array_equal(extract(tiny_model, photos, shared_dir=url).X, features.X)


def test_killed_pushes_lose_no_row_that_was_listed(tmp_path: Path) -> None:
    url = "s3://photos/killed"
    source = make(tmp_path / "a", *[(i, 1000 + i) for i in range(200)])
    command = [sys.executable, "-c", PUSH, str(source.folder), url, str(tmp_path / "a")]
    generator = np.random.default_rng(0)
    seen: set[str] = set()
    kills = 0
    for _ in range(40):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(float(generator.uniform(0.1, 1.5)))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        store = find_bucket_store(url, SPEC.folder, tmp_path / "reader")
        now = set() if store is None else set(store.ids())
        assert seen <= now
        seen = now
        if len(seen) == 400:
            break
    assert kills > 2
    assert push_rows(source, url, tmp_path / "a").rows == 400 - len(seen)
    store = find_bucket_store(url, SPEC.folder, tmp_path / "reader")
    assert store is not None
    everything = [*range(200), *range(1000, 1200)]
    assert np.array_equal(store.read(ids_of(*everything)), rows_of(*everything))
    assert store.damaged == []
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in repr(store)
