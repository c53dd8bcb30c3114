"""A store of a million rows: opened, read at random and streamed, against `numpy.memmap`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from featcache.backbones.spec import BackboneSpec
from featcache.store.maintenance import compact
from featcache.store.row_index import pack_ids
from featcache.store.store import Store

from .timing import in_turns, median, seconds_of, spread, table

ROWS, WIDTH, SHARDS = 1_000_000, 512, 4000
_BLOCK = 4096
_SPEC = BackboneSpec(
    "resnet50", "avg_pool", "ab" * 32, "none", (224, 224), "stretch-bilinear", 1, "00" * 8
)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return seconds of each kind of reading."""
    rows = max(SHARDS, round(ROWS * options.scale))
    with tempfile.TemporaryDirectory(prefix="featcache-perf-", dir=options.folder) as folder:
        root = Path(folder)
        generator = np.random.default_rng(0)
        store = Store.create(root / "store", _SPEC, WIDTH)
        plain = np.memmap(root / "plain", np.float32, "w+", shape=(rows, WIDTH))
        ids = generator.integers(0, 256, (rows, 32), np.uint8)
        size = rows // SHARDS
        for start in range(0, rows, size):
            part = ids[start : start + size]
            values = generator.normal(size=(len(part), WIDTH)).astype(np.float32)
            plain[start : start + size] = values
            store.append_packed(values, part, np.zeros(len(part), np.int32), {})
        store.write_manifest()
        compact(store)
        order = pack_ids(store.ids())  # as they lie in the files
        some = order[generator.permutation(rows)[:10_000]]

        def opened() -> float:
            return seconds_of(lambda: Store(root / "store"))

        def first() -> float:
            fresh = Store(root / "store")
            return seconds_of(lambda: fresh.read(some))

        def again() -> float:
            store.read(some)
            return seconds_of(lambda: store.read(some))

        def stream() -> float:
            store.read(order[:_BLOCK])
            return seconds_of(
                lambda: _drop(store.read(order[i : i + _BLOCK]) for i in range(0, rows, _BLOCK))
            )

        def mapped() -> float:
            return seconds_of(
                lambda: _drop(np.array(plain[i : i + _BLOCK]) for i in range(0, rows, _BLOCK))
            )

        stream()
        ways = {
            "open": opened, "10,000 random rows, just opened": first,
            "10,000 random rows, again": again, "stream": stream, "stream, numpy.memmap": mapped,
        }  # fmt: skip
        seconds = in_turns(ways, options.repeats)
    return [{"rows": rows, "width": WIDTH, "seconds": seconds}]


def _drop(blocks: Iterator[object]) -> None:
    """Go through blocks as a consumer would, who keeps none: fresh memory is what costs most."""
    for _ in blocks:
        pass


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    (record,) = records
    seconds = record["seconds"]
    size = record["rows"] * record["width"] * 4 / 1e9
    lines = [
        f"{record['rows']:,} rows x {record['width']}, {size:.2f} GB, written in {SHARDS:,} shards "
        "and compacted; the files are in the system's cache. What was just opened compares the "
        "SHA-256 of every file that it reads from. Targets: 1 s each, and half of memmap's speed.",
        "",
        *table(["what", "seconds"], *([name, spread(v)] for name, v in seconds.items())),
    ]
    ratio = median(seconds["stream, numpy.memmap"]) / median(seconds["stream"])
    return "\n".join([*lines, "", f"The stream runs at {ratio:.2f} of numpy.memmap's speed."])
