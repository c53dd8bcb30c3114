"""Overlap of decoding, forward pass and commits in an extraction."""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import featcache
from featcache._io.progress import progress_bar
from featcache.backbones.request import BackboneOptions, make_request
from featcache.backbones.spec import PRECISIONS, Precision
from featcache.engines.engine import Engine
from featcache.engines.openvino import supports
from featcache.engines.select import EngineRequest, load_converted_engine
from featcache.extraction.pipeline import batches, default_workers
from featcache.extraction.prepare import ExtractionJob, Source, prepare
from featcache.extraction.runner import Computation, make_work
from featcache.images.decode import load_pixels
from featcache.images.views import View
from featcache.store.store import Store

from .extraction import draw_photos
from .timing import format_spread, markdown_table, median, run_interleaved, seconds_of

# Enough for a few seconds, so that the first and the last batch hardly count.
PHOTOS = {"resnet50": 240, "mobilenet_v2": 2400}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds of decoding alone, of the forward pass alone, and of an extraction."""
    photos = {
        backbone: draw_photos(options.folder, max(40, round(count * options.scale)))
        for backbone, count in PHOTOS.items()
    }
    with tempfile.TemporaryDirectory(prefix="featcache-perf-") as folder:
        return [
            _case(backbone, precision, photos[backbone], Path(folder), options.repeats)
            for backbone, precision in itertools.product(PHOTOS, PRECISIONS)
            if supports(precision)
        ]


def _case(
    backbone: str, precision: Precision, photos: Path, cache: Path, repeats: int
) -> dict[str, Any]:
    job, engine = _job(backbone, precision, photos, cache)
    stages = _stages(job, engine, cache)
    for stage in stages.values():
        stage()
    ways = {name: functools.partial(seconds_of, stage) for name, stage in stages.items()}
    seconds = run_interleaved(ways, repeats)
    return {
        "backbone": backbone, "precision": precision, "photos": len(job.plan.compute),
        "seconds": seconds,
    }  # fmt: skip


def _job(
    backbone: str, precision: Precision, photos: Path, cache: Path
) -> tuple[ExtractionJob, Engine]:
    """Return the job of extracting all photos, and the engine with the converted model."""
    few = sorted(photos.rglob("*.jpg"))[:2]
    featcache.extract(  # converts the model
        backbone, [str(path) for path in few], weights="random", engine="openvino",
        precision=precision, cache_dir=cache, progress=False,
    )  # fmt: skip
    request = make_request(backbone, BackboneOptions(weights="random", precision=precision))
    source = Source(str(photos), None, None, 0.0)
    (job,) = prepare(request, source, [View()], cache, None, False, False)
    spec, count = job.resolved.spec, len(job.plan.compute)
    engine = load_converted_engine(EngineRequest("openvino", request, spec, cache, count, None))
    assert engine is not None
    return job, engine


def _stages(job: ExtractionJob, engine: Engine, cache: Path) -> dict[str, Callable[[], None]]:
    """Return decoding alone, the forward pass alone, and both with the commits."""
    spec, count, workers = job.resolved.spec, len(job.plan.compute), default_workers()
    contents = [str(file.image_id) for file in job.contents]
    paths, how = job.dataset.paths, job.resolved.request.resize

    def decode() -> None:
        for batch in batches(
            range(count), lambda i: load_pixels(paths[i], spec.image_size, how, contents[i]), 32,
            workers,
        ):  # fmt: skip
            assert len(batch.items)

    pixels = np.random.default_rng(0).integers(0, 256, (32, *spec.image_size, 3), np.uint8)

    def forward() -> None:
        for start in range(0, count, 32):
            engine.embed(pixels[: min(32, count - start)])

    def together() -> None:
        target = cache / "together"
        shutil.rmtree(target, ignore_errors=True)
        store = Store.create(target, spec, job.resolved.width)
        with progress_bar(count, "", "images", False) as bar:
            Computation(make_work([job]), engine, [store], bar).run(workers)

    return {"decode": decode, "forward": forward, "together": together}


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        f"Images/s: median (min to max). Decoding and the forward pass share {os.cpu_count()} "
        "cores, so the maximum end to end is 1 / (1 / decode + 1 / forward). Target, with "
        "commits: a fraction of 0.95.",
        "",
    ]
    stages = ["decode alone", "forward alone", "end to end"]
    rows: list[list[object]] = [
        ["backbone", "precision", "images", *stages, "fraction of the maximum"]
    ]
    for record in records:
        rates = {k: [record["photos"] / s for s in v] for k, v in record["seconds"].items()}
        maximum = 1 / (1 / median(rates["decode"]) + 1 / median(rates["forward"]))
        shown = [format_spread(rates[name]) for name in ("decode", "forward", "together")]
        fraction = f"{median(rates['together']) / maximum:.2f}"
        rows.append([record["backbone"], record["precision"], record["photos"], *shown, fraction])
    return "\n".join([*lines, *markdown_table(*rows)])
