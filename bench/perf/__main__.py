"""All measurements side by side: `python -m bench.perf --help`."""

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

from . import busy, extraction, heads, hits, memory, pipeline, rows
from .timing import machine

SECTIONS: dict[str, tuple[str, ModuleType]] = {
    "extraction": ("End to end, against others", extraction),
    "pipeline": ("Overlap of the stages", pipeline),
    "hits": ("Hits", hits),
    "rows": ("A million rows", rows),
    "heads": ("Heads", heads),
    "busy": ("LightGBM on a busy machine", busy),
    "memory": ("Memory of extraction", memory),
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    """Measure what was asked for, and write the report of all that was ever measured here."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.perf",
        description="Measure featcache against its peers and its limits, as ratios in one run. "
        "More than an hour on two cores; --scale 0.1 shows in minutes that it works.",
    )
    add = parser.add_argument
    add("sections", nargs="*", metavar="SECTION", help=f"default: all of {', '.join(SECTIONS)}")
    add("--repeats", type=int, default=5, help="measurements of each (default 5)")
    add("--scale", type=float, default=1.0, help="fraction of the images and rows (default 1)")
    add("--backbones", nargs="+", help="of the section 'extraction', others measured here stay")
    add("--peers-python", help="an interpreter that has thingsvision and embetter")
    add("--folder", type=Path, help="for pictures; kept (default: perf in the cache folder)")
    add("--out", type=Path, default=Path("results/perf"), help="raw figures (default results/perf)")
    options = parser.parse_args()
    options.folder = options.folder or cache_folder() / "perf"
    options.folder.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {sorted(unknown)[0]!r}; choose from {', '.join(SECTIONS)}")
    target = RESULTS if options.scale == 1 else options.out / "RESULTS.md"
    for name in options.sections or SECTIONS:
        started = time.perf_counter()
        print(f"{name} ...", file=sys.stderr)
        records = SECTIONS[name][1].measure(options)
        record = {"machine": machine(), "records": records, "scale": options.scale}
        file = options.out / f"{name}.json"
        if name == "extraction" and options.backbones and file.exists():
            record = with_others(record, json.loads(file.read_bytes()))
        file.write_text(json.dumps(record, indent=1))
        # After each section: what was measured is not lost with what comes next.
        text = report(target.read_text("utf-8") if target.exists() else "", {name: record})
        target.write_text(text, encoding="utf-8")
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(target.read_text("utf-8"))
    return 0


def with_others(record: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Keep what was measured of other backbones, if it was on this machine and at this scale.

    Each backbone's ratios are taken within its own run, so that they may stand side by side.
    """
    if any(record[key] != earlier[key] for key in ("machine", "scale")):
        return record
    again = {found["backbone"]: found for found in record["records"]}
    kept = [again.pop(found["backbone"], found) for found in earlier["records"]]
    return {**record, "records": [*kept, *again.values()]}


def report(before: str, records: Mapping[str, dict[str, Any]]) -> str:
    """Return the report with some sections measured again.

    Each section says on which machine it was measured: not all are measured in one run.

    Parameters
    ----------
    before : str
        The report so far; may be empty.
    records : mapping of str to dict
        Section -> machine, scale and what its `measure` returned.
    """
    sections = re.findall(r"^(## ([^\n(]+?)(?: \([^\n]*)?\n.*?)(?=^## |\Z)", before, re.M | re.S)
    older = {title: text.strip() for text, title in sections}
    parts = [
        "# Speed, measured side by side",
        "Written by `make bench-perf`; every figure was measured by it. The ratios are what "
        "counts: machines differ, and so do their moods.",
    ]
    for name, (title, module) in SECTIONS.items():
        if name in records:
            record = records[name]
            scale = "" if record["scale"] == 1 else f" (at {record['scale']} of the size)"
            on = "; ".join(record["machine"].values())
            parts += [f"## {title}{scale}", f"On: {on}.", module.describe(record["records"])]
        elif title in older:
            parts.append(older[title])
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
