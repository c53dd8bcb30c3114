"""Time of an extraction whose images are all stored, or all but one per cent."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featcache.extraction.extract import extract
from featcache.images.image_file import content_id
from featcache.store.store import Store

from .extraction import draw_photos
from .timing import format_spread, markdown_table, median, run_in_subprocess

IMAGES = 20_580
_CHILD = """
import json, sys, time
started = time.perf_counter()
import featcache
features = featcache.extract("resnet50", sys.argv[1], weights="random", cache_dir=sys.argv[2],
                             progress=False)
seconds = time.perf_counter() - started
stages = features.summary.stages
print(json.dumps({"seconds": seconds, "computed": features.summary.computed,
                  "tensorflow": "tensorflow" in sys.modules,
                  "forward": stages.forward if stages else 0}))
"""


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a record for each of the two cases; every extraction runs in its own process."""
    count = max(400, round(IMAGES * options.scale))
    fresh = sorted(draw_photos(options.folder, count // 100 // 10 * 10 or 10).rglob("*.jpg"))
    with tempfile.TemporaryDirectory(prefix="featcache-perf-") as folder:
        root = Path(folder)
        photos, cache = root / "photos", root / "cache"
        _fill(photos, cache, count)
        _run(photos, cache)  # reads and indexes every file once
        hits = [_run(photos, cache) for _ in range(options.repeats)]
        partial = []
        for turn in range(options.repeats):
            for path in fresh:  # the same pictures with other bytes, so that they are new
                data = path.read_bytes() + bytes([turn])
                (photos / "c0" / f"new-{turn}-{path.parent.name}-{path.name}").write_bytes(data)
            partial.append(_run(photos, cache))
    return [{"case": "all stored", "images": count, "runs": hits},
            {"case": "1 % new", "images": count, "runs": partial}]  # fmt: skip


def _fill(photos: Path, cache: Path, count: int) -> None:
    """Write small images, and random rows for them."""
    ids = []
    for i in range(count):
        path = photos / f"c{i % 120}" / f"{i:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array([[[i % 256, i // 256 % 256, 7]]], np.uint8)).save(path)
        ids.append(content_id(path.read_bytes()))
    first = extract(
        "resnet50", [str(photos / "c0" / "00000.png")], weights="random", cache_dir=cache,
        engine="openvino", progress=False,
    )  # fmt: skip
    store = Store(first.summary.folder)
    generator = np.random.default_rng(0)
    for start in range(1, count, 2048):
        part = ids[start : start + 2048]
        store.append(generator.normal(size=(len(part), store.width)).astype(np.float32), part)
    store.write_manifest()


def _run(photos: Path, cache: Path) -> dict[str, Any]:
    return run_in_subprocess("-c", _CHILD, photos, cache)


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        "`featcache.extract` with ResNet50, including the import of featcache, in a new process "
        "per run. Targets: with all images stored, less than 1 s without importing TensorFlow; "
        "with 1 % new, no more than start-up and forward pass.",
        "",
    ]
    rows: list[list[object]] = [
        ["case", "images", "computed", "seconds", "forward pass, s", "TensorFlow imported"]
    ]
    for record in records:
        runs = record["runs"]
        rows.append([
            record["case"], f"{record['images']:,}", runs[0]["computed"],
            format_spread([run["seconds"] for run in runs]),
            f"{median([run['forward'] for run in runs]):.2f}",
            "yes" if any(run["tensorflow"] for run in runs) else "no",
        ])  # fmt: skip
    return "\n".join([*lines, *markdown_table(*rows)])
