"""A cluster and an object store behind a slow network that breaks now and then.

``python tests/faults/network_namespaces.py`` makes six machines, each a network namespace of this
computer: four workers, an object store, and a client with the scheduler. It prints the images per
second without and with 50 ms per round trip, and what became of extractions during which a machine
could not be reached for some seconds; exit status 1 if a row is missing or wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # also for the machines

from namespace_network import Network, reason_to_skip

from s3_server import ObjectServer

WORKERS = ("w0", "w1", "w2", "w3")
IMAGES, WARM = 128, 32
OPTIONS: dict[str, Any] = {
    "engine": "openvino", "batch_size": 4, "task_size": 8, "progress": False,
}  # fmt: skip
ROUND_TRIP = 0.05
BOUND_SECONDS = 180.0


def work(address: str, pause: str) -> None:
    """Work for a scheduler; each batch takes the seconds that a file holds longer."""
    import asyncio

    from distributed import Worker

    from featcache.extraction import runner

    real = runner.Computation._forward

    def slowly(self: Any, batch: Any) -> Any:
        time.sleep(float(Path(pause).read_text()))
        return real(self, batch)

    runner.Computation._forward = slowly  # type: ignore[method-assign]

    async def serve() -> None:
        async with Worker(address, nthreads=1, dashboard=False) as worker:
            await worker.finished()

    asyncio.run(serve())


def extract(address: str, data: str, cache: str, out: str) -> None:
    """Extract as a client, and write what came of it."""
    from distributed import Client

    import featcache

    with Client(address, set_as_default=False) as client:
        started = time.perf_counter()
        found = featcache.extract("pocket", data, cache_dir=cache, client=client, **OPTIONS)
        seconds = time.perf_counter() - started
    np.savez(
        out, X=np.asarray(found.X), ids=np.array(found.ids),
        seconds=seconds, failed=[one.reason for one in found.quarantined],
    )  # fmt: skip


def transfer(what: str, source: str, url: str, cache: str) -> None:
    """Push a store to a bucket, open it there, or upload a folder of images; print the seconds."""
    from featcache.store.bucket.push import push_rows
    from featcache.store.bucket.store import find_bucket_store
    from featcache.store.store import Store

    started = time.perf_counter()
    if what == "push":
        push_rows(Store(source), url, Path(cache), progress=False)
    elif what == "open":
        assert find_bucket_store(url, Path(source).name, Path(cache)) is not None
    else:
        import s3fs

        s3fs.S3FileSystem().put(f"{source}/", f"{url.removeprefix('s3://')}/", recursive=True)
    print(json.dumps(time.perf_counter() - started))


class _Server(ObjectServer):
    """An object store on another machine."""

    def put(self, name: str) -> bool:
        body = "yes" if name else ""
        code = (
            "import sys, urllib.error as e, urllib.request as r\n"
            f"request = r.Request('{self.url}/photos/{name}', b'{body}', method='PUT')\n"
            "try: r.urlopen(request, timeout=10)\n"
            "except e.HTTPError as error: sys.exit(error.code != 409)\n"
            "except OSError: sys.exit(1)\n"
        )
        command = [*self.prefix, sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True).returncode == 0


@dataclass
class Outcome:
    """What came of an extraction."""

    what: str
    seconds: float
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        speed = f"{IMAGES / self.seconds:6.1f} images per second ({self.seconds:.1f} s)"
        return f"{self.what:58} {speed}; {', '.join(self.problems) or 'all rows are right'}"


class Site:
    """The machines with their processes, until it is closed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._processes = folder, list[subprocess.Popen[bytes]]()
        self.pause = folder / "pause"
        self.pause.write_text("0")
        self._count = 0
        self._make_images()
        self._own = self._make_cache(folder / "own")

    def __enter__(self) -> Site:
        with contextlib.ExitStack() as stack:
            self.network = stack.enter_context(Network(["boss", "store", *WORKERS]))
            (self.folder / "weed").mkdir()
            self.server = _Server(
                self.folder / "weed", self.network.address("store"), self.network.prefix("store")
            )
            stack.callback(self._end)
            self.server.start()
            self.scheduler = f"tcp://{self.network.address('boss')}:8786"
            self._start("boss", "-m", "dask", "scheduler", "--no-dashboard", "--host",
                        self.network.address("boss"), "--port", "8786")  # fmt: skip
            for name in WORKERS:
                self.start_worker(name)
            self._upload()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self.server.kill()

    def start_worker(self, name: str) -> subprocess.Popen[bytes]:
        """Start the worker process of a machine."""
        return self._start(name, __file__, "worker", self.scheduler, str(self.pause))

    def _start(self, machine: str, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{machine}.log", "ab") as log:
            process = subprocess.Popen(
                [*self.network.prefix(machine), sys.executable, *arguments],
                env=self._environment(), stdout=log, stderr=log,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ, **self.server.environment(), "TQDM_DISABLE": "1",
            "FEATCACHE_CACHE": str(self._own),
            # A machine that is silent for longer is taken for dead.
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
        }  # fmt: skip

    def _make_images(self) -> None:
        import featcache

        for i in range(IMAGES + WARM):
            pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), np.uint8)
            path = self.folder / ("photos" if i < IMAGES else "warm") / f"{i:03d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path)
        options = {**OPTIONS, "cache_dir": self.folder / "here"}
        del options["task_size"]
        here = featcache.extract("pocket", self.folder / "photos", **options)
        self.expected = dict(zip(here.ids, np.asarray(here.X), strict=True))

    def _upload(self) -> None:
        for name in ("photos", "warm"):
            self.transfer("upload", self.folder / name, f"s3://photos/{name}", machine="store")

    def transfer(
        self, what: str, source: Path, url: str, cache: str = "own", machine: str = "boss"
    ) -> float:
        """Push, open or upload on a machine; return the seconds."""
        arguments = [what, str(source), url, str(self.folder / cache)]
        command = [*self.network.prefix(machine), sys.executable, __file__, *arguments]
        done = subprocess.run(
            command, env=self._environment(), check=True, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, timeout=BOUND_SECONDS,
        )  # fmt: skip
        return float(json.loads(done.stdout))

    def new_cache(self, *, in_bucket: bool = False) -> str:
        """Return a cache of which nobody has to build the network."""
        self._count += 1
        if in_bucket:
            return f"s3://photos/cache-{self._count}"
        return str(self._make_cache(self.folder / f"cache-{self._count}"))

    def _make_cache(self, cache: Path) -> Path:
        cache.mkdir()
        for known in ("engines", "weights"):
            (cache / known).symlink_to(self.folder / "here" / known)
        return cache

    def warm_up(self, data: str, cache: str) -> None:
        """Extract other images, so that all workers have loaded the network."""
        problems = self.extract(f"{data}warm", cache, "").problems
        assert not problems, problems

    def extract(self, data: str, cache: str, what: str) -> Outcome:
        """Extract on the cluster, and compare with an extraction without one."""
        out = self.folder / "out.npz"
        out.unlink(missing_ok=True)
        process = self._start("boss", __file__, "extract", self.scheduler, data, cache, str(out))
        try:
            code = process.wait(BOUND_SECONDS)
        except subprocess.TimeoutExpired:
            return Outcome(what, BOUND_SECONDS, [f"it did not end in {BOUND_SECONDS:.0f} s"])
        if code:
            return Outcome(what, BOUND_SECONDS, [f"it failed: {self._last_line('boss')}"])
        with np.load(out) as found:
            problems = self._problems(found) if "photos" in data.rpartition("/")[2] else []
            return Outcome(what, float(found["seconds"]), problems)

    def _last_line(self, machine: str) -> str:
        return (self.folder / f"{machine}.log").read_text().strip().rpartition("\n")[2]

    def _problems(self, found: Any) -> list[str]:
        problems = [f"{why} ({n})" for why, n in
                    zip(*np.unique(found["failed"], return_counts=True), strict=True)]  # fmt: skip
        ids = [str(one) for one in found["ids"]]
        if sorted(ids) != sorted(self.expected):
            problems.append(f"{len(self.expected) - len(set(ids))} rows are missing")
        known = [(x, self.expected[i]) for x, i in zip(found["X"], ids, strict=True)
                 if i in self.expected]  # fmt: skip
        scale = max(np.abs(y).max() for y in self.expected.values())
        wrong = sum(np.abs(x - y).max() > 1e-4 * scale for x, y in known)
        if wrong or len(known) != len(ids):
            problems.append(f"{wrong} rows are wrong, {len(ids) - len(known)} unknown")
        return problems

    def partition_amid(self, machine: str, seconds: float, cache: str) -> threading.Thread:
        """Cut a machine off for a while as soon as the extraction has written rows."""
        in_bucket = cache.startswith("s3://")  # then there are local copies of what was written
        pattern = "own/shared/*/*/*.h5" if in_bucket else f"{Path(cache).name}/stores/*/*.h5"
        before = set(self.folder.glob(pattern))

        def cut() -> None:
            deadline = time.monotonic() + BOUND_SECONDS / 6
            while set(self.folder.glob(pattern)) <= before and time.monotonic() < deadline:
                time.sleep(0.05)
            with self.network.partitioned(machine):
                time.sleep(seconds)

        thread = threading.Thread(target=cut)
        thread.start()
        return thread


