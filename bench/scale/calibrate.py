"""Measure the constants of the model on this machine, in about a minute."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import featcache
from featcache.backbones.request import BackboneOptions, make_request
from featcache.backbones.spec import BackboneSpec
from featcache.data.dataset import Dataset
from featcache.datasets import drawn_dogs
from featcache.extraction.cluster.tasks import make_tasks
from featcache.extraction.compute import RunSettings
from featcache.extraction.prepare import ExtractionJob, Source, prepare
from featcache.hdf5.shard_file import encode_shard
from featcache.hdf5.shard_metadata import metadata_bytes, metadata_path, read_metadata
from featcache.hdf5.shard_name import make_shard_name
from featcache.images.views import View
from featcache.store.bucket.objects import Bucket
from featcache.store.manifest import Manifest, parse_manifest
from featcache.store.row_index import RowIndex, pack_ids

_SPEC = BackboneSpec(
    "resnet50", "avg_pool", "ab" * 32, "none", (224, 224), "stretch-bilinear", 1, "00" * 8
)
_ROWS = 2048
_REPEATS = 3
_Measured = dict[str, float]


def calibrate(
    backbone: str, folder: Path, url: str | None, log: Callable[[str], object]
) -> _Measured:
    """Return what can be measured here, by the name of the constant.

    Processor time is measured where possible, so that other work on the machine matters less.

    Parameters
    ----------
    backbone : str
        A name of the table, computed with random weights.
    folder : Path
        For photos, converted models and stores. Photos that are there are not drawn again.
    url : str or None
        Cache in an object store, whose latencies are measured.
    log : callable
        Called with the name of each part.
    """
    few, many = (_photos(folder, count) for count in (80, 320))
    parts: dict[str, Callable[[], _Measured]] = {
        "stores": functools.partial(_stores, folder),
        "client": functools.partial(_client, folder),
        "identification": functools.partial(_identify, many, folder),
        "extraction": functools.partial(_extract, backbone, few, many, folder),
        "tasks": functools.partial(_tasks, many, folder),
    }
    if url is not None:
        parts["object store"] = functools.partial(_bucket, url)
    found: _Measured = {}
    for name, measure in parts.items():
        log(name)
        found |= measure()
    return found


def _photos(folder: Path, count: int) -> Path:
    photos = folder / f"dogs-{count}"
    drawn_dogs(10, count // 10, image_size=(375, 500), folder=photos, workers=os.cpu_count())
    return photos


def _best(action: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Return the seconds of the quickest of some runs of an action."""
    return min(_seconds(action, clock) for _ in range(_REPEATS))


