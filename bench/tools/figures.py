"""Print the figures of docs/stanford-dogs.md, as Markdown, from the results of runs.

``python -m bench.tools.figures results/dogs/official/results.json`` prints a table of accuracies
with their 95 % intervals, one row per contender, and one of the cost of each backbone's features.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
_FLIP = " + flip"
_ACCURACY: Sequence[str] = (
    "| backbone | head | top-1 [95 % interval] | with the mirror image | macro-F1 | training, s |",
    "| --- | --- | --- | --- | --- | --- |",
)
_COST: Sequence[str] = (
    "| backbone | features of all images, s | on disk, MB |",
    "| --- | --- | --- |",
)


def read_rows(paths: Sequence[str | Path]) -> list[Row]:
    """Return the summary's row of each contender of some runs, in their order."""
    rows: list[Row] = []
    for path in paths:
        rows += json.loads(Path(path).read_text("utf-8"))["summary"]["table"]
    return rows


def accuracy_table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of the table of accuracies.

    A contender that averages an image and its mirror image is a column of the one without.
    """
    flipped = {row["contender"].removesuffix(_FLIP): row for row in rows if _is_flipped(row)}
    lines: list[str] = list(_ACCURACY)
    for row in rows:
        if _is_flipped(row):
            continue
        backbone, _, head = row["contender"].rpartition(" + ")
        other = flipped.get(row["contender"])
        mirrored = "" if other is None else f"{other['top1']:.3f}"
        lines.append(
            f"| {_short(backbone)} | {head} | {_with_interval(row)} | {mirrored} | "
            f"{row['macro_f1']:.3f} | {row['fit_seconds']:.1f} |"
        )
    return lines


def cost_table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of the table of each backbone's extraction."""
    lines: list[str] = list(_COST)
    seen: set[str] = set()
    for row in rows:
        backbone = _short(row["contender"].rpartition(" + ")[0])
        if _is_flipped(row) or backbone in seen:
            continue
        seen.add(backbone)
        size = row["disk_bytes"] / 1e6
        lines.append(f"| {backbone} | {row['extract_seconds']:,.0f} | {size:,.0f} |")
    return lines


def _is_flipped(row: Row) -> bool:
    return str(row["contender"]).endswith(_FLIP)


def _short(backbone: str) -> str:
    """Return the names of backbones without their options."""
    return re.sub(r"@[^+]*", "", backbone).replace("+", " + ")


def _with_interval(row: Row) -> str:
    text = f"{row['top1']:.3f} [{row['top1_low']:.3f}, {row['top1_high']:.3f}]"
    if "top1_mean" in row:
        text += f"; {row['top1_mean']:.3f} +- {row['top1_std']:.3f} over seeds"
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables of the runs named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.tools.figures", description=__doc__)
    parser.add_argument("results", nargs="+", metavar="results.json")
    rows = read_rows(parser.parse_args(arguments).results)
    print("\n".join([*accuracy_table(rows), "", *cost_table(rows)]))


if __name__ == "__main__":
    main()