def measure(site: Site) -> Iterator[Outcome]:
    """Yield extractions with a fast and a slow network."""
    here, bucket = f"{site.folder}/", "s3://photos/"
    for round_trip in (0.0, ROUND_TRIP):
        for data, cached in ((here, here), (bucket, here), (bucket, bucket)):
            site.network.set_round_trip(0.0)
            cache = site.new_cache(in_bucket=cached == bucket)
            site.warm_up(data, cache)
            site.network.set_round_trip(round_trip)
            names = ["S3" if one == bucket else "a shared disk" for one in (data, cached)]
            what = f"images on {names[0]}, rows on {names[1]}, {1000 * round_trip:.0f} ms"
            yield site.extract(f"{data}photos", cache, what)
    site.network.set_round_trip(0.0)


def measure_bucket(site: Site, shards: int = 32) -> Iterator[str]:
    """Yield how long it takes to push and to open a store of many shards."""
    from featcache.store.store import Store

    here = next((site.folder / "here" / "stores").iterdir())
    known = Store(here)
    ids = known.ids()
    cache = site.folder / "many"
    many = Store.create(cache / "stores" / here.name, known.spec, known.width, {})
    for part in np.array_split(np.array(ids), shards):
        many.append(known.read(list(part)), list(part))
    many.write_manifest()
    for round_trip in (0.0, ROUND_TRIP):
        site.network.set_round_trip(round_trip)
        url = f"s3://photos/many-{1000 * round_trip:.0f}"
        pushed = site.transfer("push", many.folder, url)
        opened = site.transfer("open", many.folder, url, f"mirror-{1000 * round_trip:.0f}")
        yield (
            f"a store of {shards} shards, {1000 * round_trip:.0f} ms per round trip: pushed in "
            f"{pushed:.1f} s, opened in {opened:.1f} s"
        )
    site.network.set_round_trip(0.0)


