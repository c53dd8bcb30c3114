"""Flipped bits and missing ends: all found, none believed, and repaired row by row."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scale import times

from featcache import repair, verify
from featcache.data.file_index import identify
from featcache.errors import FeatcacheError
from featcache.hdf5.sandbox import Inspector
from featcache.hdf5.shard_metadata import metadata_path
from featcache.images.image_file import content_id
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of

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
        most = (5 if truncate else 1) if hit.suffix == ".h5" else 0
        if hit.name != "MANIFEST.json":
            assert len(left) >= SHARDS * 5 - 5 * (hit.suffix == ".h5")
        told = sum(damage.rows for damage in repair(folder))
        assert verify(folder) == []
        repaired = read_what_is_left(folder)
        gone = sorted(set(range(SHARDS * 5)) - set(repaired))
        assert len(gone) == told <= most
        counts[len(gone)] = counts.get(len(gone), 0) + 1
        # The rows that went can be committed again.
        store = Store(folder)
        if gone:
            store.append(rows_of(*gone), ids_of(*gone))
            assert len(read_what_is_left(folder)) == SHARDS * 5
        store.close()
    print(json.dumps({"trials": trials, "trials by rows lost": dict(sorted(counts.items()))}))


@pytest.mark.parametrize("part", ["embeddings", "image_id", "view"])
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
        lost = [ids[row]] if part == "embeddings" else []  # the others are kept in the head too
        (found,) = verify(folder)
        assert (found.name, found.rows, list(found.ids)) == (name, len(lost), lost)
        assert repair(folder) == [found]
        assert verify(folder) == []
        assert len(read_what_is_left(folder)) == SHARDS * 5 - len(lost)
        assert Store(folder).contains(ids).tolist() == [image_id not in lost for image_id in ids]


def test_rows_of_another_spec_are_not_saved_from_a_damaged_shard(
    sound: Path, tmp_path: Path
) -> None:
    other = dataclasses.replace(SPEC, layer="other")
    store = Store.create(tmp_path / "store", other, WIDTH)
    shard = next(sound.glob("*.h5"))
    shutil.copy(metadata_path(shard), store.folder)
    (store.folder / shard.name).write_bytes(shard.read_bytes()[:-1] + b"x")
    (found,) = repair(store.folder)
    assert found.rows == 5
    assert len(Store(store.folder)) == 0


def test_a_damaged_shard_without_its_head_is_lost_as_a_whole(sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    shutil.copytree(sound, folder)
    for path in folder.glob("*.head"):
        path.unlink()
    assert verify(folder) == []
    spoil(next(folder.glob("*.h5")), random.Random(3), False)
    (found,) = repair(folder)
    assert (found.rows, found.ids) == (5, ())
    assert len(read_what_is_left(folder)) == SHARDS * 5 - 5


def test_heads_are_made_anew_from_sound_shards(sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    shutil.copytree(sound, folder)
    heads = {path: path.read_bytes() for path in folder.glob("*.head")}
    assert len(heads) == SHARDS
    for number, path in enumerate(heads):
        if number % 2:
            path.unlink()
        else:
            spoil(path, random.Random(number), number % 4 == 0)
    assert len(read_what_is_left(folder)) == SHARDS * 5
    assert {path: path.read_bytes() for path in folder.glob("*.head")} == heads


def forged(path: Path, **changes: Any) -> None:
    """Write a shard's head again with other claims, and the sum that fits them."""
    data = metadata_path(path).read_bytes()
    body = data[48:]
    length = int.from_bytes(body[:8], "little")
    said = {**json.loads(body[8 : 8 + length]), **changes}
    text = json.dumps(said).encode()
    body = len(text).to_bytes(8, "little") + text + body[8 + length :]
    metadata_path(path).write_bytes(data[:16] + hashlib.sha256(body).digest() + body)


@pytest.mark.parametrize(
    "changes",
    [
        {"offsets": [-1]}, {"offsets": [2**40]}, {"offsets": [[0]]}, {"offsets": []}, {"rows": -5},
        {"rows": 2**60}, {"rows": 4}, {"rows": "x"}, {"rows_per_chunk": 0}, {"width": 0},
        {"width": 2**40}, {"shard": "another"}, {"size": 1}, {"components": 7}, {"components": {}},
        {"seconds": None},
    ],
)  # fmt: skip
def test_a_head_that_lies_is_not_believed(sound: Path, tmp_path: Path, changes: Any) -> None:
    folder = tmp_path / "store"
    shutil.copytree(sound, folder)
    shard = min(folder.glob("*.h5"))
    forged(shard, **changes)
    assert len(read_what_is_left(folder)) == SHARDS * 5
    assert verify(folder) == []  # the reading above has made it again


def test_a_spoiled_shard_is_never_given_to_hdf5(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may crash over a single wrong bit; only what was committed is parsed."""
    folder = tmp_path / "store"
    shutil.copytree(sound, folder)
    shard = next(folder.glob("*.h5"))
    metadata_path(shard).unlink()
    spoil(shard, random.Random(0), False)
    opened: list[str] = []
    original = Inspector.ask

    def watched(inspector: Inspector, kind: str, file: Any, size: int) -> Any:
        opened.append(Path(file.name).name)
        return original(inspector, kind, file, size)

    monkeypatch.setattr(Inspector, "ask", watched)
    assert shard.name in {damage.name for damage in verify(folder)}
    assert [damage.name for damage in Store(folder).damaged] == [shard.name]
    repair(folder)
    assert opened
    assert shard.name not in opened


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
