"""Linear heads on a store of more rows than memory may hold, and the same head in memory."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from featcache.store.lazy_rows import StoredRows
from featcache.store.store import Store
from heads import make_head

from .rows import SPEC
from .timing import markdown_table, reset_peak_rss, resident_bytes, run_in_subprocess

WIDTH, CLASSES, TEST, BATCH = 1024, 20, 50_000, 20_000
# Rows, and whether the head is trained in memory as well.
CASES = ((200_000, True), (2_000_000, False))
LIMIT = 2**30
HEADS = ("logistic", "svm", "ridge")


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return seconds, accuracy and peak memory of each head, each in a new process."""
    records = []
    for count, in_memory in CASES:
        rows = max(20_000, round(count * options.scale))
        with tempfile.TemporaryDirectory(prefix="featcache-perf-", dir=options.folder) as folder:
            write_rows(Path(folder), rows + TEST, WIDTH, CLASSES)
            for head in HEADS:
                for limit in (LIMIT, 2**50) if in_memory else (LIMIT,):
                    found = measure_head(folder, head, rows, limit)
                    records.append({"head": head, "rows": rows, "limit": limit, **found})
    return records


def write_rows(folder: Path, rows: int, width: int, classes: int) -> None:
    """Write made-up rows of overlapping classes, batch by batch, with their ids and labels."""
    store = Store.create(folder / "store", SPEC, width)
    generator = np.random.default_rng(0)
    centres = generator.normal(0, 3.2 / np.sqrt(width), (classes, width)).astype(np.float32)
    ids = generator.integers(0, 256, (rows, 32), np.uint8)
    codes = generator.integers(0, classes, rows)
    for start in range(0, rows, BATCH):
        part = slice(start, start + BATCH)
        noise = generator.standard_normal((len(codes[part]), width), np.float32)
        noise += centres[codes[part]]
        store.append_packed(noise, ids[part], np.zeros(len(noise), np.int32), {})
    store.write_manifest()
    np.save(folder / "ids.npy", ids)
    np.save(folder / "codes.npy", codes)


def measure_head(folder: str, head: str, rows: int, limit: int, **options: float) -> dict[str, Any]:
    """Return seconds, accuracy and peak memory of a head on rows of `write_rows`."""
    return run_in_subprocess(
        "-m", "bench.perf.larger", folder, head, rows, limit, json.dumps(options)
    )


def _measure(folder: str, name: str, count: str, limit: str, options: str) -> dict[str, Any]:
    rows = StoredRows(Store(Path(folder) / "store"), np.load(Path(folder) / "ids.npy"))
    codes = np.load(Path(folder) / "codes.npy")
    train, test = slice(0, int(count)), slice(int(count), None)
    head = make_head(name, memory_limit=int(limit), **json.loads(options))
    reset_peak_rss()
    started, before = time.perf_counter(), resident_bytes("VmRSS")
    head.fit(rows.take(train), codes[train])
    seconds = time.perf_counter() - started
    peak = resident_bytes("VmHWM")
    return {"seconds": seconds, "accuracy": head.score(rows.take(test), codes[test]), "peak": peak,
            "before": before, "iterations": getattr(head, "n_iter_", 1)}  # fmt: skip


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        f"Made-up rows of {WIDTH:,} columns and {CLASSES} overlapping classes in a store, "
        f"`memory_limit` {LIMIT / 2**30:g} GiB; accuracy on {TEST:,} other rows. The peak is that "
        "of the process. Targets: less than 2 GB, and within 0.2 points of training in memory.",
        "",
    ]
    header = ["head", "rows", "size, GB", "read", "seconds", "iterations", "accuracy", "peak, MiB"]
    rows = [
        [
            record["head"], f"{record['rows']:,}", f"{record['rows'] * WIDTH * 4 / 1e9:.1f}",
            "in blocks" if record["limit"] == LIMIT else "into memory",
            f"{record['seconds']:.0f}", record["iterations"], f"{record['accuracy']:.4f}",
            f"{record['peak'] / 2**20:,.0f}",
        ]
        for record in records
    ]  # fmt: skip
    return "\n".join([*lines, *markdown_table(header, *rows)])


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
