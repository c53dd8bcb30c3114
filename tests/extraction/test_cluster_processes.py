"""Extraction on a Dask cluster of processes: they are killed, slow, cancelled and lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featcache
from conftest import photo
from featcache.errors import ClusterError, WeightsUnavailable
from featcache.store.bucket import lister
from featcache.store.bucket.store import bucket_stores
from featcache.store.recovery import find_shards

distributed = pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.distributed,
    # Of Dask, when a process that it talks to is killed.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

OPTIONS: dict[str, Any] = {"engine": "openvino", "batch_size": 4, "progress": False}
IMAGES = 96


def slow_down(client: Any, seconds: float, poison: str = "") -> None:
    """Let each batch take a while, and a task with a certain image kill its worker."""

    class Slow(distributed.WorkerPlugin):  # type: ignore[misc]
        name = "slow"

        def setup(self, worker: Any) -> None:
            from featcache.extraction import runner
            from featcache.extraction.cluster import worker as module

            real = module.__dict__.setdefault("_real", module._compute)
            forward = runner.__dict__.setdefault("_real", runner.Computation._forward)

            def slowly(self: Any, batch: Any) -> Any:
                time.sleep(seconds)
                return forward(self, batch)

            def compute(task: Any, worker: Any) -> Any:
                if poison and any(path.endswith(poison) for path in task.locations):
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(task, worker)

            runner.Computation._forward = slowly  # type: ignore[method-assign]
            module._compute = compute

    client.register_plugin(Slow())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and a cache with the converted model."""
    folder = tmp_path_factory.mktemp("processes")
    for i in range(IMAGES):
        photo(folder / "photos" / f"{i % 3}" / f"{i:03d}.png", i)
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> Any:
    """What this process computes."""
    return featcache.extract("pocket", folder / "photos", cache_dir=folder / "here", **OPTIONS)


