"""Extraction by worker processes of a Dask cluster on this machine, compared with one process."""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import featcache

from .extraction import draw_photos
from .timing import format_spread, markdown_table, median, run_interleaved, seconds_of

BACKBONE = "mobilenet_v2"
PHOTOS = 2400
TARGETS = {"1 worker": 0.9, "2 workers": 0.95}
# The same engine and network on all sides.
OPTIONS: dict[str, Any] = {"weights": "random", "engine": "openvino", "progress": False}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds of an extraction by one process, and by one and two workers."""
    photos = draw_photos(options.folder, max(160, round(PHOTOS * options.scale)))
    with tempfile.TemporaryDirectory(prefix="featcache-perf-") as folder:
        seconds = _measure(photos, Path(folder), options.repeats)
    count = sum(1 for _ in photos.rglob("*.jpg"))
    return [{"backbone": BACKBONE, "photos": count, "seconds": seconds}]


def _measure(photos: Path, cache: Path, repeats: int) -> dict[str, list[float]]:
    from distributed import Client, LocalCluster

    cores = sorted(os.sched_getaffinity(0))
    with (
        LocalCluster(n_workers=1, threads_per_worker=len(cores), dashboard_address=":0") as one,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as two,
        Client(one, set_as_default=False) as single,
        Client(two, set_as_default=False) as several,
    ):
        _pin(several, cores)
        ways: dict[str, Callable[[], float]] = {
            "this process": functools.partial(_extract, photos, cache, None),
            "1 worker": functools.partial(_extract, photos, cache, single),
            "2 workers": functools.partial(_extract, photos, cache, several),
        }
        for way in ways.values():
            way()  # converts the model, and loads it in each process
        return run_interleaved(ways, repeats)


def _pin(client: Any, cores: list[int]) -> None:
    """Give each worker one core, so that two of them do not compete for two."""

    def pin(core: int) -> None:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {core})

    for core, worker in zip(cores, client.scheduler_info()["workers"], strict=False):
        client.run(pin, core, workers=[worker])


def _extract(photos: Path, cache: Path, client: Any) -> float:
    shutil.rmtree(cache / "stores", ignore_errors=True)
    extract = functools.partial(
        featcache.extract, BACKBONE, str(photos), cache_dir=cache, client=client, **OPTIONS
    )
    return seconds_of(extract)


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    (record,) = records
    lines = [
        f"Images/s: median (min to max) of extractions of {record['photos']} drawn dogs by "
        f"{record['backbone']} on {os.cpu_count()} cores, with OpenVINO. A single worker has all "
        "cores, each of two has one.",
        "",
    ]
    rates = {k: [record["photos"] / s for s in v] for k, v in record["seconds"].items()}
    rows: list[list[object]] = [["way", "images/s", "of this process", "target"]]
    for name, values in rates.items():
        fraction = median(values) / median(rates["this process"])
        rows.append([name, format_spread(values), f"{fraction:.2f}", TARGETS.get(name, "")])
    return "\n".join([*lines, *markdown_table(*rows)])
