"""Tables of what the model says, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from ..perf.timing import markdown_table
from .constants import Constants, describe
from .manifest import race
from .model import CAUSES, COMPUTE, MAX_MANIFEST_BYTES, MAX_TASK_IMAGES, predict
from .scenario import DESIGNS, NOW, Design, Scenario

# `python -m bench.perf cluster`, in bench/perf/RESULTS.md: images per second.
RECORDED = {"this process": 222.0, "1 worker": 200.0, "2 workers": 202.0}
_RECORDED_IMAGES = 2400
_MOST_WORKERS = 1000
Rows = list[list[str]]


def validation_scenarios() -> dict[str, Scenario]:
    """Return the extractions of `RECORDED`: client and workers share two cores."""
    ways = {"this process": (0, 2), "1 worker": (1, 2), "2 workers": (2, 1)}
    return {
        way: Scenario(
            _RECORDED_IMAGES, workers, cores, client_cores=2, machine_cores=2, remote=False,
            identified=True, loaded=True,
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


def scale_table(
    images: Sequence[int],
    workers: Sequence[int],
    constants: Constants,
    design: Design,
    **options: bool,
) -> Rows:
    """Return time, throughput, cost and the limit for numbers of images and workers."""
    rows = [["images", "workers", "hours", "images/s", "USD", "what takes the longest", "memory"]]
    for n in images:
        for w in workers:
            found = predict(Scenario(n, w, **options), constants, design)
            fraction = found.seconds[found.limit] / found.total
            rows.append([
                _power(n), f"{w:,}", f"{found.total / 3600:,.1f}",
                f"{found.images_per_second:,.0f}", f"{sum(found.dollars.values()):,.0f}",
                f"{found.limit} ({fraction:.0%})",
                "insufficient" if found.impossible else "suffices",
            ])  # fmt: skip
    return rows


def limits_table(images: Sequence[int], constants: Constants, **options: bool) -> Rows:
    """Return from how many workers on each cause takes as long as computing does.

    Two numbers, before and now; "-" if it never does with up to `_MOST_WORKERS` workers.
    """
    steps = [round(10 ** (i / 8)) for i in range(8 * len(str(_MOST_WORKERS)) - 7)]
    first: dict[tuple[str, int, str], int] = {}
    for n in images:
        for design in DESIGNS:
            for w in steps:
                found = predict(Scenario(n, w, **options), constants, design)
                for cause, seconds in found.seconds.items():
                    if cause != COMPUTE and seconds >= found.seconds[COMPUTE]:
                        first.setdefault((cause, n, design.name), w)
    header = ["from how many workers on (before / now)", *(f"{_power(n)} images" for n in images)]
    rows = [header]
    for cause in CAUSES:
        cells = [
            " / ".join(f"{first.get((cause, n, d.name), 0):,}" for d in DESIGNS) for n in images
        ]
        if any(cell != "0 / 0" for cell in cells):
            rows.append([cause, *(cell.replace("0 / 0", "-") for cell in cells)])
    return rows


def bounds_table(constants: Constants) -> Rows:
    """Return the number of images at which memory or the format ends, by closed formulas."""
    client = constants.client_image_bytes + constants.task_image_bytes
    index, shard = constants.index_memory_bytes, constants.manifest_shard_bytes
    bounds = {
        f"memory of the client and the scheduler, {constants.client_memory / 1e9:.0f} GB": (
            constants.client_memory / (client + index), constants.client_memory / client,
        ),
        f"memory of a worker, {constants.worker_memory / 1e9:.0f} GB": (
            constants.worker_memory / index,
        ) * 2,
        "size of the manifest, 64 MiB": (MAX_MANIFEST_BYTES / shard * MAX_TASK_IMAGES,) * 2,
    }  # fmt: skip
    rows = [["bound", "images, before", "images, now"]]
    return rows + [
        [name, *(f"{n:.1e}".replace("e+0", "e") for n in ns)] for name, ns in bounds.items()
    ]


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
    parts: dict[str, Rows] = {
        "Validation": validation_table(constants),
        "Scale, now": scale_table(
            (10**6, 10**7, 10**8, 10**9), (1, 10, 100, 1000), constants, NOW
        ),
        "Scale, now, with known ids": scale_table(
            (10**6, 10**7, 10**8, 10**9), (1, 10, 100, 1000), constants, NOW, identified=True
        ),
    }  # fmt: skip
    images = (10**6, 10**7, 10**8, 10**9)
    parts["What breaks, by workers"] = limits_table(images, constants)
    parts["What breaks, by workers, with known ids"] = limits_table(
        images, constants, identified=True
    )
    parts["What breaks, by images"] = bounds_table(constants)
    parts["Compare-and-swap by each worker"] = race_table((10, 100, 300, 1000), constants)
    parts["Constants"] = constants_table(constants)
    lines: list[str] = []
    for title, rows in parts.items():
        lines += [f"## {title}", "", *markdown_table(*rows), ""]
    return lines
