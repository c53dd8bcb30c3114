"""The cache itself in a real object store: extractions at once, kills, and a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featcache
from conftest import photo
from featcache import extract
from featcache.errors import StoreError
from featcache.store.bucket.place import BucketPlace
from stores import SPEC, WIDTH, ids_of, rows_of

pytestmark = [pytest.mark.s3, pytest.mark.usefixtures("s3_files")]

OPTIONS: dict[str, Any] = {"engine": "keras", "batch_size": 4, "progress": False}

APPEND = """
import sys
from pathlib import Path
from featcache.errors import StoreError
from featcache.store.bucket.place import BucketPlace
from stores import SPEC, WIDTH, ids_of, rows_of
url, cache, first = sys.argv[1:]
store = BucketPlace.of(Path(cache), url, SPEC.folder).create(SPEC, WIDTH, {})
for number in range(int(first), int(first) + 1000):
    store.append(rows_of(number), ids_of(number))
    print(number, flush=True)
"""


def place(url: str, cache: Path) -> BucketPlace:
    return BucketPlace.of(cache, url, SPEC.folder)


def test_an_extraction_writes_to_a_bucket(photos: Path, tiny_model: Any, tmp_path: Path) -> None:
    url = "s3://photos/cache"
    (photos / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    here = extract(tiny_model, photos, cache_dir=tmp_path / "here", **OPTIONS)
    there = extract(tiny_model, photos, cache_dir=url, **OPTIONS)
    np.testing.assert_array_equal(there.X, here.X)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATCACHE_CACHE", str(tmp_path / "another machine"))
        again = extract(tiny_model, photos, cache_dir=url, **OPTIONS)
        np.testing.assert_array_equal(again.X, here.X)
        assert (again.summary.stored, again.quarantined) == (12, here.quarantined)


def test_a_bucket_that_does_not_exist_is_an_error(photos: Path, tiny_model: Any) -> None:
    with pytest.raises(StoreError, match="bucket does not exist"):
        extract(tiny_model, photos, cache_dir="s3://nowhere/cache", **OPTIONS)


def test_extractions_at_once_leave_right_rows(
    photos: Path, tiny_model: Any, tmp_path: Path
) -> None:
    url = "s3://photos/at-once-cache"
    here = extract(tiny_model, photos, cache_dir=tmp_path / "here", **OPTIONS)
    with ThreadPoolExecutor(3) as pool:
        found = list(
            pool.map(lambda _: extract(tiny_model, photos, cache_dir=url, **OPTIONS), range(3))
        )
    for one in found:
        np.testing.assert_allclose(one.X, here.X, atol=1e-5)
    assert len(featcache.open_store(found[0].summary.folder)) == 12


def test_killed_writers_lose_no_row_whose_commit_returned(tmp_path: Path) -> None:
    url, generator = "s3://photos/killed-cache", np.random.default_rng(0)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]),
                                                                *sys.path])}  # fmt: skip
    committed: set[int] = set()

    def run(first: int) -> None:
        command = [sys.executable, "-c", APPEND, url, str(tmp_path / str(first)), str(first)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            committed.add(int(process.stdout.readline()))
            time.sleep(float(generator.uniform(0.1, 1.5)))
            process.send_signal(signal.SIGKILL)
            committed.update(int(line) for line in process.stdout.read().split("\n") if line)

    for round_ in range(3):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(run, [10_000 * round_, 10_000 * round_ + 5_000]))
        found = place(url, tmp_path / f"reader-{round_}").open(SPEC, WIDTH, {})
        assert found is not None
        numbers = sorted(committed)
        assert np.array_equal(found.read(ids_of(*numbers)), rows_of(*numbers))
        assert found.damaged == []
        assert len(found) - len(numbers) <= 2 * (round_ + 1)  # those whose answer was not seen
    assert len(committed) > 20


@pytest.fixture
def client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_workers_without_a_shared_disk(client: Any, tmp_path: Path) -> None:
    url = "s3://photos/cluster-cache"
    for i in range(32):
        photo(tmp_path / "photos" / f"{i % 3}" / f"{i:03d}.png", i)
    here = extract("pocket", tmp_path / "photos", cache_dir=tmp_path / "here", **OPTIONS)

    def own_disk() -> None:
        import tempfile

        os.environ["FEATCACHE_CACHE"] = tempfile.mkdtemp()

    client.run(own_disk)
    there = extract(
        "pocket", tmp_path / "photos", cache_dir=url, client=client, task_size=8, **OPTIONS
    )
    np.testing.assert_allclose(there.X, here.X, atol=1e-4)
    assert (there.ids, there.summary.computed) == (here.ids, 32)
    again = extract("pocket", tmp_path / "photos", cache_dir=url, client=client, **OPTIONS)
    assert again.summary.computed == 0
