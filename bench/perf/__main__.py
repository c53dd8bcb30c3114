"""Benchmarks of speed and memory as a command: `python -m bench.perf --help`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from featcache._io.cache_dirs import cache_folder

from . import (
    busy,
    cluster,
    devices,
    extraction,
    finetune,
    heads,
    hits,
    larger,
    larger_trees,
    memory,
    pipeline,
    remote,
    rows,
    shards,
    sources,
)
from .timing import describe_machine

SECTIONS: dict[str, tuple[str, ModuleType]] = {
    "extraction": ("Extraction, compared with other libraries", extraction),
    "pipeline": ("Overlap of decoding and the forward pass", pipeline),
    "cluster": ("Extraction by the workers of a cluster", cluster),
    "devices": ("Extraction on several devices", devices),
    "hits": ("Extraction of stored images", hits),
    "sources": ("Other sources of images, compared with files", sources),
    "remote": ("Images behind URLs", remote),
    "rows": ("A store of a million rows", rows),
    "shards": ("A store of many shards", shards),
    "heads": ("Heads, compared with scikit-learn", heads),
    "larger": ("Heads on rows that do not fit in memory", larger),
    "trees": ("LightGBM on rows that do not fit in memory", larger_trees),
    "finetune": ("Fine-tuning, compared with Keras", finetune),
    "busy": ("LightGBM on a busy machine", busy),
    "memory": ("Memory of extraction", memory),
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    """Run the chosen sections and replace them in the report; return the exit status."""
    options = _parse_options()
    options.folder.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    target = RESULTS if options.scale == 1 else options.out / "RESULTS.md"
    for name in options.sections or SECTIONS:
        started = time.perf_counter()
        print(f"{name} ...", file=sys.stderr)
        records = SECTIONS[name][1].measure(options)
        record = {"machine": describe_machine(), "records": records, "scale": options.scale}
        file = options.out / f"{name}.json"
        if name == "extraction" and options.backbones and file.exists():
            record = keep_other_backbones(record, json.loads(file.read_bytes()))
        file.write_text(json.dumps(record, indent=1))
        # After each section, so that a later failure does not lose its results.
        text = update_report(target.read_text("utf-8") if target.exists() else "", {name: record})
        target.write_text(text, encoding="utf-8")
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(target.read_text("utf-8"))
    return 0


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.perf",
        description="Compare the speed and memory of featcache with those of other libraries, and "
        "with what the hardware allows. Takes more than an hour on two cores; --scale 0.1 is a "
        "test run of some minutes.",
    )
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help=f"default: {', '.join(SECTIONS)}")
    add("--repeats", type=int, default=5, help="number of measurements (default 5)")
    add("--scale", type=float, default=1.0, help="fraction of the images and rows (default 1)")
    add(
        "--backbones",
        nargs="+",
        help="only these in the section extraction; keep the results of others",
    )
    add("--peers-python", help="interpreter of an environment with thingsvision and embetter")
    add(
        "--folder", type=Path, help="where to keep drawn images (default: perf in the cache folder)"
    )
    add(
        "--out",
        type=Path,
        default=Path("results/perf"),
        help="folder of the JSON files (default results/perf)",
    )
    options = parser.parse_args()
    options.folder = options.folder or cache_folder() / "perf"
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown section {sorted(unknown)[0]!r}; choose from {', '.join(SECTIONS)}")
    return options


def keep_other_backbones(record: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Add the results of other backbones from an earlier run on this machine at this scale.

    The ratios of a backbone are all from one run, so results of several runs can be combined.
    """
    if any(record[key] != earlier[key] for key in ("machine", "scale")):
        return record
    new = {found["backbone"]: found for found in record["records"]}
    kept = [new.pop(found["backbone"], found) for found in earlier["records"]]
    return {**record, "records": [*kept, *new.values()]}


def update_report(before: str, records: Mapping[str, dict[str, Any]]) -> str:
    """Return the report with some sections replaced.

    Each section names its machine, since sections may be from different runs.

    Parameters
    ----------
    before : str
        The current report; may be empty.
    records : mapping of str to dict
        Machine, scale and records (the result of `measure`) by section.
    """
    sections = re.findall(r"^(## ([^\n(]+?)(?: \([^\n]*)?\n.*?)(?=^## |\Z)", before, re.M | re.S)
    older = {title: text.strip() for text, title in sections}
    parts = [
        "# Benchmarks of speed and memory",
        "Written by `make bench-perf`, which measured every figure. Compare the ratios: the "
        "figures themselves depend on the machine and on its load.",
    ]
    for name, (title, module) in SECTIONS.items():
        if name in records:
            record = records[name]
            scale = "" if record["scale"] == 1 else f" (at {record['scale']} of the size)"
            on = "; ".join(record["machine"].values())
            parts += [f"## {title}{scale}", f"Machine: {on}.", module.describe(record["records"])]
        elif title in older:
            parts.append(older[title])
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
