"""Damage to the metadata sidecar of a shard is found by `verify`, and costs no row."""

from __future__ import annotations

from pathlib import Path

import pytest

from featcache.hdf5.shard_metadata import metadata_is_malformed, metadata_path
from featcache.store.maintenance import verify
from featcache.store.store import Store
from stores import SPEC, WIDTH, filled, shards


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return shards(filled(Store.create(tmp_path / SPEC.folder, SPEC, WIDTH), (1, 2)))[0]


def flip(path: Path, data: bytes, bit: int) -> None:
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)


def test_every_wrong_bit_in_a_sidecar_is_noticed(shard: Path) -> None:
    data = metadata_path(shard).read_bytes()
    assert not metadata_is_malformed(shard)
    for bit in range(8 * len(data)):
        flip(metadata_path(shard), data, bit)
        assert metadata_is_malformed(shard), bit


@pytest.mark.parametrize("place", [0.0, 0.05, 0.3, 0.6, 0.9, 1.0])
def test_verify_names_a_sidecar_with_a_wrong_bit(shard: Path, place: float) -> None:
    sidecar = metadata_path(shard)
    data = sidecar.read_bytes()
    flip(sidecar, data, int(place * (8 * len(data) - 1)))
    found = verify(shard.parent)
    assert [(damage.name, damage.rows) for damage in found] == [(sidecar.name, 0)]
    assert "no row is lost" in found[0].reason