# A machine, for how long it cannot be reached, and whether the rows go to the bucket.
CUTS = (("w0", 4.0, False), ("w1", 30.0, False), ("store", 4.0, False), ("boss", 4.0, False),
        ("w0", 4.0, True), ("store", 4.0, True), ("boss", 4.0, True))  # fmt: skip


def break_network(site: Site, cuts: Sequence[tuple[str, float, bool]] = CUTS) -> Iterator[Outcome]:
    """Yield extractions during which a machine cannot be reached for some seconds."""
    for machine, seconds, in_bucket in cuts:
        cache = site.new_cache(in_bucket=in_bucket)
        data = "s3://photos/" if in_bucket or machine == "store" else f"{site.folder}/"
        site.warm_up(data, cache)
        site.pause.write_text("0.4")
        thread = site.partition_amid(machine, seconds, cache)
        what = f"{machine} cut off for {seconds:.0f} s{', rows on S3' if in_bucket else ''}"
        yield site.extract(f"{data}photos", cache, what)
        thread.join()
        site.pause.write_text("0")


def main() -> int:
    """Run the command."""
    if sys.argv[1:2] == ["worker"]:
        work(*sys.argv[2:])
        return 0
    if sys.argv[1:2] == ["extract"]:
        extract(*sys.argv[2:])
        return 0
    if sys.argv[1:2] in (["push"], ["open"], ["upload"]):
        transfer(*sys.argv[1:])
        return 0
    argparse.ArgumentParser(description=__doc__).parse_args()
    for ending in (signal.SIGINT, signal.SIGTERM):  # namespaces would stay
        signal.signal(ending, signal.default_int_handler)
    if reason := reason_to_skip():
        print(reason)
        return 0
    passed = True
    with tempfile.TemporaryDirectory() as folder, Site(Path(folder)) as site:
        for line in measure_bucket(site):
            print(line, flush=True)
        for outcome in chain(measure(site), break_network(site)):
            print(outcome, flush=True)
            passed = passed and not outcome.problems
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
