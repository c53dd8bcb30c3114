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

import psutil

import featcache

from .extraction import draw_photos
from .timing import format_spread, markdown_table, median, run_interleaved, seconds_of

BACKBONE = "mobilenet_v2"
PHOTOS = 2400
WARM_UP_PHOTOS = 160
TARGETS = {"1 worker": 0.9, "2 workers": 0.95}
# The same engine and network on all sides.
OPTIONS: dict[str, Any] = {"weights": "random", "engine": "openvino", "progress": False}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds of an extraction by one process, and by one and two workers.

    Wall time, and processor time of this process and the workers together, which other work on
    the machine hardly affects.
    """
    photos = draw_photos(options.folder, max(160, round(PHOTOS * options.scale)))
    few = draw_photos(options.folder, WARM_UP_PHOTOS)
    with tempfile.TemporaryDirectory(prefix="featcache-perf-") as folder:
        found = _measure(photos, few, Path(folder), options.repeats)
    count = sum(1 for _ in photos.rglob("*.jpg"))
    return [{"backbone": BACKBONE, "photos": count, **found}]


def _measure(
    photos: Path, few: Path, cache: Path, repeats: int
) -> dict[str, dict[str, list[float]]]:
    from distributed import Client, LocalCluster

    cores = sorted(os.sched_getaffinity(0))
    with (
        LocalCluster(n_workers=1, threads_per_worker=len(cores), dashboard_address=":0") as one,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as two,
        Client(one, set_as_default=False) as single,
        Client(two, set_as_default=False) as several,
    ):
        _pin(several, cores)
        clients = {"this process": None, "1 worker": single, "2 workers": several}
        for client in clients.values():
            _extract(few, cache, client)  # converts the model, and loads it in each process
        cpu: dict[str, list[float]] = {name: [] for name in clients}
        ways: dict[str, Callable[[], float]] = {
            name: functools.partial(_timed, photos, cache, client, cpu[name])
            for name, client in clients.items()
        }
        return {"seconds": run_interleaved(ways, repeats), "cpu_seconds": cpu}


def _timed(photos: Path, cache: Path, client: Any, cpu: list[float]) -> float:
    """Return the wall time of an extraction; append its processor time."""
    processes = [psutil.Process()]
    if client is not None:
        processes += [psutil.Process(pid) for pid in client.run(os.getpid).values()]
    before = _cpu_seconds(processes)
    seconds = _extract(photos, cache, client)
    cpu.append(_cpu_seconds(processes) - before)
    return seconds


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(time.user + time.system for time in times))


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
        "cores, each of two has one. The fraction is the median of those of each round.",
        "",
    ]
    rates = {k: [record["photos"] / s for s in v] for k, v in record["seconds"].items()}
    rows: list[list[object]] = [
        ["way", "images/s", "of this process", "target", "CPU s per 1,000 images"]
    ]
    seconds = record["seconds"]
    for name, values in rates.items():
        # Of each round by itself: a load that lasts for some rounds affects all ways alike.
        pairs = zip(seconds["this process"], seconds[name], strict=True)
        fraction = median([alone / value for alone, value in pairs])
        cpu = [1000 * value / record["photos"] for value in record["cpu_seconds"][name]]
        rows.append([
            name, format_spread(values), f"{fraction:.2f}", TARGETS.get(name, ""),
            format_spread(cpu),
        ])  # fmt: skip
    return "\n".join([*lines, *markdown_table(*rows)])
