"""Peak memory of an extraction, which must not grow with the number of images."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from .extraction import draw_photos
from .timing import markdown_table, run_in_subprocess

_CHILD = """
import json, sys, featcache
from bench.perf.timing import resident_bytes
features = featcache.extract(sys.argv[3], sys.argv[1], weights="random", batch_size=32,
                             engine=sys.argv[4], cache_dir=sys.argv[2], progress=False)
print(json.dumps({"images": len(features), "peak": resident_bytes("VmHWM"),
                  "seconds": features.summary.seconds}))
"""
_CASES = (("resnet50", "keras", (100, 480)), ("resnet50", "openvino", (100, 480)),
          ("mobilenet_v2", "openvino", (1000, 4000)))  # fmt: skip


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the peak resident memory by backbone, engine and number of images."""
    records = []
    for backbone, engine, counts in _CASES:
        for count in counts:
            photos = draw_photos(options.folder, max(20, round(count * options.scale)))
            with tempfile.TemporaryDirectory(prefix="featcache-perf-") as cache:
                for converted in (False, True) if engine == "openvino" else (False,):
                    record = _run(photos, Path(cache), backbone, engine, empty_store=converted)
                    records.append({
                        "backbone": backbone, "engine": engine, "converted": converted, **record,
                    })  # fmt: skip
    return records


def _run(
    photos: Path, cache: Path, backbone: str, engine: str, *, empty_store: bool
) -> dict[str, Any]:
    if empty_store:  # computes all rows again, with the converted model
        (cache / "stores").rename(cache / "before")
    return run_in_subprocess("-c", _CHILD, photos, cache, backbone, engine)


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        "Peak resident memory of the process, with batches of 32. The first run with OpenVINO "
        "also loads TensorFlow, to convert the model. Target: independent of the number of "
        "images, and less than 1.5 GB with ResNet50.",
        "",
    ]
    rows: list[list[object]] = [["backbone", "engine", "images", "peak, MiB", "seconds"]]
    for record in records:
        engine = record["engine"] + (", already converted" if record["converted"] else "")
        rows.append([
            record["backbone"], engine, f"{record['images']:,}",
            f"{record['peak'] / 2**20:,.0f}", f"{record['seconds']:.1f}",
        ])  # fmt: skip
    return "\n".join([*lines, *markdown_table(*rows)])
