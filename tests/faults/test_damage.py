"""Flipped bits and missing ends: all found, none believed, and mended row by row."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from scale import times

from featcache import repair, shards, verify
from featcache.errors import FeatcacheError
from featcache.fileindex import identify
from featcache.images import content_id
from featcache.store import Store
from test_store import SPEC, WIDTH, ids_of, rows_of

SHARDS = 8


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "store"
    store = Store.create(folder, SPEC, WIDTH)
    for shard in range(SHARDS):
        numbers = range(shard * 5, shard * 5 + 5)
        store.append(rows_of(*numbers), ids_of(*numbers))
    store.add_to_quarantine({ids_of(1000)[0]: "is damaged"})
    store.write_manifest()
    store.close()
    return folder


def spoil(path: Path, generator: random.Random, truncate: bool) -> None:
    data = bytearray(path.read_bytes())
    if truncate:
        del data[generator.randrange(len(data)) :]
    else:
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.write_bytes(bytes(data))


def read_what_is_left(folder: Path) -> list[int]:
    """Read every row that the store offers; assert that it is the right one."""
    everything = list(range(SHARDS * 5))
    try:
        store = Store(folder)
    except FeatcacheError:
        return []
    left = []
    for number, there in zip(everything, store.contains(ids_of(*everything)), strict=True):
        if there:
            try:
                row = store.read(ids_of(number))
            except FeatcacheError:
                continue
            assert np.array_equal(row, rows_of(number))
            left.append(number)
    store.close()
    return left


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("truncate", [False, True], ids=["flipped bits", "truncations"])
def test_all_damage_is_found_and_only_its_rows_go(
    sound: Path, tmp_path: Path, truncate: bool
) -> None:
    generator = random.Random(4)
    files = sorted(sound.iterdir())
    # Shards make up most of a store, so they are hit most often.
    targets = [*(path for path in files if path.suffix == ".h5"), *files]
    trials = times(12, 200) if truncate else times(40, 2000)
    counts: dict[int, int] = {}
    for _ in range(trials):
        folder = tmp_path / "store"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound, folder)
        hit = folder / generator.choice(targets).name
        spoil(hit, generator, truncate)
        found = verify(folder)
        assert hit.name in {damage.name for damage in found}
        left = read_what_is_left(folder)
        most = 5 if hit.suffix == ".h5" else 0
        if hit.name != "MANIFEST.json":
            assert len(left) >= SHARDS * 5 - most
        told = sum(damage.rows for damage in repair(folder))
        assert verify(folder) == []
        mended = read_what_is_left(folder)
        gone = sorted(set(range(SHARDS * 5)) - set(mended))
        assert len(gone) == told <= most
        counts[len(gone)] = counts.get(len(gone), 0) + 1
        # The rows that went can be committed again.
        store = Store(folder)
        if gone:
            store.append(rows_of(*gone), ids_of(*gone))
            assert len(read_what_is_left(folder)) == SHARDS * 5
        store.close()
    print(json.dumps({"trials": trials, "trials by rows lost": dict(sorted(counts.items()))}))
    assert truncate or counts[0] + counts[1] > trials / 2  # no more goes than was hit


@pytest.mark.parametrize("part", ["embeddings", "image_id", "view", "row_sum"])
def test_a_flipped_bit_costs_the_row_that_it_hit_and_no_other(
    sound: Path, tmp_path: Path, part: str
) -> None:
    generator = random.Random(6)
    for number in range(SHARDS):
        folder = tmp_path / str(number)
        shutil.copytree(sound, folder)
        store = Store(folder)
        name, row = store.shard_names[number], generator.randrange(5)
        with h5py.File(folder / name) as file:
            data = file[part]
            start = data.id.get_chunk_info(0).byte_offset
            length = data.nbytes // 5
            ids = [bytes(image_id).hex() for image_id in file["image_id"]]
        content = bytearray((folder / name).read_bytes())
        content[start + row * length + generator.randrange(length)] ^= 1 << generator.randrange(8)
        (folder / name).write_bytes(content)
        (found,) = verify(folder)
        assert (found.name, found.rows, len(found.ids)) == (name, 1, 1)
        assert part == "image_id" or found.ids == (ids[row],)
        assert repair(folder) == [found]
        assert verify(folder) == []
        assert len(read_what_is_left(folder)) == SHARDS * 5 - 1
        assert not Store(folder).contains([ids[row]])[0]


def test_rows_of_another_spec_are_not_saved_from_a_damaged_shard(
    sound: Path, tmp_path: Path
) -> None:
    other = dataclasses.replace(SPEC, layer="other")
    store = Store.create(tmp_path / "store", other, WIDTH)
    shard = next(sound.glob("*.h5"))
    (tmp_path / "store" / shard.name).write_bytes(shard.read_bytes()[:-1] + b"x")
    (found,) = repair(store.folder)
    assert found.rows == 5
    assert len(Store(store.folder)) == 0


def test_a_shard_without_sums_of_its_rows_is_read_and_lost_as_a_whole(
    sound: Path, tmp_path: Path
) -> None:
    # As the first versions wrote them.
    folder = tmp_path / "store"
    shutil.copytree(sound, folder)
    (folder / "MANIFEST.json").unlink()
    for path in list(folder.glob("*.h5")):
        with h5py.File(path, "r+") as file:
            del file["row_sum"]
        content = path.read_bytes()
        renamed = shards.name_of("0" * 8, 1, 5, hashlib.sha256(content).hexdigest())
        path.rename(folder / renamed)
    assert [damage.name for damage in repair(folder)] == ["MANIFEST.json"]
    assert len(read_what_is_left(folder)) == SHARDS * 5
    spoil(next(folder.glob("*.h5")), random.Random(3), False)
    (found,) = repair(folder)
    assert (found.rows, found.ids) == (5, ())
    assert len(read_what_is_left(folder)) == SHARDS * 5 - 5


def test_a_damaged_index_of_files_never_names_a_wrong_content(tmp_path: Path) -> None:
    paths = []
    for i in range(12):
        path = tmp_path / "files" / f"{i}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([i]) * 50)
        os.utime(path, (1, 1))
        paths.append(str(path))
    expected = [content_id(Path(path).read_bytes()) for path in paths]
    # Files whose times are too fresh are not remembered: change times cannot be set back.
    time.sleep(2.1)
    index = tmp_path / "index"
    assert [found.image_id for found in identify(paths, "root", index)] == expected
    (file,) = index.iterdir()
    good = file.read_bytes()
    generator = random.Random(5)
    for _ in range(times(60, 2000)):
        file.write_bytes(good)
        spoil(file, generator, generator.random() < 0.1)
        assert [found.image_id for found in identify(paths, "root", index)] == expected


CHILD = """
import random, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_store import SPEC, WIDTH, ids_of, rows_of
from featcache.errors import FeatcacheError
from featcache.hdf5 import ShardReader
from featcache.rowfiles import RowFiles
import numpy as np
good = Path({good!r}).read_bytes()
path = Path({path!r})
for seed in range({first}, {last}):
    generator = random.Random(seed)
    data = bytearray(good)
    for _ in range(generator.choice([1, 2, 8, 64])):
        reach = generator.choice([64, 512, 4096, len(data)])  # most structure lies at the start
        data[generator.randrange(min(len(data), reach))] = generator.randrange(256)
    if generator.random() < 0.2:
        del data[generator.randrange(len(data)):]
    path.write_bytes(bytes(data))
    try:
        with ShardReader(path) as reader:
            head = reader.head
        RowFiles(path.parent).read_all(path.name, head.layout, len(head.views))
    except FeatcacheError:
        pass
    print(seed, flush=True)
"""


@pytest.mark.timeout(1500)
def test_mutated_shards_never_take_the_reader_down(sound: Path, tmp_path: Path) -> None:
    """Beyond the hash: what somebody who also fixed the name could have us parse."""
    good = next(sound.glob("*.h5"))
    total, first, crashes = times(100, 5000), 0, []
    while first < total:
        code = CHILD.format(
            tests=str(Path(__file__).parents[1]), good=str(good), path=str(tmp_path / "m.h5"),
            first=first, last=total,
        )  # fmt: skip
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        last = int(done.stdout.split()[-1]) if done.stdout.split() else first - 1
        if done.returncode == 0:
            break
        # Python's own errors would be defects of ours; a signal is one of the HDF5 library.
        assert done.returncode < 0, done.stderr[-2000:]
        crashes.append((last + 1, done.returncode))
        first = last + 2
    print(json.dumps({"mutated": total, "crashes of the child": crashes}))
    assert len(crashes) <= total // 100
