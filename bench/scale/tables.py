"""Tables of what the model says, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..perf.timing import markdown_table
from .constants import Constants, describe
from .manifest import race
from .model import (
    CAUSES,
    COMPUTE,
    MAX_MANIFEST_BYTES,
    MAX_TASK_IMAGES,
    Prediction,
    opening,
    predict,
)
from .scenario import BEFORE, DESIGNS, NEXT, NOW, Design, Scenario

# `python -m bench.perf cluster`, in bench/perf/RESULTS.md: images per second.
RECORDED = {"this process": 222.0, "1 worker": 193.0, "2 workers": 201.0}
_RECORDED_IMAGES = 2400
_MOST_WORKERS = 1000
Rows = list[list[str]]


def validation_scenarios() -> dict[str, Scenario]:
    """Return the extractions of `RECORDED`: client and workers share two cores."""
    ways = {"this process": (0, 2), "1 worker": (1, 2), "2 workers": (2, 1)}
    return {
        way: Scenario(
            _RECORDED_IMAGES, workers, cores, client_cores=2, machine_cores=2, remote=False,
            ids="remembered", loaded=True,
        )
        for way, (workers, cores) in ways.items()
    }  # fmt: skip


def validation_table(constants: Constants) -> Rows:
    """Return recorded and predicted images per second."""
    rows = [["way", "recorded, images/s", "predicted", "difference"]]
    for way, scenario in validation_scenarios().items():
        found = predict(scenario, constants, NOW).images_per_second
        recorded = RECORDED[way]
        rows.append([way, f"{recorded:.0f}", f"{found:.0f}", f"{found / recorded - 1:+.0%}"])
    return rows


def scale_table(images: Sequence[int], workers: Sequence[int], constants: Constants) -> Rows:
    """Return hours, throughput, cost and the limit for numbers of images and workers."""
    rows = [["images", "workers", "before, h", "now, h", "now, ids given, h", "images/s", "USD",
             "what takes the longest", "next, ids given, h"]]  # fmt: skip
    for n in images:
        for w in workers:
            new, known = Scenario(n, w), Scenario(n, w, ids="given")
            before, now = (predict(new, constants, design) for design in (BEFORE, NOW))
            best, after = (predict(known, constants, design) for design in (NOW, NEXT))
            fraction = best.seconds[best.limit] / best.total
            too_large = "*" * bool(best.impossible)
            rows.append([
                _power(n) + too_large, f"{w:,}", _hours(before), _hours(now), _hours(best),
                f"{best.images_per_second:,.0f}", f"{sum(best.dollars.values()):,.0f}",
                f"{best.limit} ({fraction:.0%})", _hours(after),
            ])  # fmt: skip
    return rows


def _hours(found: Prediction) -> str:
    hours = found.total / 3600
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def limits_table(images: Sequence[int], constants: Constants, design: Design) -> Rows:
    """Return from how many workers on each cause takes as long as computing does.

    "-" if it never does with up to `_MOST_WORKERS` workers.
    """
    steps = [round(10 ** (i / 8)) for i in range(8 * len(str(_MOST_WORKERS)) - 7)]
    first: dict[tuple[str, int], str] = {}
    for n in images:
        for w in steps:
            seconds = predict(Scenario(n, w), constants, design).seconds
            for cause in seconds:
                if cause != COMPUTE and seconds[cause] >= seconds[COMPUTE]:
                    first.setdefault((cause, n), f"{w:,}")
    rows = [["as long as computing, from", *(f"{_power(n)} images" for n in images)]]
    return rows + [
        [cause, *(first.get((cause, n), "-") for n in images)]
        for cause in CAUSES
        if any((cause, n) in first for n in images)
    ]


def bounds_table(constants: Constants) -> Rows:
    """Return the number of images at which memory or the format ends, by closed formulas."""
    index = constants.index_memory_bytes
    client = constants.client_image_bytes + constants.task_image_bytes + index
    shards = MAX_MANIFEST_BYTES / constants.manifest_shard_bytes
    bounds = {
        f"memory of the client and the scheduler, {constants.client_memory / 1e9:.0f} GB":
            constants.client_memory / client,
        f"memory of a worker, {constants.worker_memory / 1e9:.0f} GB, rows in a folder":
            constants.worker_memory / index,
        "size of the list of shards, 64 MiB": shards * MAX_TASK_IMAGES,
    }  # fmt: skip
    return [
        ["bound", "images"],
        *([name, f"{n:.1e}".replace("e+0", "e")] for name, n in bounds.items()),
    ]


def opening_table(images: Sequence[int], constants: Constants) -> Rows:
    """Return seconds and memory of opening a store in a folder again, before and now."""
    rows = [["images", "shards", "before, s", "before, GB", "now, s", "now, GB"]]
    for n in images:
        shards = math.ceil(n / MAX_TASK_IMAGES)
        found = [opening(n, shards, constants, design) for design in (BEFORE, NOW)]
        cells = [f"{number:,.2f}" for s, b in found for number in (s, b / 1e9)]
        rows.append([_power(n), f"{shards:,}", *cells])
    return rows


def _power(images: int) -> str:
    return f"{images:.0e}".replace("e+0", "e")


def race_table(workers: Sequence[int], constants: Constants) -> Rows:
    """Return what it costs if each worker changes the manifest itself, by compare-and-swap."""
    window = constants.list_seconds + 2 * constants.get_seconds + constants.put_seconds
    rows = [["workers", "attempts per change", "s per change", "changes/s"]]
    for w in workers:
        found = race(w, 30.0, window, changes=300 + w)
        rows.append([f"{w:,}", f"{found.attempts:.1f}", f"{found.seconds:.1f}",
                     f"{found.per_second:.1f}"])  # fmt: skip
    return rows


def constants_table(constants: Constants) -> Rows:
    """Return all constants with unit and source."""
    rows = [["constant", "value", "unit", "source"]]
    return rows + [[n, f"{v:.6g}", unit, source] for n, v, unit, source in describe(constants)]


def report(constants: Constants) -> list[str]:
    """Return the lines of all tables, with headings."""
    parts: dict[str, Rows] = {"Validation": validation_table(constants)}
    images = (10**6, 10**7, 10**8, 10**9)
    parts["Scale; * the memory is insufficient"] = scale_table(
        images, (1, 10, 100, 1000), constants
    )
    for design in DESIGNS:
        parts[f"What breaks, by workers, {design.name}"] = limits_table(images, constants, design)
    parts["What breaks, by images"] = bounds_table(constants)
    parts["Opening a store again"] = opening_table(images, constants)
    parts["Compare-and-swap by each worker"] = race_table((10, 100, 300, 1000), constants)
    parts["Constants"] = constants_table(constants)
    lines: list[str] = []
    for title, rows in parts.items():
        lines += [f"## {title}", "", *markdown_table(*rows), ""]
    return lines
