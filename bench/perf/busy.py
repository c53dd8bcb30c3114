"""LightGBM beside a busy loop on every core: how much longer than on an idle machine."""

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

from .embeddings import made_up
from .timing import in_a_process, in_turns, median, spread, table

# Rows, columns, classes, rounds: a small set, one of Caltech-101's size, one of Stanford Dogs'.
SIZES = {
    "707 x 1,280, 24 classes": (707, 1280, 24, 300),
    "5,784 x 1,280, 101 classes": (5784, 1280, 101, 60),
    "18,522 x 2,048, 120 classes": (18522, 2048, 120, 20),
}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds of a fit, idle and busy, with our threads and with all cores."""
    found = []
    for size, shape in SIZES.items():
        scaled = (max(240, int(shape[0] * options.scale)), *shape[1:])

        def once(busy: int, threads: int, shape: tuple[int, ...] = scaled) -> float:
            with busy_cores(busy * len(os.sched_getaffinity(0))):
                return float(in_a_process("-m", "bench.perf.busy", threads, *shape)["fit"])

        every = len(os.sched_getaffinity(0))
        cases = {"idle": (0, 0), "busy": (1, 0), "idle, all": (0, every), "busy, all": (1, every)}
        actions = {name: (lambda case=case: once(*case)) for name, case in cases.items()}
        found.append({"size": size, "runs": in_turns(actions, options.repeats)})
    return found


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep cores busy with a loop of Python each."""
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
        for title, suffix in (("those with an idle core", ""), ("one per core", ", all")):
            idle, busy = runs[f"idle{suffix}"], runs[f"busy{suffix}"]
            ratio = f"{median(busy) / median(idle):.1f}"
            rows.append([record["size"], title, spread(idle), spread(busy), ratio])
    head = (
        "`LightGBMHead().fit` alone and beside one endless loop per core; seconds: median (least "
        "to largest). The first of two lines is what it does by default, the second `n_jobs` set "
        "to the number of cores."
    )
    return "\n".join([head, "", *table(*rows)])


def _one(threads: int, rows: int, width: int, classes: int, rounds: int) -> dict[str, float]:
    X, y = made_up(rows, width, classes)
    LightGBMHead(n_estimators=2).fit(
        X[:240], y[:240] % 4
    )  # imports are no part of what a fit takes
    head = LightGBMHead(n_estimators=rounds, n_jobs=threads or None)
    started = time.perf_counter()
    head.fit(X, y)
    return {"fit": time.perf_counter() - started}


if __name__ == "__main__":
    print(json.dumps(_one(*map(int, sys.argv[1:]))))
