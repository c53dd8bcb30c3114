"""Kills workers and clients of a cluster while they extract, and counts what was lost.

``python tests/faults/cluster_kills.py --kills 100`` prints the counts; exit status 1 if a row that
was committed is lost, or a row is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, LocalCluster, Worker
from PIL import Image

import featcache
from featcache.extraction import runner
from featcache.hdf5.shard_name import rows_in_name
from featcache.store.manifest import NAME as MANIFEST_NAME
from featcache.store.recovery import find_shards

IMAGES = 128
OPTIONS: dict[str, Any] = {"engine": "openvino", "batch_size": 4, "progress": False}
SECONDS_PER_BATCH = 0.1


@dataclass
class Counts:
    """What came of the kills."""

    workers: int = 0
    clients: int = 0
    rounds: int = 0
    restarts: int = 0
    acknowledged: int = 0
    lost: int = 0
    wrong: int = 0
    twice: int = 0
    damaged: int = 0

    @property
    def kills(self) -> int:
        return self.workers + self.clients

    @property
    def passed(self) -> bool:
        return not (self.lost or self.wrong or self.damaged)

    def __str__(self) -> str:
        return (
            f"{self.workers} workers and {self.clients} clients killed in {self.rounds} "
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


def committed(cache: Path) -> set[str]:
    """Return the ids of all rows that are in the store by now."""
    return {
        image_id
        for folder in (cache / "stores").glob("*")
        if find_shards(folder) and (folder / MANIFEST_NAME).exists()
        for image_id in featcache.open_store(folder).ids()
    }


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

    def _extract_once(self) -> None:
        cache = self.folder / f"cache-{self.counts.rounds}"
        cache.mkdir()
        for known in ("engines", "weights"):  # so that nobody has to build the network
            (cache / known).symlink_to(self.folder / "here" / known)
        arguments = (self.address, self.photos, str(cache))
        acknowledged: set[str] = set()
        while True:
            process = self.processes.Process(target=extract, args=arguments)
            process.start()
            while process.is_alive():
                process.join(self.random.uniform(0.05, 0.5))
                now = committed(cache)
                # Only after a new row, since a worker takes seconds to start.
                if process.is_alive() and now - acknowledged:
                    acknowledged |= now
                    self._kill(process)
            if process.exitcode == 0:
                break
            self.counts.restarts += 1
        self.counts.rounds += 1
        self.counts.acknowledged += len(acknowledged)
        self._check(cache, acknowledged)
        shutil.rmtree(cache)
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

    def _check(self, cache: Path, acknowledged: set[str]) -> None:
        """Compare the store with what this process has computed."""
        (folder,) = (cache / "stores").glob("*")
        store = featcache.open_store(folder)
        found = store.ids()
        self.counts.lost += len(acknowledged - set(found)) + len(set(self.ids) - set(found))
        rows_of = (rows_in_name(path.name) or 0 for path in find_shards(folder))
        self.counts.twice += sum(rows_of) - len(found)
        self.counts.damaged += len(featcache.verify(folder))
        rows = store.read(self.ids)
        close = np.abs(rows - self.expected) <= 1e-4 * np.abs(self.expected).max()
        self.counts.wrong += int((~close.all(axis=1)).sum())


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = Killer(Path(folder), arguments.seed).run(arguments.kills)
    print(counts)
    return 0 if counts.passed else 1


if __name__ == "__main__":
    sys.exit(main())
