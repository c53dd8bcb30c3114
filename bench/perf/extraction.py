"""Speed from JPEG files to rows on disk: featcache, Keras as documented, and similar libraries."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from featcache.datasets import drawn_dogs

from .timing import format_spread, markdown_table, median, run_interleaved

WORKER = Path(__file__).with_name("worker.py")
# Images per backbone: enough that the start-up hardly counts, few enough for five measurements.
# MobileNetV2, the fastest, gets as many as Stanford Dogs has.
COUNTS = {"resnet50": 480, "mobilenet_v2": 20580, "inception_resnet_v2": 360, "vgg19": 1000}
# Minimum speed relative to Keras, in float32 and bfloat16.
TARGETS = {
    "resnet50": (1.2, 2.2), "mobilenet_v2": (1.6, 3.0), "inception_resnet_v2": (1.15, 2.2),
    "vgg19": (0.97, 1.7),
}  # fmt: skip


class Worker:
    """A process that repeats one extraction on request; see `bench.perf.worker`.

    Attributes
    ----------
    start_error : str
        Why it could not start; empty if it runs.
    """

    def __init__(self, python: str, kind: str, backbone: str, photos: Path) -> None:
        command = [python, str(WORKER), kind, backbone, str(photos)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": str(WORKER.parents[2])},
        )  # fmt: skip
        self.start_error = "" if self._line() == "ready" else self._error_line()

    def run(self) -> float:
        """Run the extraction once and return its seconds."""
        stream: IO[str] = self._process.stdin  # type: ignore[assignment]
        stream.write("go\n")
        stream.flush()
        return float(self._line())

    def stop(self) -> None:
        """Close its input and wait for it to end."""
        self._process.communicate()

    def _line(self) -> str:
        stream: IO[str] = self._process.stdout  # type: ignore[assignment]
        return stream.readline().strip()

    def _error_line(self) -> str:
        lines = self._process.communicate()[1].strip().splitlines()
        errors = [line for line in lines if re.match(r"\w[\w.]*(Error|Exception|Refused)", line)]
        return (errors or lines or ["it ended without a message"])[-1]


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a record per backbone: number of images, and the seconds of each implementation."""
    records = []
    for backbone in options.backbones or COUNTS:
        count = max(20, round(COUNTS.get(backbone, 240) * options.scale))
        photos = draw_photos(options.folder, count)
        kinds = [(sys.executable, "Keras"), (sys.executable, "featcache float32")]
        kinds.append((sys.executable, "featcache bfloat16"))
        if backbone == "resnet50" and options.peers_python:
            kinds += [(options.peers_python, "thingsvision"), (options.peers_python, "embetter")]
        workers = {kind: Worker(python, kind, backbone, photos) for python, kind in kinds}
        refused = {kind: one.start_error for kind, one in workers.items() if one.start_error}
        ready = {kind: one.run for kind, one in workers.items() if not one.start_error}
        print(f"{backbone}: {', '.join(ready)}", *refused.values(), file=sys.stderr, sep="\n  ")
        seconds = run_interleaved(ready, options.repeats)
        for worker in workers.values():
            worker.stop()
        records.append({
            "backbone": backbone, "photos": count, "seconds": seconds, "refused": refused,
        })  # fmt: skip
    return records


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        "From JPEG files (drawn dogs, 500 x 375) to rows on disk, in images/s: median (min to "
        "max). Each implementation runs in its own process; the runs are interleaved, after a "
        "first one that does not count. Random weights. The time for which Keras' `predict` "
        "sleeps after its last batch is subtracted (see `worker.py`).",
        "",
    ]
    rows: list[list[object]] = [
        ["backbone", "images", "implementation", "images/s", "relative to Keras", "target"]
    ]
    for record in records:
        count, backbone = record["photos"], record["backbone"]
        base = median(record["seconds"]["Keras"])
        for kind, seconds in record["seconds"].items():
            rates = [count / value for value in seconds]
            bounds = TARGETS.get(backbone, (None, None))
            target = {"featcache float32": bounds[0], "featcache bfloat16": bounds[1]}.get(kind)
            shown = f">= {target}" if target else ""
            ratio = base / median(seconds)
            rows.append([backbone, count, kind, format_spread(rates), f"{ratio:.2f}", shown])
    return "\n".join([*lines, *markdown_table(*rows)])


def draw_photos(folder: Path, count: int) -> Path:
    """Return a folder of `count` drawn dogs, which is made once and then used again."""
    photos = folder / f"dogs-{count}"
    drawn_dogs(10, count // 10, image_size=(375, 500), folder=photos, workers=os.cpu_count())
    return photos
