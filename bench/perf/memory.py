"""Peak memory of an extraction does not grow with the number of images: measured."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from .extraction import draw
from .timing import in_a_process, table

_CHILD = """
import json, sys, featcache
from bench.perf.timing import resident
features = featcache.extract(sys.argv[3], sys.argv[1], weights="random", batch_size=32,
                             engine=sys.argv[4], cache_dir=sys.argv[2], progress=False)
print(json.dumps({"images": len(features), "peak": resident("VmHWM"),
                  "seconds": features.summary.seconds}))
"""
_CASES = (("resnet50", "keras", (100, 480)), ("resnet50", "openvino", (100, 480)),
          ("mobilenet_v2", "openvino", (1000, 4000)))  # fmt: skip


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the largest resident size by backbone, engine and number of images."""
    found = []
    for backbone, engine, counts in _CASES:
        for count in counts:
            photos = draw(options.folder, max(20, round(count * options.scale)))
            with tempfile.TemporaryDirectory(prefix="featcache-perf-") as cache:
                for converted in (False, True) if engine == "openvino" else (False,):
                    record = _run(photos, Path(cache), backbone, engine, fresh=converted)
                    found.append({
                        "backbone": backbone, "engine": engine, "converted": converted, **record,
                    })  # fmt: skip
    return found


def _run(photos: Path, cache: Path, backbone: str, engine: str, *, fresh: bool) -> dict[str, Any]:
    if fresh:  # all rows again, with the model that was converted before
        (cache / "stores").rename(cache / "before")
    return in_a_process("-c", _CHILD, photos, cache, backbone, engine)


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        "Largest resident size of the process, batches of 32. A first run with OpenVINO holds "
        "TensorFlow as well, to convert the model. Target: flat, and under 1.5 GB with ResNet50.",
        "",
    ]
    rows: list[list[object]] = [["backbone", "engine", "images", "peak, MiB", "seconds"]]
    for record in records:
        engine = record["engine"] + (", converted before" if record["converted"] else "")
        rows.append([
            record["backbone"], engine, f"{record['images']:,}",
            f"{record['peak'] / 2**20:,.0f}", f"{record['seconds']:.1f}",
        ])  # fmt: skip
    return "\n".join([*lines, *table(*rows)])
