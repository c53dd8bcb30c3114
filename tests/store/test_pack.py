"""Packed stores: every byte is checked before any is used, and hostile ones are refused."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featcache._io.atomic import TEMPORARY_PREFIX
from featcache.data.dataset import Dataset
from featcache.errors import StoreCorrupt, StoreError, StoreFormatError
from featcache.hdf5.pack_file import Column, PackLayout
from featcache.store import pack_format
from featcache.store.pack import pack, unpack
from featcache.store.pack_format import LINE_BYTES, PackReader
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of

NUMBERS = tuple(range(1, 8))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "store", SPEC, WIDTH, {"weights": "random"})
    store.append(rows_of(*NUMBERS), ids_of(*NUMBERS))
    return Store(store.folder)


def test_head_and_hdf5_structure_say_the_same(store: Store, tmp_path: Path) -> None:
    pack(store, tmp_path / "p.h5")
    with contextlib.closing(PackReader(tmp_path / "p.h5")) as reader:
        head = reader.header
        ((rows, ids),) = reader.blocks(100)
    with h5py.File(tmp_path / "p.h5") as file:
        assert file["embeddings"].id.get_offset() == head.embeddings
        assert file["image_id"].id.get_offset() == head.image_id
        assert file["embeddings"].shape == (head.rows, head.width) == (7, WIDTH)
        assert np.array_equal(file["embeddings"][()], rows)
        assert np.array_equal(file["image_id"][()], ids)
        assert json.loads(file.attrs["spec"]) == head.spec == SPEC.components()
        assert json.loads(file.attrs["about"]) == head.about == {"weights": "random"}
        assert (file.attrs["format"], file.attrs["format_version"]) == ("featcache-pack", 2)
        assert file.userblock_size == head.user_block()
    assert np.array_equal(rows, rows_of(*NUMBERS))


def test_a_long_description_takes_a_larger_user_block(tmp_path: Path) -> None:
    about = {"preprocessing": "x" * 5000}
    store = Store.create(tmp_path / "store", SPEC, WIDTH, about)
    store.append(rows_of(1), ids_of(1))
    pack(Store(store.folder), tmp_path / "p.h5")
    assert dict(unpack(tmp_path / "p.h5", tmp_path / "c").metadata) == about
    with h5py.File(tmp_path / "p.h5") as file:
        assert file.userblock_size == 8192


def test_rows_in_many_pieces_come_back(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.store.pack._ROWS_AT_ONCE", 3)
    pack(store, tmp_path / "p.h5")
    other = unpack(tmp_path / "p.h5", tmp_path / "c")
    assert len(other.shard_names) == 3
    assert np.array_equal(other.read(ids_of(*NUMBERS)), rows_of(*NUMBERS))


def test_the_same_rows_make_the_same_file(store: Store, tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        pack(store, tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_an_empty_store_is_not_packed(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", SPEC, WIDTH)
    with pytest.raises(StoreError, match=r"nothing to pack: .* holds no rows\. Extract some"):
        pack(store, tmp_path / "p.h5")
    with pytest.raises(StoreError, match="no rows of usable images of this data set"):
        pack(store, tmp_path / "p.h5", Dataset([str(tmp_path / "gone.png")]))
    assert not (tmp_path / "p.h5").exists()


def test_a_pack_is_no_hdf5_file_for_unpack(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(store, tmp_path / "p.h5")
    Store.create(tmp_path / "c" / "stores" / SPEC.folder, SPEC, WIDTH)
    opened: list[Any] = []
    original = h5py.File

    def watched(path: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return original(path, *arguments, **options)

    monkeypatch.setattr(h5py, "File", watched)
    unpack(tmp_path / "p.h5", tmp_path / "c")
    assert opened  # the shard that is made, in memory
    assert all(str(path).startswith("shard-") for path in opened)


def test_files_that_are_no_pack_are_refused(store: Store, tmp_path: Path) -> None:
    shard = next(store.folder.glob("*.h5"))
    with pytest.raises(StoreFormatError, match="Pack the store again with this version"):
        unpack(shard, tmp_path / "c")
    pack(store, tmp_path / "p.h5")
    data = (tmp_path / "p.h5").read_bytes()
    path = tmp_path / "bad.h5"
    other = data.replace(b"pack 0002", b"pack 0099", 1).replace(b'"rows"', b'"ROWS"', 1)
    path.write_bytes(other)
    with pytest.raises(StoreFormatError, match="version 99"):
        unpack(path, tmp_path / "c")
    for text, reason in (
        (b"", "first line is not that of a packed store"),
        (b"nothing of the kind", "first line is not that of a packed store"),
        (data + b"\0", "bytes, not"),
        (data[:-1], "bytes, not"),
        (data[:50], "first line is not that of a packed store"),
    ):
        path.write_bytes(text)
        with pytest.raises(StoreCorrupt, match=reason):
            unpack(path, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_paths_that_are_no_file_are_said(store: Store, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path / "gone.h5", tmp_path, fifo):
        with pytest.raises(StoreError, match="There is no file"):
            unpack(path, tmp_path / "c")


def test_a_system_that_refuses_to_read_is_said(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(store, tmp_path / "p.h5")

    def refuses(*arguments: Any, **options: Any) -> Any:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(pack_format, "open", refuses, raising=False)
        with pytest.raises(StoreError, match="cannot be read: Input/output error"):
            unpack(tmp_path / "p.h5", tmp_path / "c")
    with monkeypatch.context() as patch:
        patch.setattr(PackReader, "_digest", refuses)
        with pytest.raises(StoreError, match="cannot be read: Input/output error"):
            unpack(tmp_path / "p.h5", tmp_path / "c")
    with contextlib.closing(PackReader(tmp_path / "p.h5")) as reader:
        reader._file.close()
        reader._file = _Refusing()  # type: ignore[assignment]
        with pytest.raises(StoreError, match="cannot be read: Input/output error"):
            list(reader.blocks(2))


class _Refusing:
    def seek(self, offset: int) -> None:
        pass

    def close(self) -> None:
        pass

    def readinto(self, buffer: object) -> int:
        raise OSError(5, "Input/output error")


def test_a_file_that_becomes_something_else_while_it_is_opened_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    with pytest.raises(StoreCorrupt, match="not a regular file"):
        unpack(Path(os.devnull), tmp_path / "c")


@pytest.mark.parametrize("cut", [False, True])
def test_a_pack_that_changes_while_it_is_read_is_noticed(
    store: Store, tmp_path: Path, cut: bool
) -> None:
    path = tmp_path / "p.h5"
    pack(store, path)
    with contextlib.closing(PackReader(path)) as reader:
        blocks = reader.blocks(3)
        next(blocks)
        data = path.read_bytes()
        path.write_bytes(data[:LINE_BYTES] if cut else data)
        os.utime(path, (1, 1))
        with pytest.raises(StoreCorrupt, match="changed while it was read"):
            next(blocks)


def test_values_must_be_as_many_as_declared(tmp_path: Path) -> None:
    layout = PackLayout([Column("a", "u1", (4,))], {}, 512)
    for values in ([b"123"], [b"12", b"345"]):
        with pytest.raises(ValueError, match=r"'a' .* than it declares"):
            list(layout.blocks({"a": values}))


def test_what_a_killed_pack_left_goes_and_what_is_the_users_stays(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    old, young, mine = (
        folder / f"{TEMPORARY_PREFIX}{'0' * 32}",
        folder / f"{TEMPORARY_PREFIX}{'1' * 32}",
        folder / f"{TEMPORARY_PREFIX}notes",
    )
    for path in (old, young, mine):
        path.write_bytes(b"x")
    for path in (old, mine):
        os.utime(path, (1, 1))
    pack(store, folder / "p.h5")
    assert {path.name for path in folder.iterdir()} == {young.name, mine.name, "p.h5"}


def test_the_structure_in_memory_is_a_file_like_any_other() -> None:
    from featcache.hdf5.pack_file import _SparseFile

    file = _SparseFile()
    file.seek(10**12 + 4090)
    assert file.write(b"0123456789") == 10
    file.seek(-6000, os.SEEK_END)
    assert file.read(6000) == bytes(5990) + b"0123456789"
    assert len(file._pages) == 2
    assert file.truncate(5) == 5
    assert file.seek(3) == 3
    assert file.truncate() == 3
    assert file.seek(0, os.SEEK_END) == 3
