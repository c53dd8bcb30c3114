"""The first lines of a packed store: every field is checked, also where its digest fits."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import FeatcacheError, StoreCorrupt, StoreMismatch
from featcache.store.pack import pack, unpack
from featcache.store.pack_format import LINE_BYTES, PackReader, first_line
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of

NUMBERS = tuple(range(1, 8))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "store", SPEC, WIDTH, {"weights": "random"})
    store.append(rows_of(*NUMBERS), ids_of(*NUMBERS))
    return Store(store.folder)


def sealed(path: Path, body: bytes) -> Path:
    """Write a file whose first line fits whatever comes behind it."""
    digest = hashlib.sha256(body).hexdigest()
    path.write_bytes(first_line(digest, LINE_BYTES + len(body)) + body)
    return path


def forged(store: Store, path: Path, **changes: Any) -> Path:
    """Pack a store, and change fields of the head as one who can compute a digest does."""
    pack(store, path)
    with contextlib.closing(PackReader(path)) as reader:
        head, before = reader.header, reader.header.user_block()
    more = 8192 - before  # room for long names
    said = {
        **asdict(head),
        "embeddings": head.embeddings + more,
        "image_id": head.image_id + more,
        **changes,
    }
    said = {name: value for name, value in said.items() if value != "left out"}
    text = json.dumps(said).encode() + b"\n"
    return sealed(path, text.ljust(8192 - LINE_BYTES, b"\0") + path.read_bytes()[before:])


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 10**6}, {"rows": 0}, {"rows": -1}, {"rows": 7.0}, {"rows": True}, {"rows": "7"},
        {"width": 0}, {"width": 10**9}, {"width": 2**70}, {"width": None},
        {"embeddings": 0}, {"embeddings": -8}, {"embeddings": 2**63}, {"image_id": 10**9},
        {"spec": []}, {"spec": None}, {"about": 3}, {"more": 1}, {"rows": "left out"},
    ],
    ids=str,
)  # fmt: skip
def test_a_head_that_makes_no_sense_is_refused(
    store: Store, tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = forged(store, tmp_path / "p.h5", **changes)
    with pytest.raises(StoreCorrupt, match=r"header is malformed|outside the file"):
        unpack(path, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_head_that_a_stranger_changed_without_a_fault_is_taken(
    store: Store, tmp_path: Path
) -> None:
    """The control for the above."""
    path = forged(store, tmp_path / "p.h5", about={"weights": 5})
    assert dict(unpack(path, tmp_path / "c").metadata) == {"weights": "5"}


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[" * 10**5 + b"\n", b"\xff\n", b"{\n", b"1" * 9999 + b"\n"]
)
def test_what_is_no_header_is_refused(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(StoreCorrupt, match="header is malformed"):
        unpack(sealed(tmp_path / "p.h5", body), tmp_path / "c")


@pytest.mark.parametrize(
    "name",
    [
        "../../../x", "OUTSIDE/x", "..", ".x", "a/b", "a\\b", "a\0b", "a\nb",
        "a\x1b[31mb", "x" * 300, "", "\ud800",
    ],
    ids=lambda name: repr(name[:12]),
)  # fmt: skip
def test_a_backbone_that_is_no_plain_name_is_refused(
    store: Store, tmp_path: Path, name: str
) -> None:
    name = name.replace("OUTSIDE", str(tmp_path / "outside"))
    path = forged(store, tmp_path / "p.h5", spec={**SPEC.components(), "backbone": name})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FeatcacheError, match="is invalid"):
        unpack(path, tmp_path / "a" / "b" / "c")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("spec", [{}, {"backbone": "x"}], ids=str)
def test_a_spec_with_other_fields_is_refused(
    store: Store, tmp_path: Path, spec: dict[str, Any]
) -> None:
    path = forged(store, tmp_path / "p.h5", spec=spec)
    with pytest.raises(StoreMismatch, match="is invalid"):
        unpack(path, tmp_path / "c")


def test_a_spec_with_values_of_another_type_is_refused(store: Store, tmp_path: Path) -> None:
    components = {**SPEC.components(), "layer": 1.5}
    path = forged(store, tmp_path / "p.h5", spec=components)
    with pytest.raises(StoreMismatch, match="is invalid"):
        unpack(path, tmp_path / "c")


def test_values_that_are_not_finite_are_refused(store: Store, tmp_path: Path) -> None:
    pack(store, tmp_path / "p.h5")
    with contextlib.closing(PackReader(tmp_path / "p.h5")) as reader:
        place = reader.header.embeddings
    data = bytearray((tmp_path / "p.h5").read_bytes())
    data[place : place + 4] = struct.pack("<f", float("nan"))
    path = sealed(tmp_path / "q.h5", bytes(data[LINE_BYTES:]))
    with pytest.raises(StoreMismatch, match="not finite"):
        unpack(path, tmp_path / "c")
    assert not (tmp_path / "c").exists()  # no empty store either
