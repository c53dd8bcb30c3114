"""A store of 100,000 shards with 100 million rows: time and memory of opening it and of look-ups.

The shards are made up: each is a sparse file of the right name and size, with a sidecar of random
ids. Nothing that is measured here reads a shard.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from featcache.hdf5.shard_metadata import (
    Layout,
    ShardMetadata,
    check_layout,
    encode_metadata,
    metadata_path,
)
from featcache.hdf5.shard_name import make_shard_name
from featcache.store.index_file import NAME
from featcache.store.manifest import Manifest

from .rows import SPEC
from .timing import format_spread, markdown_table, run_in_subprocess

SHARDS, ROWS, WIDTH = 100_000, 1000, 2048
_QUERIES = 10_000
# Without an index file, all ids are read and kept in memory, which takes minutes for more.
_SHARDS_WITHOUT_INDEX = 2000

_CHILD = """
import json, sys, time
import numpy as np
from bench.perf.timing import resident_bytes
from featcache.store.store import Store
started, used = time.perf_counter(), time.process_time()
store = Store(sys.argv[1], write_sidecars=False)
opened, used = time.perf_counter() - started, time.process_time() - used
peak = resident_bytes("VmHWM")
ids = [line.strip() for line in open(sys.argv[2])]
seconds = []
for _ in range(2):
    started = time.perf_counter()
    found = store.contains(ids)
    seconds.append(time.perf_counter() - started)
print(json.dumps({"open": opened, "cpu": used, "peak": peak, "first": seconds[0],
                  "later": seconds[1], "found": int(found.sum()), "rows": len(store)}))
"""
_BUILD = """
import json, sys, time
from pathlib import Path
from bench.perf.shards import SPEC, WIDTH
from bench.perf.timing import resident_bytes
from featcache.hdf5.shard_metadata import read_metadata
from featcache.store.index_build import build_index
from featcache.store.lease import lease
folder = Path(sys.argv[1])
names = sorted(path.name for path in folder.glob("*.h5"))
with lease(folder) as held:
    started = time.perf_counter()
    build_index(folder, SPEC.key, WIDTH, names, lambda name: read_metadata(folder / name)[0], held)
    seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "cpu": time.process_time(), "peak": resident_bytes("VmHWM")}))
"""


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a record of the store with its index, after one of a small store without."""
    shards = max(100, round(SHARDS * options.scale))
    few = min(shards, _SHARDS_WITHOUT_INDEX)
    with tempfile.TemporaryDirectory(prefix="featcache-perf-", dir=options.folder) as folder:
        root = Path(folder)
        _fill(root / "few", few, root / "few.txt")
        without = _open(root / "few", root / "few.txt", options.repeats)
        built = run_in_subprocess("-c", _BUILD, root / "few")
        few_with = _open(root / "few", root / "few.txt", options.repeats)
        records = [
            {"shards": few, "index": 0, "runs": without, "built": None},
            {"shards": few, "index": _index_bytes(root / "few"), "runs": few_with, "built": built},
        ]
        if shards > few:
            _fill(root / "many", shards, root / "many.txt")
            built = run_in_subprocess("-c", _BUILD, root / "many")
            runs = _open(root / "many", root / "many.txt", options.repeats)
            size = _index_bytes(root / "many")
            records.append({"shards": shards, "index": size, "runs": runs, "built": built})
    return records


def _index_bytes(folder: Path) -> int:
    return (folder / NAME).stat().st_size


def _open(folder: Path, queries: Path, repeats: int) -> list[dict[str, Any]]:
    return [run_in_subprocess("-c", _CHILD, folder, queries) for _ in range(repeats)]


def _fill(folder: Path, count: int, queries: Path) -> None:
    """Write a manifest, sparse shards, sidecars, and ids to look up, of which half are stored."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    layout = Layout(np.arange(8) * 2**20 + 4096, 128, WIDTH, np.dtype("<f4"))
    size = 4096 + 8 * 2**20
    check_layout(layout, ROWS, size)
    listed: dict[str, int] = {}
    stored: list[str] = []
    views = np.zeros(ROWS, np.int32)
    for number in range(count):
        ids = generator.integers(0, 256, (ROWS, 32), np.uint8)
        digests = generator.integers(0, 256, (ROWS, 16), np.uint8)
        name = make_shard_name(f"{number:08x}", 1, ROWS, hashlib.sha256(ids.tobytes()).hexdigest())
        metadata = ShardMetadata(ids, views, layout, SPEC.components(), 3.5)
        with open(folder / name, "wb") as shard:
            shard.truncate(size)
        data = encode_metadata(name, size, metadata, digests)
        metadata_path(folder / name).write_bytes(data)
        listed[name] = ROWS
        if len(stored) < _QUERIES // 2:
            stored += [bytes(one).hex() for one in ids[:: max(1, ROWS * 2 * count // _QUERIES)]]
    Manifest(SPEC, WIDTH, 1, listed).write(folder)
    other = generator.integers(0, 256, (_QUERIES - len(stored), 32), np.uint8)
    queries.write_text("\n".join([*stored, *(bytes(one).hex() for one in other)]))


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        f"Made-up stores of shards of {ROWS:,} rows x {WIDTH:,}: the sidecars are real, with "
        "random ids, and the shards are sparse files, which nothing here reads. Each run is a new "
        "process, whose peak includes Python and NumPy; the files were written just before, so "
        f"that the system has a part of them in memory. Look-ups are of {_QUERIES:,} ids, of "
        "which half are stored. The time of the processor shows what a machine with other work "
        "on it would need alone. Targets for 100 million rows: opened in less than 2 s and 1 GB.",
        "",
    ]
    rows: list[list[object]] = [[
        "shards", "rows", "index, GB", "build, s", "of which CPU", "peak, MiB", "open, s",
        "of which CPU", "peak, MiB", "first look-up, s", "later, s",
    ]]  # fmt: skip
    for record in records:
        runs, built = record["runs"], record["built"]
        rows.append([
            f"{record['shards']:,}", f"{runs[0]['rows']:,}",
            f"{record['index'] / 1e9:.2f}" if built else "none",
            f"{built['seconds']:.0f}" if built else "",
            f"{built['cpu']:.0f}" if built else "",
            f"{built['peak'] / 2**20:,.0f}" if built else "",
            format_spread([run["open"] for run in runs]),
            format_spread([run["cpu"] for run in runs]),
            f"{max(run['peak'] for run in runs) / 2**20:,.0f}",
            format_spread([run["first"] for run in runs]),
            format_spread([run["later"] for run in runs]),
        ])  # fmt: skip
    return "\n".join([*lines, *markdown_table(*rows)])