def _seconds(action: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    action()
    return clock() - started


def _stores(folder: Path) -> _Measured:
    """Measure sidecars, the index of rows, and the list of shards."""
    generator = np.random.default_rng(0)
    small, large = _sidecar(256, folder, generator), _sidecar(_ROWS, folder, generator)
    per_row = max(0.0, large[0] - small[0]) / (_ROWS - 256)
    rows = 100_000
    ids = generator.integers(0, 256, (rows, 32), np.uint8)
    views = np.zeros(rows, np.int32)
    index = RowIndex([(ids, views)])
    held = sum(one.nbytes for one in vars(index).values() if isinstance(one, np.ndarray))
    shards = {
        make_shard_name("0" * 8, i, _ROWS, hashlib.sha256(str(i).encode()).hexdigest()): _ROWS
        for i in range(5_000)
    }
    manifest = Manifest(_SPEC, 1280, 1, shards)
    data = manifest.encode()
    path = Path(_SPEC.folder) / "MANIFEST.json"
    writing, reading = _best(manifest.encode), _best(lambda: parse_manifest(path, data))
    return {
        "sidecar_core_seconds": max(1e-9, small[0] - 256 * per_row),
        "sidecar_row_core_seconds": max(1e-12, per_row),
        "sidecar_row_bytes": (large[1] - small[1]) / (_ROWS - 256),
        "shard_extra_bytes": large[2],
        "index_core_seconds": _best(lambda: RowIndex([(ids, views)])) / rows,
        # A store keeps the ids and views of its sidecars beside the index.
        "index_memory_bytes": (held + ids.nbytes + views.nbytes) / rows,
        "manifest_shard_bytes": len(data) / len(shards),
        "manifest_core_seconds": (writing + reading) / len(shards),
    }


def _sidecar(rows: int, folder: Path, generator: np.random.Generator) -> tuple[float, int, int]:
    """Return seconds per sidecar, its bytes, and the bytes of its shard beside the rows."""
    values: NDArray[np.float32] = generator.normal(size=(rows, 1280)).astype(np.float32)
    ids = generator.integers(0, 256, (rows, 32), np.uint8)
    shard, metadata = encode_shard(values, ids, np.zeros(rows, np.int32), _SPEC.components(), {})
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / make_shard_name("0" * 8, 1, rows, "0" * 64)
        data = metadata_bytes(path.name, len(shard), metadata, values)
        metadata_path(path).write_bytes(data)
        seconds = _best(lambda: [read_metadata(path) for _ in range(50)]) / 50
    return seconds, len(data), len(shard) - values.nbytes


def _client(folder: Path) -> _Measured:
    """Measure what the client does and keeps for each image, beside finding its id."""
    images = 20_000
    paths = [f"/photos/class-{i % 100:03d}/image-{i:012d}.jpg" for i in range(images)]
    ids = [hashlib.sha256(path.encode()).hexdigest() for path in paths]
    cache = folder / "made-up"
    shutil.rmtree(cache, ignore_errors=True)
    jobs = _jobs(Dataset(paths, ids=ids), cache)
    tasks = _make_tasks(jobs)
    spec, width = jobs[0].resolved.spec, jobs[0].resolved.width
    store = jobs[0].place.create(spec, width, {})
    rows, views = np.zeros((images, width), np.float32), np.zeros(images, np.int32)
    store.append_packed(rows, pack_ids(ids), views, {})

    def client() -> object:
        """Plan and join, without anything to compute."""
        dataset = Dataset(list(paths), ids=list(ids))
        return featcache.extract("pocket", dataset, cache_dir=cache, progress=False)

    client()
    joining, cutting = _best(client), _best(lambda: _make_tasks(jobs))
    indexing = _best(lambda: RowIndex([(pack_ids(ids), views)]))
    tracemalloc.start()
    kept = (client(), _jobs(Dataset(list(paths), ids=list(ids)), cache))
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    shutil.rmtree(cache)
    texts = sum(text.__sizeof__() for text in (*paths, *ids))
    return {
        "client_core_seconds": max(1e-9, joining + cutting - indexing) / images,
        "client_image_bytes": (memory + texts) / images,
        "task_image_bytes": _pickled_bytes(tasks[0]) / len(tasks[0].locations),
    }


def _jobs(dataset: Dataset, cache: Path) -> list[ExtractionJob]:
    request = make_request("pocket", BackboneOptions())
    return prepare(request, Source(dataset, None, None, 0.0), [View()], cache, None, False, False)


def _make_tasks(jobs: list[ExtractionJob]) -> list[Any]:
    settings = RunSettings("auto", None, None, False, False, _ROWS)
    return make_tasks("run", jobs, "mark", settings, 1)


def _pickled_bytes(task: object) -> int:
    from distributed.protocol.pickle import dumps

    return len(dumps(task))


def _identify(photos: Path, folder: Path) -> _Measured:
    dataset = featcache.load_dataset(photos)

    def identify() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            dataset.source.identify(Path(place), os.cpu_count() or 1)

    return {"identify_core_seconds": _best(identify) / len(dataset)}


def _extract(backbone: str, few: Path, many: Path, folder: Path) -> _Measured:
    """Measure an extraction by one process; two sizes separate what each image costs."""
    run = functools.partial(_extraction, backbone, folder, None, None, "openvino")
    run(few)  # converts the model, if need be
    small, large = _best(lambda: run(few)), _best(lambda: run(many))
    wall = _best(lambda: run(many), time.perf_counter)
    per_image = (large - small) / (_count(many) - _count(few))
    return {
        "image_core_seconds": per_image,
        "busy_fraction": min(1.0, large / (wall * (os.cpu_count() or 1))),  # if nothing else runs
        "width": float(run(few).X.shape[1]),
        # Loading the network, which takes little more than one core.
        "extraction_seconds": max(1e-3, small - _count(few) * per_image),
    }


def _tasks(photos: Path, folder: Path) -> _Measured:
    """Measure what a task costs, from extractions with many and with few tasks."""
    from distributed import Client, LocalCluster

    images = _count(photos)
    many, few = 32, 2
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):

        def run(tasks: int) -> object:
            return _extraction("pocket", folder, client, images // tasks, "auto", photos)

        run(few)
        run(many)
        wall = [_best(functools.partial(run, n), time.perf_counter) for n in (few, many)]
        own = [_best(functools.partial(run, n)) for n in (few, many)]
    alone = functools.partial(_extraction, "pocket", folder, None, None, "auto", photos)
    per_task = max(1e-4, (wall[1] - wall[0]) / (many - few))
    # The worker of one thread computes on one core.
    on_one = _best(alone)
    return {
        "task_seconds": per_task,
        "task_core_seconds": max(1e-4, (own[1] - own[0]) / (many - few)),
        "cluster_seconds": max(1e-3, wall[0] - few * per_task - on_one),
    }


def _extraction(
    backbone: str, folder: Path, client: Any, task_size: int | None, engine: Any, photos: Path
) -> Any:
    cache = folder / "cache"
    shutil.rmtree(cache / "stores", ignore_errors=True)
    weights = "auto" if backbone == "pocket" else "random"
    return featcache.extract(
        backbone, str(photos), cache_dir=cache, client=client, task_size=task_size,
        weights=weights, engine=engine, progress=False,
    )  # fmt: skip


def _count(photos: Path) -> int:
    return sum(1 for _ in photos.rglob("*.jpg"))


def _bucket(url: str) -> _Measured:
    """Measure the latency of small objects; they stay there, under ``calibration/``."""
    bucket = Bucket(url)
    folder = f"calibration/{time.time_ns():x}"
    keys = [f"{folder}/{i:03d}" for i in range(50)]
    puts = _seconds(lambda: [bucket.create(key, b"x" * 4096) for key in keys], time.perf_counter)
    gets = _seconds(lambda: [bucket.read(key, 4096) for key in keys], time.perf_counter)
    listing = _best(lambda: bucket.objects(folder), time.perf_counter)
    return {
        "put_seconds": puts / len(keys),
        "get_seconds": gets / len(keys),
        "list_seconds": listing,
    }
