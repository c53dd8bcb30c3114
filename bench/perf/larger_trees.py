"""LightGBM on a store of more rows than memory may hold, and in memory."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from .larger import TEST, measure_head, write_rows
from .timing import markdown_table

CLASSES, N_ESTIMATORS = 10, 10
# All columns and thresholds: in so few rounds, the drawn ones would decide on the accuracy.
ALL = {"n_estimators": N_ESTIMATORS, "feature_fraction": 1.0, "extra_trees": False}
# Rows, columns, the limit in bytes, and whether the head is trained in memory as well.
CASES = ((500_000, 256, 2**29, True), (2_000_000, 1024, 3 * 2**29, False))
IN_MEMORY = 2**50


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return seconds, accuracy and peak memory, each in a new process."""
    records = []
    for count, width, limit, in_memory in CASES:
        rows = max(20_000, round(count * options.scale))
        with tempfile.TemporaryDirectory(prefix="featcache-perf-", dir=options.folder) as folder:
            write_rows(Path(folder), rows + TEST, width, CLASSES)
            for each in (limit, IN_MEMORY) if in_memory else (limit,):
                found = measure_head(folder, "lightgbm", rows, each, **ALL)
                records.append({"rows": rows, "width": width, "limit": each, **found})
    return records


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        f"Made-up rows of {CLASSES} overlapping classes in a store, {N_ESTIMATORS} rounds on all "
        f"128 principal components; accuracy on {TEST:,} other rows. The peak is that of the "
        "process, and includes what it took before training began. Target: within 0.2 points of "
        "training in memory.",
        "",
    ]
    header = ["rows", "columns", "size, GB", "memory_limit, MiB", "seconds", "accuracy",
              "peak, MiB", "before, MiB"]  # fmt: skip
    rows = [
        [
            f"{record['rows']:,}", f"{record['width']:,}",
            f"{record['rows'] * record['width'] * 4 / 1e9:.1f}",
            "in memory" if record["limit"] == IN_MEMORY else f"{record['limit'] / 2**20:,.0f}",
            f"{record['seconds']:.0f}", f"{record['accuracy']:.4f}",
            f"{record['peak'] / 2**20:,.0f}", f"{record['before'] / 2**20:,.0f}",
        ]
        for record in records
    ]  # fmt: skip
    return "\n".join([*lines, *markdown_table(header, *rows)])
