"""Training time of LightGBM with every core busy, compared with an idle machine."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from heads import LightGBMHead

from .embeddings import synthetic_embeddings
from .timing import format_spread, markdown_table, median, run_in_subprocess, run_interleaved

# Rows, columns, classes and boosting rounds. The second is of the size of Caltech-101, the third of
# that of Stanford Dogs.
SIZES = {
    "707 x 1,280, 24 classes": (707, 1280, 24, 300),
    "5,784 x 1,280, 101 classes": (5784, 1280, 101, 60),
    "18,522 x 2,048, 120 classes": (18522, 2048, 120, 20),
}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds of a fit on an idle and a busy machine, by the number of threads."""
    records = []
    for size, shape in SIZES.items():
        scaled = (max(240, int(shape[0] * options.scale)), *shape[1:])

        def fit_seconds(busy: int, threads: int, shape: tuple[int, ...] = scaled) -> float:
            with busy_cores(busy * len(os.sched_getaffinity(0))):
                return float(run_in_subprocess("-m", "bench.perf.busy", threads, *shape)["fit"])

        cores = len(os.sched_getaffinity(0))
        cases = {"idle": (0, 0), "busy": (1, 0), "idle, all": (0, cores), "busy, all": (1, cores)}
        actions = {name: (lambda case=case: fit_seconds(*case)) for name, case in cases.items()}
        records.append({"size": size, "runs": run_interleaved(actions, options.repeats)})
    return records


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Run an endless loop in a process of its own for each of `count` cores."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.3)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    rows: list[list[object]] = [["size", "threads", "idle, s", "busy, s", "busy / idle"]]
    for record in records:
        runs = record["runs"]
        for title, suffix in (("one per idle core", ""), ("one per core", ", all")):
            idle, busy = runs[f"idle{suffix}"], runs[f"busy{suffix}"]
            ratio = f"{median(busy) / median(idle):.1f}"
            rows.append([record["size"], title, format_spread(idle), format_spread(busy), ratio])
    text = (
        "Seconds of `LightGBMHead().fit` on an idle machine and beside one endless loop per core: "
        "median (min to max). One thread per idle core is the default; one per core is `n_jobs` "
        "set to the number of cores."
    )
    return "\n".join([text, "", *markdown_table(*rows)])


def _measure_fit(
    threads: int, rows: int, width: int, classes: int, rounds: int
) -> dict[str, float]:
    X, y = synthetic_embeddings(rows, width, classes)
    # Imports LightGBM, which is not part of the time of a fit.
    LightGBMHead(n_estimators=2).fit(X[:240], y[:240] % 4)
    head = LightGBMHead(n_estimators=rounds, n_jobs=threads or None)
    started = time.perf_counter()
    head.fit(X, y)
    return {"fit": time.perf_counter() - started}


if __name__ == "__main__":
    print(json.dumps(_measure_fit(*map(int, sys.argv[1:]))))
