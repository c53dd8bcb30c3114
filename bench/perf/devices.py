"""Extraction on several devices of this machine: all its GPUs, or its cores without one."""

from __future__ import annotations

import argparse
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import featcache
from featcache.backbones.keras_backend import import_keras, list_devices
from featcache.engines.devices import usable_cores

from .extraction import draw_photos
from .timing import format_spread, markdown_table, median, run_interleaved, seconds_of

BACKBONE = "mobilenet_v2"
PHOTOS, PHOTOS_PER_GPU = 2400, 20000
WARM_UP_PHOTOS = 160


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds of an extraction without `devices`, on one device and on all."""
    gpus = list_devices(import_keras(), "gpu")
    names = gpus or [f"cpu:{number}" for number in range(len(usable_cores()))]
    full = PHOTOS_PER_GPU * len(gpus) if gpus else PHOTOS
    photos = draw_photos(options.folder, max(160, round(full * options.scale)))
    few = draw_photos(options.folder, WARM_UP_PHOTOS)
    engine = "keras" if gpus else "openvino"
    choices = {"default": None, "1": names[:1], str(len(names)): names}
    with tempfile.TemporaryDirectory(prefix="featcache-perf-") as folder:
        ways: dict[str, Callable[[], float]] = {}
        for way, devices in choices.items():
            run = functools.partial(_extract, cache=Path(folder), engine=engine, devices=devices)
            run(few)  # converts the model on a processor
            ways[way] = functools.partial(run, photos)
        seconds = run_interleaved(ways, options.repeats)
    count = sum(1 for _ in photos.rglob("*.jpg"))
    return [{"backbone": BACKBONE, "photos": count, "devices": names, "engine": engine,
             "seconds": seconds}]  # fmt: skip


def _extract(photos: Path, cache: Path, engine: str, devices: list[str] | None) -> float:
    shutil.rmtree(cache / "stores", ignore_errors=True)
    options: dict[str, Any] = {"engine": engine, "weights": "random", "progress": False}
    return seconds_of(
        lambda: featcache.extract(
            BACKBONE, str(photos), cache_dir=cache, devices=devices, **options
        )
    )


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    (record,) = records
    names = ", ".join(record["devices"])
    lines = [
        f"Images/s: median (min to max) of extractions of {record['photos']} drawn dogs by "
        f"{record['backbone']} with {record['engine']}, without `devices` and on the first of, or "
        f"all of, {names}. Every run loads the network again, on each device.",
        "",
    ]
    seconds = record["seconds"]
    rows: list[list[object]] = [["devices", "images/s", "of one device"]]
    for way, values in seconds.items():
        rates = [record["photos"] / value for value in values]
        rows.append([
            way, format_spread(rates), f"{median(seconds['1']) / median(values):.2f}",
        ])  # fmt: skip
    return "\n".join([*lines, *markdown_table(*rows)])
