"""Writers and readers on one store at once: no torn batch, no error, no duplicate, no lost row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scale import times

from featcache import verify
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of

HEAD = """
import json, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
import numpy as np
from stores import SPEC, WIDTH, ids_of, rows_of
from featcache.store.maintenance import compact
from featcache.store.store import Store
folder, me, stop = Path({folder!r}), {me}, time.monotonic() + {seconds}
"""
# Each batch is five rows that belong together; a reader that sees one must see all.
WRITER = (
    HEAD
    + """
store = Store.create(folder, SPEC, WIDTH)
batch = 0
while time.monotonic() < stop:
    numbers = [((me * 100_000) + batch) * 5 + i for i in range(5)]
    store.append(rows_of(*numbers), ids_of(*numbers))
    batch += 1
    if batch % 10 == 0:
        store.write_manifest()
        compact(store, many=6)
store.write_manifest()
print(json.dumps({{"batches": batch}}))
"""
)
READER = (
    HEAD
    + """
seen, looks, known = 0, 0, []
store = None
while time.monotonic() < stop:
    if store is None:
        if not (folder / "MANIFEST.json").exists():
            continue
        store = Store(folder)
    store.refresh()
    looks += 1
    for writer in range(4):
        batch = sum(1 for k in known if k[0] == writer)
        numbers = [((writer * 100_000) + batch) * 5 + i for i in range(5)]
        there = store.contains(ids_of(*numbers))
        assert there.all() or not there.any(), "half a batch"
        if there.all():
            assert np.array_equal(store.read(ids_of(*numbers)), rows_of(*numbers)), "torn"
            known.append((writer, batch))
            seen += 1
    if known:
        writer, batch = known[looks % len(known)]
        numbers = [((writer * 100_000) + batch) * 5 + i for i in range(5)]
        assert np.array_equal(store.read(ids_of(*numbers)), rows_of(*numbers)), "lost"
print(json.dumps({{"seen": seen, "looks": looks}}))
"""
)


@pytest.mark.timeout(600)
def test_four_writers_and_four_readers(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    seconds = times(5, 60)
    processes = []
    for code in (WRITER, READER):
        for me in range(4):
            text = code.format(
                tests=str(Path(__file__).parents[1]), folder=str(folder), me=me, seconds=seconds
            )
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", text],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
    records = []
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 0, err[-2000:]
        assert "Traceback" not in err
        records.append(json.loads(out))
    batches = [record["batches"] for record in records[:4]]
    print(json.dumps({"batches": batches, "readers": records[4:]}))
    store = Store(folder)
    numbers = [
        ((w * 100_000) + b) * 5 + i for w in range(4) for b in range(batches[w]) for i in range(5)
    ]
    assert len(store) == len(numbers) == len(store.ids())
    assert np.array_equal(store.read(ids_of(*numbers)), rows_of(*numbers))
    assert verify(folder) == []
    assert min(batches) > 2
    assert min(record["seen"] for record in records[4:]) > 2


MERGER = (
    HEAD
    + """
import select
store = Store.create(folder, SPEC, WIDTH)
number = me * 100_000
print(me, flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:  # until the other end is closed
    number += 1
    store.append(rows_of(number), ids_of(number))
    if number % 4 == 0:
        store.write_manifest()
        compact(store, many=3)
"""
)


@pytest.mark.timeout(1500)
def test_a_store_that_is_opened_or_verified_beside_merging_writers_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    permanent = list(range(40))
    store = Store.create(folder, SPEC, WIDTH)
    for start in range(0, 40, 4):
        store.append(rows_of(*permanent[start : start + 4]), ids_of(*permanent[start : start + 4]))
    store.write_manifest()
    tests = str(Path(__file__).parents[1])
    codes = [MERGER.format(tests=tests, folder=str(folder), me=me, seconds=0) for me in (1, 2)]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for code in codes
    ]  # fmt: skip
    found = {"opens": 0, "verifies": 0, "manifests": 0}
    try:
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        first = store._manifest.generation
        for turn in range(times(24, 1000)):
            opened = Store(folder)
            assert opened.damaged == []
            assert opened.contains(ids_of(*permanent)).all()
            assert set(ids_of(*permanent)) <= set(opened.ids())
            if turn % 2:
                assert verify(folder) == []
                found["verifies"] += 1
            else:
                assert np.array_equal(opened.read(ids_of(*permanent)), rows_of(*permanent))
            found["opens"] += 1
            found["manifests"] = opened._manifest.generation - first
    finally:
        errors = [writer.communicate()[1] for writer in writers]
    assert errors == ["", ""]
    print(json.dumps(found))
    assert found["manifests"] > times(3, 300)
