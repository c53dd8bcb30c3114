"""Disks that cannot read a part of a shard: an error, never a wrong row, and no row lost for it."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featcache._io.hashes
from featcache.errors import StoreCorrupt, StoreError
from featcache.hdf5.shard_metadata import read_metadata
from featcache.store import salvage, shard_reader
from featcache.store.maintenance import repair, verify
from featcache.store.store import Store
from stores import SPEC, WIDTH, filled, ids_of, rows_of, shards

NUMBERS = tuple(range(6))


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    store = filled(Store.create(tmp_path / "stores" / SPEC.folder, SPEC, WIDTH), NUMBERS)
    return shards(store)[0]


def place_of(shard: Path, row: int) -> range:
    """Return the bytes of a row in the file of its shard."""
    known = read_metadata(shard)
    assert known is not None
    start = int(known[0].layout.offsets[0]) + row * 4 * WIDTH
    return range(start, start + 4 * WIDTH)


def spoil(shard: Path, row: int) -> None:
    data = bytearray(shard.read_bytes())
    data[place_of(shard, row).start] ^= 1
    shard.write_bytes(data)


def fail_within(
    monkeypatch: pytest.MonkeyPatch, module: Any, place: range, code: int = errno.EIO
) -> None:
    """Make reads of a module fail that touch some bytes of a file."""

    class File(io.FileIO):
        def readinto(self, buffer: Any) -> int:
            start = self.tell()
            if start < place.stop and start + len(buffer) > place.start:
                raise OSError(code, os.strerror(code))
            return super().readinto(buffer)

    monkeypatch.setattr(module, "open", lambda file, *_, **__: File(file), raising=False)


def has(folder: Path, *numbers: int) -> bool:
    store = Store(folder)
    same = np.array_equal(store.read(ids_of(*numbers)), rows_of(*numbers))
    return same and sorted(store.ids()) == sorted(ids_of(*numbers)) and verify(folder) == []


def test_a_row_on_a_bad_sector_is_an_error_and_the_others_are_read(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_within(monkeypatch, shard_reader, place_of(shard, 3))
    store = Store(shard.parent)
    assert np.array_equal(store.read(ids_of(5, 0)), rows_of(5, 0))
    with pytest.raises(StoreCorrupt, match=r"the disk cannot read it \(Input/output error\)"):
        store.read(ids_of(2, 3))


def test_repair_loses_the_rows_on_a_bad_sector_alone(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(shard, 1)
    fail_within(monkeypatch, salvage, place_of(shard, 3))
    (damage,) = repair(shard.parent)
    assert (damage.rows, sorted(damage.ids)) == (2, sorted(ids_of(1, 3)))
    monkeypatch.undo()
    assert has(shard.parent, 0, 2, 4, 5)


@pytest.mark.parametrize("code", [errno.ESTALE, errno.ETIMEDOUT])
def test_a_disk_that_is_away_for_a_while_has_nothing_set_aside(
    shard: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    spoil(shard, 1)
    before = {path.name: path.read_bytes() for path in shard.parent.iterdir()}
    fail_within(monkeypatch, salvage, place_of(shard, 3), code)
    with pytest.raises(StoreError, match=os.strerror(code)):
        repair(shard.parent)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in shard.parent.iterdir()} == before
    repair(shard.parent)
    assert has(shard.parent, 0, 2, 3, 4, 5)


def test_too_many_open_files_are_no_damage_of_a_shard(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Any, *_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(featcache._io.hashes, "open", refused, raising=False)
    for check in (verify, repair):
        with pytest.raises(StoreError, match="Too many open files"):
            check(shard.parent)
    monkeypatch.undo()
    assert has(shard.parent, *NUMBERS)
