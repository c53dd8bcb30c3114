"""Kills workers and clients of a cluster while they extract, and counts what was lost.

``python tests/faults/cluster_kills.py --kills 100`` prints the counts; exit status 1 if a row that
was committed is lost, or a row is wrong. With ``--bucket`` the cache is in an object store
(SeaweedFS), whose server is killed too, and started again on its data.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, LocalCluster, Worker
from PIL import Image

import featcache
from featcache.extraction import runner
from featcache.hdf5.shard_name import rows_in_name
from featcache.store.bucket.store import find_bucket_store
from featcache.store.manifest import NAME as MANIFEST_NAME
from featcache.store.recovery import find_shards
from featcache.store.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from s3_server import ObjectServer

IMAGES = 128
OPTIONS: dict[str, Any] = {"engine": "openvino", "batch_size": 4, "progress": False}
SECONDS_PER_BATCH = 0.1


@dataclass
class Counts:
    """What came of the kills."""

    workers: int = 0
    clients: int = 0
    servers: int = 0
    rounds: int = 0
    restarts: int = 0
    acknowledged: int = 0
    lost: int = 0
    wrong: int = 0
    twice: int = 0
    damaged: int = 0

    @property
    def kills(self) -> int:
        return self.workers + self.clients + self.servers

    @property
    def passed(self) -> bool:
        return not (self.lost or self.wrong or self.damaged)

    def __str__(self) -> str:
        return (
            f"{self.workers} workers, {self.clients} clients and {self.servers} servers killed in "
            f"{self.rounds} "
            f"extractions of {IMAGES} images, which were started again {self.restarts} times: of "
            f"{self.acknowledged} rows that were committed before a kill {self.lost} lost; "
            f"{self.wrong} wrong rows, {self.damaged} damaged files; {self.twice} rows stored "
            "twice, of which readers see one"
        )


def work(address: str) -> None:
    """Work for a scheduler, with batches that take a while, until this process is killed."""
    real = runner.Computation._forward

    def slowly(self: Any, batch: Any) -> Any:
        time.sleep(SECONDS_PER_BATCH)
        return real(self, batch)

    runner.Computation._forward = slowly  # type: ignore[method-assign]

    async def serve() -> None:
        async with Worker(address, nthreads=1, dashboard=False) as worker:
            await worker.finished()

    asyncio.run(serve())


def extract(address: str, photos: str, cache: str) -> None:
    """Extract as a client of its own."""
    os.environ["TQDM_DISABLE"] = "1"
    with Client(address, set_as_default=False) as client:
        featcache.extract("pocket", photos, cache_dir=cache, client=client, task_size=16, **OPTIONS)


class Killer:
    """Runs extractions on a cluster and kills what runs them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random, self.counts = folder, random.Random(seed), Counts()
        for i in range(IMAGES):
            pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)
            path = folder / "photos" / f"{i:03d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
        self.photos = str(folder / "photos")
        here = featcache.extract("pocket", self.photos, cache_dir=folder / "here", **OPTIONS)
        self.expected, self.ids = np.asarray(here.X), list(here.ids)
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(
            ["featcache.extraction.extract", "featcache.extraction.cluster.worker", "distributed"]
        )

    def run(self, kills: int) -> Counts:
        """Extract again and again until there were so many kills."""
        with LocalCluster(
            n_workers=0, processes=False, dashboard_address=":0", protocol="tcp"
        ) as it:
            self.address = it.scheduler_address
            self.workers = [self._start_worker() for _ in range(2)]
            try:
                while self.counts.kills < kills:
                    self._extract_once()
            finally:
                for worker in self.workers:
                    worker.kill()
                    worker.join()
        return self.counts

    def _start_worker(self) -> Any:
        process = self.processes.Process(target=work, args=(self.address,))
        process.start()
        return process

    def new_cache(self, number: int) -> Any:
        """Return the path of an empty cache."""
        return self._without_network(self.folder / f"cache-{number}")

    def _without_network(self, cache: Path) -> Path:
        """Make a cache folder of which nobody has to build the network."""
        cache.mkdir()
        for known in ("engines", "weights"):
            (cache / known).symlink_to(self.folder / "here" / known)
        return cache

    def remove(self, cache: Any) -> None:
        """Remove a cache."""
        shutil.rmtree(cache)

    def stores(self, cache: Any) -> list[Store]:
        """Open the store in a cache, if there is one."""
        return [
            featcache.open_store(folder)
            for folder in (cache / "stores").glob("*")
            if find_shards(folder) and (folder / MANIFEST_NAME).exists()
        ]

    def committed(self, cache: Any) -> set[str]:
        """Return the ids of all rows that are in the store by now."""
        return {image_id for store in self.stores(cache) for image_id in store.ids()}

    def rows_and_damage(self, store: Store) -> tuple[int, int]:
        """Return how many rows the shards of a store have together, and how many are damaged."""
        rows_of = (rows_in_name(path.name) or 0 for path in find_shards(store.folder))
        return sum(rows_of), len(featcache.verify(store.folder))

    def _extract_once(self) -> None:
        cache = self.new_cache(self.counts.rounds)
        arguments = (self.address, self.photos, str(cache))
        acknowledged: set[str] = set()
        while True:
            process = self.processes.Process(target=extract, args=arguments)
            process.start()
            while process.is_alive():
                process.join(self.random.uniform(0.05, 0.5))
                now = self.committed(cache)
                # Only after a new row, since a worker takes seconds to start.
                if process.is_alive() and now - acknowledged:
                    acknowledged |= now
                    self._kill(process)
                elif process.is_alive():
                    self._disturb()
            if process.exitcode == 0:
                break
            self.counts.restarts += 1
        self.counts.rounds += 1
        self.counts.acknowledged += len(acknowledged)
        self._check(cache, acknowledged)
        self.remove(cache)
        print(self.counts, flush=True)

    def _kill(self, client: Any) -> None:
        if self.random.random() < 0.25:
            client.kill()
            self.counts.clients += 1
            return
        number = self.random.randrange(len(self.workers))
        self.workers[number].kill()
        self.workers[number].join()
        self.workers[number] = self._start_worker()
        self.counts.workers += 1

    def _disturb(self) -> None:
        """Do what may be done at any time."""

    def _check(self, cache: Any, acknowledged: set[str]) -> None:
        """Compare the store with what this process has computed."""
        (store,) = self.stores(cache)
        found = store.ids()
        self.counts.lost += len(acknowledged - set(found)) + len(set(self.ids) - set(found))
        stored, damaged = self.rows_and_damage(store)
        self.counts.twice += stored - len(found)
        self.counts.damaged += damaged
        rows = store.read(self.ids)
        close = np.abs(rows - self.expected) <= 1e-4 * np.abs(self.expected).max()
        self.counts.wrong += int((~close.all(axis=1)).sum())


