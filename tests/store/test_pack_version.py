"""The version number of a packed store: of another version, or damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from featcache.errors import StoreCorrupt, StoreFormatError
from featcache.store.pack import pack, unpack
from featcache.store.pack_format import LINE_BYTES, first_line
from featcache.store.store import Store
from stores import SPEC, WIDTH, filled

_DIGITS = slice(len("featcache-pack "), len("featcache-pack 0002"))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    with_rows = filled(Store.create(tmp_path / "stores" / SPEC.folder, SPEC, WIDTH), (1, 2))
    pack(with_rows, tmp_path / "p.h5")
    return tmp_path / "p.h5"


def test_a_wrong_bit_in_the_version_number_is_damage(packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    assert data[_DIGITS] == b"0002"
    for bit in range(8 * _DIGITS.start, 8 * _DIGITS.stop):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        packed.write_bytes(flipped)
        with pytest.raises(StoreCorrupt, match=r"version number is damaged|first line"):
            unpack(packed, tmp_path / "other")


def test_an_intact_pack_of_another_version_is_not_damaged(packed: Path, tmp_path: Path) -> None:
    body = packed.read_bytes()[LINE_BYTES:].replace(b'"rows"', b'"ROWS"', 1)
    line = first_line(hashlib.sha256(body).hexdigest(), LINE_BYTES + len(body))
    packed.write_bytes(line.replace(b" 0002 ", b" 0003 ") + body)
    with pytest.raises(StoreFormatError, match="version 3"):
        unpack(packed, tmp_path / "other")
