"""A store of a million rows: time to open it, to read random rows and to stream all of them."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.backbones.spec import BackboneSpec
from featcache.store.maintenance import compact
from featcache.store.row_index import IdArray, pack_ids
from featcache.store.store import Store

from .timing import format_spread, markdown_table, median, run_interleaved, seconds_of

ROWS, WIDTH, SHARDS = 1_000_000, 512, 4000
_BLOCK = 4096
SPEC = BackboneSpec(
    "resnet50", "avg_pool", "ab" * 32, "none", (224, 224), "stretch-bilinear", 1, "00" * 8
)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds of each kind of reading."""
    rows = max(SHARDS, round(ROWS * options.scale))
    with tempfile.TemporaryDirectory(prefix="featcache-perf-", dir=options.folder) as folder:
        root = Path(folder)
        generator = np.random.default_rng(0)
        store, plain = _written(root, rows, generator)
        order = pack_ids(store.ids())  # in the order of the files
        random_rows = order[generator.permutation(rows)[:10_000]]
        ways = {**_random_reads(store, random_rows), **_streams(store, order, plain)}
        ways["stream"]()
        seconds = run_interleaved(ways, options.repeats)
    return [{"rows": rows, "width": WIDTH, "seconds": seconds}]


def _written(
    root: Path, rows: int, generator: np.random.Generator
) -> tuple[Store, NDArray[np.float32]]:
    """Write the same rows to a compacted store and to a memory-mapped file."""
    store = Store.create(root / "store", SPEC, WIDTH)
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
    return store, plain


def _random_reads(store: Store, random_rows: IdArray) -> dict[str, Callable[[], float]]:
    """Return measurements of opening a store and of reading some of its rows."""

    def opened() -> float:
        return seconds_of(lambda: Store(store.folder))

    def first() -> float:
        fresh = Store(store.folder)
        return seconds_of(lambda: fresh.read(random_rows))

    def again() -> float:
        store.read(random_rows)
        return seconds_of(lambda: store.read(random_rows))

    return {
        "open": opened,
        "10,000 random rows, first read": first,
        "10,000 random rows, later read": again,
    }


def _streams(
    store: Store, order: IdArray, plain: NDArray[np.float32]
) -> dict[str, Callable[[], float]]:
    """Return measurements of reading all rows in order, from a store and from mapped memory."""
    starts = range(0, len(order), _BLOCK)

    def stream() -> float:
        store.read(order[:_BLOCK])
        return seconds_of(lambda: _drop(store.read(order[i : i + _BLOCK]) for i in starts))

    def mapped() -> float:
        return seconds_of(lambda: _drop(np.array(plain[i : i + _BLOCK]) for i in starts))

    return {"stream": stream, "stream, numpy.memmap": mapped}


def _drop(blocks: Iterator[object]) -> None:
    """Iterate over blocks without keeping them: allocating new memory would dominate the time."""
    for _ in blocks:
        pass


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    (record,) = records
    seconds = record["seconds"]
    size = record["rows"] * record["width"] * 4 / 1e9
    lines = [
        f"{record['rows']:,} rows x {record['width']}, {size:.2f} GB, written in {SHARDS:,} shards "
        "and compacted; the files are in the page cache. The first read after opening verifies "
        "the SHA-256 of each file. Targets: 1 s each, and half the speed of numpy.memmap.",
        "",
        *markdown_table(
            ["operation", "seconds"], *([name, format_spread(v)] for name, v in seconds.items())
        ),
    ]
    ratio = median(seconds["stream, numpy.memmap"]) / median(seconds["stream"])
    return "\n".join([*lines, "", f"Streaming reaches {ratio:.2f} of the speed of numpy.memmap."])
