"""From JPEG files to rows on disk: featcache against Keras as documented, and its peers."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from featcache.datasets import drawn_dogs

from .timing import in_turns, median, spread, table

WORKER = Path(__file__).with_name("worker.py")
# Photos for each backbone: enough that getting ready weighs little, few enough for five rounds
# of it. The fastest gets as many as the reference task has.
COUNTS = {"resnet50": 480, "mobilenet_v2": 20580, "inception_resnet_v2": 360, "vgg19": 1000}
TARGETS = {
    "resnet50": (1.2, 2.2), "mobilenet_v2": (1.6, 3.0), "inception_resnet_v2": (1.15, 2.2),
    "vgg19": (0.97, 1.7),
}  # fmt: skip


class Worker:
    """A process that does one thing again and again, when told to."""

    def __init__(self, python: str, kind: str, backbone: str, photos: Path) -> None:
        command = [python, str(WORKER), kind, backbone, str(photos)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": str(WORKER.parents[2])},
        )  # fmt: skip
        self.why_not = "" if self._line() == "ready" else self._complaint()

    def seconds(self) -> float:
        """Let it do its work once."""
        stream: IO[str] = self._process.stdin  # type: ignore[assignment]
        stream.write("go\n")
        stream.flush()
        return float(self._line())

    def stop(self) -> None:
        """Let it end."""
        self._process.communicate()

    def _line(self) -> str:
        stream: IO[str] = self._process.stdout  # type: ignore[assignment]
        return stream.readline().strip()

    def _complaint(self) -> str:
        lines = self._process.communicate()[1].strip().splitlines()
        errors = [line for line in lines if re.match(r"\w[\w.]*(Error|Exception|Refused)", line)]
        return (errors or lines or ["it ended without a word"])[-1]


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a record for each backbone: photos, and seconds of each way by turn."""
    found = []
    for backbone in options.backbones or COUNTS:
        count = max(20, round(COUNTS.get(backbone, 240) * options.scale))
        photos = draw(options.folder, count)
        ways = [(sys.executable, "Keras"), (sys.executable, "featcache float32")]
        ways.append((sys.executable, "featcache bfloat16"))
        if backbone == "resnet50" and options.peers_python:
            ways += [(options.peers_python, "thingsvision"), (options.peers_python, "embetter")]
        workers = {kind: Worker(python, kind, backbone, photos) for python, kind in ways}
        refused = {kind: worker.why_not for kind, worker in workers.items() if worker.why_not}
        ready = {kind: worker.seconds for kind, worker in workers.items() if not worker.why_not}
        print(f"{backbone}: {', '.join(ready)}", *refused.values(), file=sys.stderr, sep="\n  ")
        seconds = in_turns(ready, options.repeats)
        for worker in workers.values():
            worker.stop()
        found.append({
            "backbone": backbone, "photos": count, "seconds": seconds, "refused": refused,
        })  # fmt: skip
    return found


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        "From JPEG files (drawn dogs, 500 x 375) to rows on disk, images/s: median (least to "
        "largest). Each runs in its own process, warm, interleaved; random weights. Keras' "
        "time leaves out what `predict` sleeps after its last batch (see `worker.py`).",
        "",
    ]
    rows: list[list[object]] = [
        ["backbone", "photos", "way", "images/s", "against Keras", "target"]
    ]
    for record in records:
        count, backbone = record["photos"], record["backbone"]
        base = median(record["seconds"]["Keras"])
        for way, seconds in record["seconds"].items():
            rates = [count / value for value in seconds]
            bounds = TARGETS.get(backbone, (None, None))
            goal = {"featcache float32": bounds[0], "featcache bfloat16": bounds[1]}.get(way)
            aim = f">= {goal}" if goal else ""
            ratio = base / median(seconds)
            rows.append([backbone, count, way, spread(rates), f"{ratio:.2f}", aim])
    return "\n".join([*lines, *table(*rows)])


def draw(folder: Path, count: int) -> Path:
    """Return a folder of `count` drawn dogs; they are drawn only once."""
    photos = folder / f"dogs-{count}"
    drawn_dogs(10, count // 10, image_size=(375, 500), folder=photos, workers=os.cpu_count())
    return photos
