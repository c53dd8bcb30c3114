"""Rows of float16: half the disk, never infinite, and never mixed with rows of float32."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featcache.backbones.spec import BackboneSpec
from featcache.errors import StoreCorrupt, StoreMismatch
from featcache.hdf5.shard_metadata import metadata_path, read_metadata
from featcache.store.maintenance import repair, verify
from featcache.store.manifest import Manifest
from featcache.store.pack import pack, unpack
from featcache.store.pack_format import LINE_BYTES, PackReader, first_line
from featcache.store.store import Store
from hostile_shards import planted, spec_of_another_dtype
from stores import HALF, SPEC, WIDTH, as_stored, filled, ids_of, rows_of, shards

NUMBERS = (1, 2, 3)
LARGEST = 65504.0


def half_store(root: Path) -> Store:
    return Store.create(root / "stores" / HALF.folder, HALF, WIDTH, {"weights": "random"})


def test_a_store_from_before_there_was_a_choice_is_read_and_written_to_the_byte(
    tmp_path: Path,
) -> None:
    # Made by the version before `row_dtype`; a change here loses every store of every user.
    with zipfile.ZipFile(Path(__file__).with_name("float32_store.zip")) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / SPEC.folder
    (shard,) = folder.glob("*.h5")
    sidecar, manifest = metadata_path(shard).read_bytes(), (folder / "MANIFEST.json").read_bytes()
    assert np.array_equal(Store(folder).read(ids_of(*NUMBERS)), rows_of(*NUMBERS))
    assert verify(folder) == []
    metadata_path(shard).unlink()
    assert len(Store(folder)) == 3  # and its sidecar is recreated
    assert metadata_path(shard).read_bytes() == sidecar
    Manifest(SPEC, WIDTH, 1, {shard.name: 3}, {"backbone": "tiny"}).write(folder)
    assert (folder / "MANIFEST.json").read_bytes() == manifest
    assert Store.create(folder, SPEC, WIDTH).shard_names == [shard.name]


def test_rows_take_half_the_bytes_and_plain_h5py_reads_them(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 2048)).astype(np.float32)
    sizes = []
    for spec in (SPEC, HALF):
        store = Store.create(tmp_path / spec.folder, spec, 2048)
        store.append(rows, ids_of(*range(40)))
        store = Store(store.folder)
        assert np.array_equal(store.read(ids_of(*range(40))), as_stored(rows, spec))
        assert store.read(ids_of(0)).dtype == np.float32
        with h5py.File(shards(store)[0]) as file:
            assert file["embeddings"].dtype == spec.row_dtype == store.dtype
        sizes.append(shards(store)[0].stat().st_size)
    assert sizes[0] - sizes[1] == rows.nbytes / 2


@pytest.mark.parametrize("value", [65505.0, -7e4, 3e38])
def test_a_value_too_large_is_refused_and_nothing_is_stored(tmp_path: Path, value: float) -> None:
    store = half_store(tmp_path)
    rows = rows_of(1, 2)
    rows[1, 3] = value
    with pytest.raises(StoreMismatch, match=r"float16, whose largest value is 65504\. Use"):
        store.append(rows, ids_of(1, 2))
    assert shards(store) == []
    rows[1, 3] = np.copysign(LARGEST, value)
    store.append(rows, ids_of(1, 2))
    assert Store(store.folder).read(ids_of(2))[0, 3] == np.copysign(LARGEST, value)


def test_rows_of_another_dtype_are_never_converted_by_hdf5(tmp_path: Path) -> None:
    store = half_store(tmp_path)
    packed = np.zeros((1, 32), np.uint8)
    with pytest.raises(TypeError, match="rows of float32 for a store of float16"):
        store.append_packed(rows_of(1), packed, np.zeros(1, np.int32), {})


def test_a_store_never_mixes_dtypes(tmp_path: Path) -> None:
    whole = filled(Store.create(tmp_path / "whole", SPEC, WIDTH), (7, 8))
    half = filled(half_store(tmp_path), NUMBERS)
    with pytest.raises(StoreMismatch, match="another spec"):
        Store.create(half.folder, SPEC, WIDTH)
    for name in (shards(whole)[0].name, metadata_path(shards(whole)[0]).name):
        (half.folder / name).write_bytes((whole.folder / name).read_bytes())
    found = Store(half.folder)
    assert [damage.reason for damage in found.damaged] == ["its spec is not the store's"]
    assert not found.contains(ids_of(7, 8)).any()
    repair(half.folder)
    assert np.array_equal(Store(half.folder).read(ids_of(1)), as_stored(rows_of(1), HALF))


def test_a_shard_whose_rows_are_not_of_its_spec_is_passed_over(tmp_path: Path) -> None:
    store = filled(half_store(tmp_path), (7,))
    planted(store, spec_of_another_dtype)
    (damage,) = Store(store.folder).damaged
    assert damage.reason == "its rows are of float32, those of its spec float16"
    assert Store(store.folder).ids() == ids_of(7)


def sign_sidecar(shard: Path, components: dict[str, Any]) -> None:
    """Write another spec to a sidecar, and the checksum that fits it."""
    data = metadata_path(shard).read_bytes()
    magic, body = data[:16], data[48:]
    length = int.from_bytes(body[:8], "little")
    record = {**json.loads(body[8 : 8 + length]), "components": components}
    text = json.dumps(record, sort_keys=True).encode()
    body = len(text).to_bytes(8, "little") + text + body[8 + length :]
    metadata_path(shard).write_bytes(magic + hashlib.sha256(body).digest() + body)


@pytest.mark.parametrize(
    "components",
    [
        HALF.components(), {**SPEC.components(), "row_dtype": "float32"},
        {**SPEC.components(), "row_dtype": "f8"}, {**SPEC.components(), "row_dtype": ["float16"]},
    ],
)  # fmt: skip
def test_a_sidecar_that_claims_another_dtype_is_not_believed(
    tmp_path: Path, components: dict[str, Any]
) -> None:
    store = filled(Store.create(tmp_path / SPEC.folder, SPEC, WIDTH), NUMBERS)
    (shard,) = shards(store)
    sign_sidecar(shard, components)
    assert [damage.name for damage in verify(store.folder)] == [metadata_path(shard).name]
    assert np.array_equal(Store(store.folder).read(ids_of(*NUMBERS)), rows_of(*NUMBERS))
    assert verify(store.folder) == []  # it was written again


def test_a_shard_of_another_dtype_is_not_salvaged(tmp_path: Path) -> None:
    whole = filled(Store.create(tmp_path / "whole", SPEC, WIDTH), NUMBERS)
    half = filled(half_store(tmp_path), (7,))
    (shard,) = shards(whole)
    planted = half.folder / shard.name
    planted.write_bytes(shard.read_bytes())
    metadata_path(planted).write_bytes(metadata_path(shard).read_bytes())
    sign_sidecar(planted, HALF.components())
    assert planted.name in {damage.name for damage in verify(half.folder)}
    repair(half.folder)
    assert Store(half.folder).ids() == ids_of(7)


def test_intact_rows_of_a_damaged_shard_are_saved(tmp_path: Path) -> None:
    store = filled(half_store(tmp_path), NUMBERS)
    (shard,) = shards(store)
    known = read_metadata(shard)
    assert known is not None
    data = bytearray(shard.read_bytes())
    data[int(known[0].layout.offsets[0]) + 2 * WIDTH] ^= 1  # the first byte of the second row
    shard.write_bytes(data)
    assert [damage.rows for damage in repair(store.folder)] == [1]
    again = Store(store.folder)
    assert again.contains(ids_of(*NUMBERS)).tolist() == [True, False, True]
    assert np.array_equal(again.read(ids_of(1, 3)), as_stored(rows_of(1, 3), HALF))


def test_a_packed_store_keeps_its_dtype(tmp_path: Path) -> None:
    store = filled(half_store(tmp_path), NUMBERS)
    pack(store, tmp_path / "p.h5")
    with h5py.File(tmp_path / "p.h5") as file:
        assert file["embeddings"].dtype == np.float16
    other = unpack(tmp_path / "p.h5", tmp_path / "other")
    assert (other.spec, other.dtype) == (HALF, np.float16)
    assert np.array_equal(other.read(ids_of(*NUMBERS)), store.read(ids_of(*NUMBERS)))


@pytest.mark.parametrize(("spec", "claim"), [(HALF, "float32"), (HALF, "f8"), (SPEC, [])])
def test_a_packed_store_of_a_dtype_that_no_spec_has_is_refused(
    tmp_path: Path, spec: BackboneSpec, claim: Any
) -> None:
    path = tmp_path / "p.h5"
    pack(filled(Store.create(tmp_path / "store", spec, WIDTH), NUMBERS), path)
    with contextlib.closing(PackReader(path)) as reader:
        header = asdict(reader.header)
    header["spec"] = {**spec.components(), "row_dtype": claim}
    start = 8 * 1024
    body = json.dumps(header).encode() + b"\n"
    data = body.ljust(start - LINE_BYTES, b"\0") + path.read_bytes()[LINE_BYTES:]
    digest = hashlib.sha256(data).hexdigest()
    path.write_bytes(first_line(digest, LINE_BYTES + len(data)) + data)
    with pytest.raises((StoreCorrupt, StoreMismatch)):
        unpack(path, tmp_path / "other")
    assert not (tmp_path / "other").exists()
