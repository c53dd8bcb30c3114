"""HDF5 files that anybody may have made: whatever is in them, this process survives it."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
from scale import times

from featcache.errors import FeatcacheError
from featcache.hdf5.sandbox import unsafe_hdf5_reason
from featcache.hdf5.shard_file import encode_shard
from featcache.hdf5.shard_metadata import metadata_path
from featcache.store.maintenance import verify
from featcache.store.pack import pack, unpack
from featcache.store.row_index import pack_ids
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of

NUMBERS = tuple(range(1, 6))


def mutated(good: bytes, generator: random.Random) -> bytes:
    data = bytearray(good)
    for _ in range(generator.choice([1, 2, 8, 64])):
        reach = generator.choice([64, 512, 4096, len(data)])  # most structure lies at the start
        data[generator.randrange(min(len(data), reach))] = generator.randrange(256)
    if generator.random() < 0.2:
        del data[generator.randrange(len(data)) :]
    return bytes(data)


@pytest.mark.timeout(3000)
def test_planted_shards_end_no_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Their names hold the right SHA-256, so HDF5 is asked; in a process that may die."""
    caplog.set_level("ERROR", "featcache")
    store = Store.create(tmp_path / "store", SPEC, WIDTH)
    store.append(rows_of(99), ids_of(99))
    views = np.zeros(len(NUMBERS), np.int32)
    ids = pack_ids(ids_of(*NUMBERS))
    good, _ = encode_shard(rows_of(*NUMBERS), ids, views, SPEC.components(), {})
    outcomes, slowest = Counter[str](), 0.0
    for seed in range(times(120, 5000)):
        data = mutated(good, random.Random(seed))
        sha = hashlib.sha256(data).hexdigest()
        path = store.folder / f"{'0' * 8}-000001-{len(NUMBERS)}-{sha}.h5"
        path.write_bytes(data)
        started = time.monotonic()
        store.refresh()
        slowest = max(slowest, time.monotonic() - started)
        reasons = [damage.reason for damage in store.damaged]
        outcomes[" ".join(reasons[0].split()[:5]) if reasons else "read"] += 1
        assert np.array_equal(store.read(ids_of(99)), rows_of(99))
        assert seed % 50 or len(verify(store.folder)) == len(reasons)
        path.unlink()
        metadata_path(path).unlink(missing_ok=True)
    print(json.dumps({"outcomes": outcomes.most_common(), "slowest": round(slowest, 2)}))
    assert outcomes["read"] < outcomes.total() / 2
    assert slowest < 120  # its limits are 5 seconds of a processor, and a minute of silence


READS = """
import sys, h5py
def look(name, member):
    dict(member.attrs)
    if isinstance(member, h5py.Dataset):
        member[()]
for path in sys.argv[1:]:
    try:
        with h5py.File(path, "r") as file:
            dict(file.attrs)
            file.visititems(look)
    except Exception as error:  # an error that Python sees harms nobody
        print(type(error).__name__)
"""


@pytest.mark.timeout(3000)
def test_weights_that_pass_the_inspection_are_read_without_a_crash(tmp_path: Path) -> None:
    """What Keras would be given: none of them ends the process that opens it."""
    whole = tmp_path / "good.h5"
    with h5py.File(whole, "w") as file:
        file.attrs["layer_names"] = [b"conv", b"dense"]
        for name in ("conv", "dense"):
            group = file.create_group(f"layers/{name}/vars")
            group.attrs["weight_names"] = [b"kernel"]
            group["0"] = np.arange(96, dtype=np.float32).reshape(3, 32)
            group.create_dataset("1", data=np.ones((64, 2), np.float32), chunks=(16, 2))
            group.create_dataset("2", data=np.ones((64, 2), np.float32), compression="gzip")
    good = whole.read_bytes()
    assert unsafe_hdf5_reason(whole) is None
    passed = []
    for seed in range(times(80, 3000)):
        path = tmp_path / f"{seed}.h5"
        path.write_bytes(mutated(good, random.Random(seed)))
        if unsafe_hdf5_reason(path) is None:
            passed.append(str(path))
        else:
            path.unlink()
    assert passed
    done = subprocess.run([sys.executable, "-c", READS, *passed], capture_output=True, timeout=600)
    print(
        json.dumps(
            {"mutated": times(80, 3000), "passed": len(passed), "errors": done.stdout.count(b"\n")}
        )
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(3000)
def test_every_flip_in_a_pack_is_refused(tmp_path: Path) -> None:
    """Line, head, structure, rows, ids, paths and labels: all of it is in the digest."""
    store = Store.create(tmp_path / "store", SPEC, WIDTH)
    store.append(rows_of(*NUMBERS), ids_of(*NUMBERS))
    path = tmp_path / "p.h5"
    pack(Store(store.folder), path)
    good = path.read_bytes()
    generator = random.Random(5)
    count = times(40, 2500)
    places = [*range(160), *(generator.randrange(len(good)) for _ in range(count))]
    for place in places:
        data = bytearray(good)
        data[place] ^= 1 << generator.randrange(8)
        path.write_bytes(bytes(data))
        with pytest.raises(FeatcacheError, match=r"not an intact packed store|format version"):
            unpack(path, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    path.write_bytes(good)
    assert len(unpack(path, tmp_path / "c")) == len(NUMBERS)
    print(json.dumps({"flips": len(places), "refused": len(places)}))