class BucketKiller(Killer):
    """Runs extractions whose cache is in an object store, and kills its server too."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed)
        (folder / "weed").mkdir()
        self.server = ObjectServer(folder / "weed")
        own = self._without_network(folder / "own")
        # For the processes, which inherit it, and for this one.
        os.environ.update(self.server.environment(), FEATCACHE_CACHE=str(own))

    def run(self, kills: int) -> Counts:
        self.server.start()
        try:
            return super().run(kills)
        finally:
            self.server.kill()

    def new_cache(self, number: int) -> str:
        return f"s3://photos/cache-{number}"

    def remove(self, cache: Any) -> None:
        """Leave the objects, as others would; only the local copies are in the way."""
        shutil.rmtree(self.folder / "own" / "shared", ignore_errors=True)

    def stores(self, cache: Any) -> list[Store]:
        (name,) = (folder.name for folder in (self.folder / "here" / "stores").glob("*"))
        found = find_bucket_store(cache, name, self.folder / "reader")
        return [] if found is None else [found]

    def rows_and_damage(self, store: Any) -> tuple[int, int]:
        return sum(store.manifest.shards.values()), len(store.damaged)

    def _disturb(self) -> None:
        """Kill the server now and then, which is back soon."""
        if self.random.random() < 0.05:
            self.server.kill()
            self.counts.servers += 1
            time.sleep(self.random.uniform(0, 2))
            self.server.start()


@contextlib.contextmanager
def same_environment() -> Iterator[None]:
    """Context manager that restores the environment of this process."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bucket", action="store_true", help="keep the cache in an object store")
    arguments = parser.parse_args()
    for ending in (signal.SIGINT, signal.SIGTERM):  # workers and the server would stay
        signal.signal(ending, signal.default_int_handler)
    kind = BucketKiller if arguments.bucket else Killer
    with tempfile.TemporaryDirectory() as folder, same_environment():
        counts = kind(Path(folder), arguments.seed).run(arguments.kills)
    print(counts)
    return 0 if counts.passed else 1


if __name__ == "__main__":
    sys.exit(main())
