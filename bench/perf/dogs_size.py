"""Benchmark at the size of Stanford Dogs: 120 drawn breeds with 171 images of 500 x 375 each.

Runs each stage in its own process and prints its seconds, peak memory and bytes on disk:
`python -m bench.perf.dogs_size --help`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import featcache
from bench import CachedHead, evaluate, make_split
from bench.__main__ import main as compare
from featcache._io.cache_dirs import cache_folder
from featcache.datasets import drawn_dogs

HEADS = ("logistic", "svm", "lightgbm")


def _folder(root: Path, options: argparse.Namespace) -> Path:
    return root / f"dogs-{options.breeds}x{options.images}"


def _draw(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    folder = _folder(root, options)
    dogs = drawn_dogs(
        options.breeds, options.images, image_size=(375, 500), folder=folder, workers=os.cpu_count()
    )
    return {"done": f"{len(dogs):,} photos", "bytes": _bytes(folder)}


def _extract(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    features = featcache.extract(options.backbone, _folder(root, options), cache_dir=root / "cache")
    return {
        "done": f"{features.summary.computed:,} computed, {features.summary.stored:,} stored",
        "bytes": _bytes(Path(features.summary.folder)),
    }


def _head(name: str) -> Callable[[Path, argparse.Namespace], dict[str, Any]]:
    def stage(root: Path, options: argparse.Namespace) -> dict[str, Any]:
        dogs = featcache.load_dataset(_folder(root, options))
        split = make_split(dogs, 0.1, random_state=0, cache_dir=root / "cache")
        contender = CachedHead(options.backbone, name, cache_dir=root / "cache")
        result = evaluate({name: contender}, split, progress=False)[name]
        metrics, cost = result.metrics, result.cost
        return {
            "done": f"top-1 {metrics['top1']:.3f}, fit {cost.fit_seconds:.1f} s, "
            f"predict {cost.predict_seconds:.2f} s",
            "bytes": 0,
        }

    return stage


def _compare(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    out = root / "report"
    status = compare(
        [
            "--data", str(_folder(root, options)), "--backbones", options.backbone, "--heads",
            ",".join(HEADS), "--test-size", "0.1", "--cache-dir", str(root / "cache"), "--report",
            str(out), "--quiet",
        ]
    )  # fmt: skip
    if status:
        raise SystemExit(status)
    return {"done": "table, intervals, tests, report", "bytes": _bytes(out)}


STAGES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "draw": _draw,
    "extract": _extract,
    "extract again": _extract,
    **{f"{name} head": _head(name) for name in HEADS},
    "whole comparison": _compare,
}


def main() -> int:
    """Run all stages and print a table; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Measure time, memory and disk space of each stage on drawn dogs; by default "
        "on as many breeds and images as Stanford Dogs has."
    )
    parser.add_argument("--breeds", type=int, default=120, help="number of breeds (default 120)")
    parser.add_argument("--images", type=int, default=171, help="images per breed (default 171)")
    parser.add_argument("--backbone", default="pocket", help="default: pocket")
    parser.add_argument(
        "--folder", help="where to keep images and cache (default: dogs-size in the cache folder)"
    )
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = Path(options.folder) if options.folder else cache_folder() / "dogs-size"
    if options.stage:
        return _run_stage(root, options)
    print(f"{'stage':<18} {'seconds':>8} {'peak MiB':>9} {'disk MiB':>9}  result")
    for stage in STAGES:
        command = [sys.executable, "-m", "bench.perf.dogs_size", *sys.argv[1:], "--stage", stage]
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - started
        record = json.loads(done.stdout.splitlines()[-1])
        disk = record["bytes"] / 2**20
        print(
            f"{stage:<18} {seconds:>8.1f} {record['peak'] / 2**20:>9.0f} {disk:>9.1f}  "
            f"{record['done']}",
            flush=True,
        )
    return 0


def _run_stage(root: Path, options: argparse.Namespace) -> int:
    record = STAGES[options.stage](root, options)
    processes = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    record["peak"] = max(resource.getrusage(each).ru_maxrss for each in processes) * 1024
    print(json.dumps(record))
    return 0


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    sys.exit(main())
