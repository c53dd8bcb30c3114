"""What a full hit costs at the size of Stanford Dogs, and one per cent of new photos."""

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

from .extraction import draw
from .timing import in_a_process, median, spread, table

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
    """Return records of a hit and of one per cent new, each in a process of its own."""
    count = max(400, round(IMAGES * options.scale))
    fresh = sorted(draw(options.folder, count // 100 // 10 * 10 or 10).rglob("*.jpg"))
    with tempfile.TemporaryDirectory(prefix="featcache-perf-") as folder:
        root = Path(folder)
        photos, cache = root / "photos", root / "cache"
        _fill(photos, cache, count)
        _run(photos, cache)  # reads every file once, for the index
        hits = [_run(photos, cache) for _ in range(options.repeats)]
        more = []
        for turn in range(options.repeats):
            for path in fresh:  # other bytes in every turn, the same picture
                data = path.read_bytes() + bytes([turn])
                (photos / "c0" / f"new-{turn}-{path.parent.name}-{path.name}").write_bytes(data)
            more.append(_run(photos, cache))
    return [{"what": "full hit", "images": count, "runs": hits},
            {"what": "1 % new", "images": count, "runs": more}]  # fmt: skip


def _fill(photos: Path, cache: Path, count: int) -> None:
    """Write small images, and rows for them without computing any."""
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
    return in_a_process("-c", _CHILD, photos, cache)


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        "ResNet50, `featcache.extract` with its import, in a new process each time. Target of a "
        "full hit: under 1 s and no TensorFlow; of 1 % new: the forward pass and start-up.",
        "",
    ]
    rows: list[list[object]] = [
        ["what", "images", "computed", "seconds", "of which forward", "TensorFlow imported"]
    ]
    for record in records:
        runs = record["runs"]
        rows.append([
            record["what"], f"{record['images']:,}", runs[0]["computed"],
            spread([run["seconds"] for run in runs]),
            f"{median([run['forward'] for run in runs]):.2f}",
            "yes" if any(run["tensorflow"] for run in runs) else "no",
        ])  # fmt: skip
    return "\n".join([*lines, *table(*rows)])