@pytest.fixture
def cache(folder: Path, expected: Any, tmp_path: Path) -> Path:
    """A cache without stores, with the converted model."""
    (tmp_path / "cache").mkdir()
    for known in ("engines", "weights"):  # so that nobody has to build the network
        (tmp_path / "cache" / known).symlink_to(folder / "here" / known)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two processes with one thread each; Dask starts killed ones again."""
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


def check_rows(features: Any, expected: Any) -> None:
    """What readers see is what this process computes: nothing lost, nothing double."""
    np.testing.assert_allclose(features.X, expected.X, atol=1e-4 * np.abs(expected.X).max())
    np.testing.assert_array_equal(features.y, expected.y)
    assert (features.ids, features.paths) == (expected.ids, expected.paths)
    store = featcache.open_store(features.summary.folder)
    assert sorted(store.ids()) == sorted(expected.ids)
    assert len(store) == IMAGES
    assert featcache.verify(features.summary.folder) == []


def count_shards(cache: Path) -> int:
    """Return the number of shards that were committed."""
    return sum(len(find_shards(store)) for store in (cache / "stores").glob("*"))


def once_committed(cache: Path, action: Callable[[], object]) -> threading.Thread:
    """Start a thread that acts once a few shards are there."""

    def watch() -> None:
        while count_shards(cache) < 3:
            time.sleep(0.02)
        action()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def pids(client: Any) -> list[int]:
    """Return the process ids of the workers."""
    return list(client.run(os.getpid).values())


def test_a_killed_worker_costs_no_committed_row(
    client: Any, folder: Path, expected: Any, cache: Path
) -> None:
    slow_down(client, 0.1)
    victim = pids(client)[0]
    kept: list[str] = []

    def kill() -> None:
        os.kill(victim, signal.SIGKILL)
        kept.extend(featcache.open_store(next((cache / "stores").glob("*"))).ids())

    thread = once_committed(cache, kill)
    found = featcache.extract(
        "pocket", folder / "photos", cache_dir=cache, client=client, task_size=16, **OPTIONS
    )
    thread.join()
    assert len(kept) >= 12
    assert set(kept) <= set(featcache.open_store(found.summary.folder).ids())
    check_rows(found, expected)
    assert victim not in pids(client)


def test_a_task_that_kills_its_workers_is_named_and_the_others_are_stored(
    client: Any, folder: Path, expected: Any, cache: Path
) -> None:
    slow_down(client, 0.0, poison="010.png")
    with pytest.raises(ClusterError, match="8 images could not be computed: ") as caught:
        featcache.extract(
            "pocket", folder / "photos", cache_dir=cache, client=client, task_size=8, **OPTIONS
        )
    assert "KilledWorker" in str(caught.value)
    assert len(caught.value.images) == 8
    assert any(name.endswith("010.png") for name in caught.value.images)
    slow_down(client, 0.0)
    found = featcache.extract(
        "pocket", folder / "photos", cache_dir=cache, client=client, **OPTIONS
    )
    assert (found.summary.stored, found.summary.computed) == (IMAGES - 8, 8)
    check_rows(found, expected)


def test_tasks_that_wait_in_a_killed_worker_are_not_named(
    folder: Path, expected: Any, cache: Path
) -> None:
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=4, processes=True, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        slow_down(client, 0.0, poison="010.png")
        with pytest.raises(ClusterError, match="8 images could not be computed: "):
            featcache.extract(
                "pocket", folder / "photos", cache_dir=cache, client=client, task_size=8, **OPTIONS
            )
    found = featcache.extract("pocket", folder / "photos", cache_dir=cache, **OPTIONS)
    assert (found.summary.stored, found.summary.computed) == (IMAGES - 8, 8)
    check_rows(found, expected)


def test_two_clients_at_once_leave_one_row_for_each_image(
    client: Any, folder: Path, expected: Any, cache: Path
) -> None:
    slow_down(client, 0.05)
    results: list[Any] = []

    def extract() -> None:
        results.append(
            featcache.extract(
                "pocket", folder / "photos", cache_dir=cache, client=client, task_size=16, **OPTIONS
            )
        )

    threads = [threading.Thread(target=extract) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found in results:
        check_rows(found, expected)
    assert len(results) == 2


def test_a_slow_worker_computes_less(client: Any, folder: Path, expected: Any, cache: Path) -> None:
    slow_down(client, 0.0)

    def crawl() -> None:
        from featcache.extraction import runner

        real = runner.Computation._forward

        def slowly(self: Any, batch: Any) -> Any:
            time.sleep(0.5)
            return real(self, batch)

        runner.Computation._forward = slowly  # type: ignore[method-assign]

    slow = next(iter(client.scheduler_info()["workers"]))
    client.run(crawl, workers=[slow])
    found = featcache.extract(
        "pocket", folder / "photos", cache_dir=cache, client=client, task_size=8, **OPTIONS
    )
    check_rows(found, expected)
    images = {worker.name: worker.images for worker in found.summary.workers}
    assert sum(images.values()) == IMAGES
    mine = sum(count for name, count in images.items() if slow in name)
    assert mine < IMAGES / 2


def test_a_worker_without_the_weights_is_named(
    client: Any, folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.backbones.pocket import FILE

    (tmp_path / "own.npz").write_bytes(FILE.read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsUnavailable, match=r"The worker \d .*cannot go on: There is no"):
        featcache.extract(
            "pocket", folder / "photos", weights="/proc/self/cwd/own.npz", cache_dir=cache,
            client=client, **OPTIONS,
        )  # fmt: skip
    assert count_shards(cache) == 0


def start(*arguments: str) -> Any:
    """Start a process of Dask."""
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments, "--dashboard-address", ":0"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def test_a_lost_scheduler_is_an_error_and_the_next_call_computes_the_rest(
    folder: Path, expected: Any, cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "scheduler.json"
    known = ("--scheduler-file", str(file))
    scheduler = start("scheduler", "--port", "0", "--host", "127.0.0.1", *known)
    worker = start("worker", "--nthreads", "1", "--no-nanny", *known)
    try:
        while not file.exists():
            time.sleep(0.1)
        lost = distributed.Client(scheduler_file=str(file), set_as_default=False, timeout=3)
        with lost as client:
            client.wait_for_workers(1)
            slow_down(client, 0.1)
            once_committed(cache, scheduler.kill)
            with pytest.raises(ClusterError, match="The scheduler of the cluster cannot be"):
                featcache.extract(
                    "pocket", folder / "photos", cache_dir=cache, client=client, task_size=16,
                    **OPTIONS,
                )  # fmt: skip
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    assert 3 <= count_shards(cache) < IMAGES / 4
    found = featcache.extract("pocket", folder / "photos", cache_dir=cache, **OPTIONS)
    assert found.summary.stored >= 12
    assert found.summary.stored + found.summary.computed == IMAGES
    check_rows(found, expected)


def test_ctrl_c_cancels_the_tasks_and_the_next_call_resumes(
    client: Any, folder: Path, expected: Any, cache: Path
) -> None:
    slow_down(client, 0.3)
    code = (
        "import featcache, sys\n"
        "from distributed import Client\n"
        f"client = Client({client.scheduler.address!r})\n"
        f"featcache.extract('pocket', {str(folder / 'photos')!r}, cache_dir={str(cache)!r},\n"
        f"    client=client, task_size=48, **{OPTIONS!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    once_committed(cache, lambda: process.send_signal(signal.SIGINT)).join()
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert process.returncode != 0
    deadline = time.monotonic() + 20
    while any(client.processing().values()) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    stopped = count_shards(cache)  # a task of 48 images would go on for 3.6 seconds
    time.sleep(1)
    assert 3 <= count_shards(cache) == stopped < IMAGES / 4
    found = featcache.extract(
        "pocket", folder / "photos", cache_dir=cache, client=client, **OPTIONS
    )
    assert found.summary.stored >= 12
    check_rows(found, expected)


# With the cache in an object store


CLIENT = """
import sys
import featcache
from dask.distributed import Client
from featcache.store.bucket import lister
lister.LIST_SECONDS = 0.2
address, photos, url = sys.argv[1:]
with Client(address) as client:
    featcache.extract("pocket", photos, cache_dir=url, client=client, task_size=16,
                      engine="openvino", batch_size=4, progress=False)
"""


@pytest.fixture
def bucket(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a cache in an object store; what is kept on disks is in `cache`."""
    pytest.importorskip("fsspec")
    monkeypatch.setenv("FEATCACHE_CACHE", str(cache))
    monkeypatch.setattr(lister, "LIST_SECONDS", 0.2)
    return f"file://{tmp_path}/bucket"


def listed_ids(url: str, elsewhere: Path) -> set[str]:
    """Return the ids of the rows that any reader finds."""
    return {i for store in bucket_stores(url, [], elsewhere) for i in store.ids()}


def once_listed(url: str, elsewhere: Path, action: Callable[[], object]) -> threading.Thread:
    """Start a thread that acts once a few rows are listed."""

    def watch() -> None:
        while len(listed_ids(url, elsewhere)) < 12:
            time.sleep(0.05)
        action()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def check_bucket(features: Any, expected: Any) -> None:
    np.testing.assert_allclose(features.X, expected.X, atol=1e-4 * np.abs(expected.X).max())
    assert (features.ids, features.paths) == (expected.ids, expected.paths)
    store = featcache.open_store(features.summary.folder)
    assert sorted(store.ids()) == sorted(expected.ids)
    assert store.damaged == []


def test_a_killed_worker_costs_no_row_that_was_listed(
    client: Any, folder: Path, expected: Any, bucket: str, tmp_path: Path
) -> None:
    client.run(os.environ.__setitem__, "FEATCACHE_CACHE", os.environ["FEATCACHE_CACHE"])
    slow_down(client, 0.2)
    victim = pids(client)[0]
    kept: list[str] = []

    def kill() -> None:
        os.kill(victim, signal.SIGKILL)
        kept.extend(listed_ids(bucket, tmp_path / "reader"))

    thread = once_listed(bucket, tmp_path / "watcher", kill)
    found = featcache.extract(
        "pocket", folder / "photos", cache_dir=bucket, client=client, task_size=16, **OPTIONS
    )
    thread.join()
    assert len(kept) >= 12
    assert set(kept) <= set(featcache.open_store(found.summary.folder).ids())
    check_bucket(found, expected)
    assert victim not in pids(client)
    again = featcache.extract(
        "pocket", folder / "photos", cache_dir=bucket, client=client, **OPTIONS
    )
    assert again.summary.computed == 0


def test_a_killed_client_costs_no_row_that_was_listed(
    client: Any, folder: Path, expected: Any, bucket: str, tmp_path: Path
) -> None:
    slow_down(client, 0.3)
    command = [sys.executable, "-c", CLIENT, client.scheduler.address, str(folder / "photos")]
    with subprocess.Popen([*command, bucket]) as process:
        once_listed(bucket, tmp_path / "watcher", process.kill).join(120)
        assert process.wait() == -signal.SIGKILL
    kept = listed_ids(bucket, tmp_path / "watcher")
    assert 12 <= len(kept) < IMAGES
    slow_down(client, 0.0)
    found = featcache.extract(
        "pocket", folder / "photos", cache_dir=bucket, client=client, task_size=16, **OPTIONS
    )
    assert found.summary.stored >= len(kept)
    assert kept <= set(featcache.open_store(found.summary.folder).ids())
    check_bucket(found, expected)
