"""The index file of a store: written when it pays, never believed against a shard."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache import repair, verify
from featcache.errors import MissingRows, StoreError, StoreWriteError
from featcache.gc.collect import collect
from featcache.hdf5.shard_metadata import metadata_path
from featcache.store import index_build, index_file, listing, reading, shard_table
from featcache.store.index_build import build_index, renew_index, update_index, write_index
from featcache.store.index_check import find_index_damage
from featcache.store.index_file import (
    NAME,
    PAGE,
    ROWS_PER_PAGE,
    IndexDamaged,
    IndexFile,
    make_keys,
)
from featcache.store.layered_index import LayeredIndex
from featcache.store.lease import lease
from featcache.store.listing import FolderIndex, make_index
from featcache.store.maintenance import compact
from featcache.store.manifest import read_manifest
from featcache.store.pack import pack, unpack
from featcache.store.row_index import RowIndex, pack_ids
from featcache.store.shard_table import ShardTable
from featcache.store.store import Store
from featcache.store.transfer import copy_rows, shards_of
from stores import SPEC, WIDTH, filled, ids_of, rows_of, shards

NUMBERS = tuple(range(40))
BATCHES = [tuple(range(n, n + 4)) for n in range(0, 40, 4)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return the folder of a store of ten shards with an index file."""
    folder = tmp_path / "stores" / SPEC.folder
    indexed(filled(Store.create(folder, SPEC, WIDTH), *BATCHES))
    return folder


@pytest.fixture
def pays_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_build, "MANY_SHARDS", 2)


def indexed(store: Store) -> Store:
    with lease(store.folder) as held:
        store.refresh()
        write_index(store, held)
    store.refresh()
    return store


def holds(store: Store, numbers: tuple[int, ...] = NUMBERS) -> None:
    """Check that a store answers as one without an index file."""
    assert store.contains(ids_of(*range(100))).tolist() == [n in numbers for n in range(100)]
    assert len(store) == len(numbers)
    assert sorted(store.ids()) == sorted(ids_of(*numbers))
    assert np.array_equal(store.read(ids_of(*numbers)), rows_of(*numbers))


def forge(folder: Path, change: Callable[[Any], object], **fields: Any) -> None:
    """Write an index file again with other rows or fields, and the checksums that fit them."""
    import zlib

    file = IndexFile(folder / NAME)
    pages = np.zeros(len(file.head.fences), PAGE)
    flat = np.zeros(len(pages) * ROWS_PER_PAGE, index_file.ROW)
    flat[: len(file)] = np.concatenate(list(file.blocks()))
    change(flat[: len(file)])
    pages["rows"] = flat.reshape(-1, ROWS_PER_PAGE)
    pages["crc"] = [zlib.crc32(page.tobytes()[:-4]) for page in pages]
    head = replace(file.head, fences=pages["rows"]["key"][:, 0].copy())
    data = replace(head, **fields).encode() + pages.tobytes()
    (folder / NAME).unlink()
    (folder / NAME).write_bytes(data)


def nothing(rows: Any) -> None:
    pass


# What it gives


def test_a_store_with_an_index_file_reads_no_sidecar_when_opened(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = reading.ShardLookup.find
    read: list[str] = []
    monkeypatch.setattr(
        reading.ShardLookup, "find", lambda *given: read.append(given[1]) or found(*given)
    )
    store = Store(home)
    assert store.contains(ids_of(*NUMBERS)).all()
    assert len(store) == 40
    assert store.seconds_per_image() == 0
    assert read == []
    store.read(ids_of(*BATCHES[3], *BATCHES[3]))
    store.read(ids_of(*BATCHES[3]))
    assert len(read) == 1
    holds(store)
    assert verify(home) == []


def test_new_and_removed_shards_are_seen_beside_the_index_file(home: Path) -> None:
    other = Store(home)
    store = Store(home)
    store.append(rows_of(50, 51, 3), ids_of(50, 51, 3))
    other.refresh()
    holds(other, (*NUMBERS, 50, 51))
    assert list(other.shards.loaded) == [name for name in other.shards if "-3-" in name]
    assert compact(store, many=2) == 11
    holds(other, (*NUMBERS, 50, 51))
    assert other.shards.indexed == {}
    holds(Store(home), (*NUMBERS, 50, 51))
    assert verify(home) == []


def test_rows_in_two_shards_stay_if_one_is_removed(tmp_path: Path) -> None:
    store = Store.create(tmp_path / SPEC.folder, SPEC, WIDTH)
    indexed(filled(store, (1, 2, 3), (2, 3, 4), (1, 2)))
    holds(store, (1, 2, 3, 4))
    for name in [name for name in store.shards if "-2-" in name or store.ids_in(name)[0, 0] == 0]:
        store.folder.joinpath(name).unlink()
        store.write_manifest()
    holds(store, (1, 2, 3, 4))
    name = next(n for n in store.shards if store.ids_in(n).tobytes().hex().startswith(ids_of(2)[0]))
    store.folder.joinpath(name).unlink()
    store.write_manifest()
    holds(store, (1, 2, 3))


def test_a_row_stored_too_often_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "_MAX_DUPLICATES", 1)
    store = Store.create(tmp_path / SPEC.folder, SPEC, WIDTH)
    indexed(filled(store, (1, 2), (1, 2, 3)))
    store.folder.joinpath(store.shards.names[0]).unlink()
    store.write_manifest()
    assert store.contains(ids_of(1, 2, 3)).sum() in (1, 3)


def test_an_index_of_many_pages_finds_each_row_and_view(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    store = Store.create(tmp_path / SPEC.folder, SPEC, WIDTH)
    ids = generator.integers(0, 256, (2000, 32), np.uint8)
    whole = Store.create(tmp_path / "whole", SPEC, WIDTH)  # whose last page is full
    whole.append_packed(np.ones((93, WIDTH), np.float32), ids[:93], np.zeros(93, np.int32), {})
    whole.refresh()
    assert whole.seconds_per_image() == 0
    there = indexed(whole).contains([bytes(i).hex() for i in ids[:94]])
    assert there.tolist() == [True] * 93 + [False]
    ids[500:700] = ids[500]  # one image with many views
    views = np.zeros(2000, np.int32)
    views[500:700] = np.arange(200)
    rows = generator.normal(size=(2000, WIDTH)).astype(np.float32)
    for start in range(0, 2000, 500):
        part = slice(start, start + 500)
        store.append_packed(rows[part], ids[part], views[part], {})
    indexed(store)
    file = IndexFile(store.folder / NAME)
    assert len(file) == len(store) == 2000
    keys = make_keys(ids, views)
    shard, row = file.find(keys, np.arange(4))
    names = {name: number for number, name in enumerate(file.head.names)}
    for place in (0, 499, 500, 555, 699, 700, 1999):
        metadata = store.shards[file.head.names[shard[place]]]
        assert np.array_equal(metadata.image_ids[row[place]], ids[place])
        assert metadata.views[row[place]] == views[place]
    assert len({(s, r) for s, r in zip(shard.tolist(), row.tolist(), strict=True)}) == 2000
    assert len(names) == 4
    assert (file.find(make_keys(ids, views + 1000), np.arange(4))[0] == -1).all()
    assert (file.find(make_keys(ids, np.full(2000, -1, np.int32)), np.arange(4))[0] == -1).all()
    plain = np.flatnonzero(views == 0)
    assert np.array_equal(store.read(ids[plain]), rows[plain])
    assert verify(store.folder) == []
    forge(store.folder, lambda rows: rows.__setitem__(slice(None), generator.permutation(rows)))
    file = IndexFile(store.folder / NAME)
    shard, row = file.find(keys, np.arange(4))
    assert ((shard >= -1) & (shard < 4) & (row < 500)).all()


def test_little_metadata_stays_in_memory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_table, "_KEPT_ROWS", 9)
    store = Store(home)
    holds(store)
    assert len(store.shards._recent) == 2
    with pytest.raises(KeyError):
        store.shards.read("another")
    assert store.shards.names[0] in store.shards
    assert len(store.shards) == 10


# When it is written


@pytest.mark.usefixtures("pays_early")
def test_it_is_written_when_many_sidecars_are_read_at_opening(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "a" / "stores" / SPEC.folder, SPEC, WIDTH)
    filled(store, (1,), (2,))
    compact(store)
    assert not (store.folder / NAME).exists()
    filled(store, (3,))
    compact(store)
    assert set(store.shards.indexed) == set(store.shard_names)
    assert not update_index(store)
    pack(store, tmp_path / "p.h5")
    assert not (unpack(tmp_path / "p.h5", tmp_path / "b").folder / NAME).exists()  # one shard
    copied = copy_rows(store, tmp_path / "c", progress=False).store
    assert len(copied.shards.indexed) == 3
    holds(copied, (1, 2, 3))


def test_it_pays_by_shards_or_rows_that_it_lacks(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(Store(home), (50,), (51,))
    assert not index_build.index_pays(store)
    monkeypatch.setattr(index_build, "MANY_SHARDS", 1)
    assert not index_build.index_pays(store)  # 2 of 42 rows
    monkeypatch.setattr(index_build, "_MAX_NEWER_ROWS", 1)
    assert index_build.index_pays(store)


def test_a_lost_one_is_written_before_more_ids_are_read_than_fit_in_memory(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / NAME).unlink()
    damaged, removed, *_ = Store(home).shards
    for name in (damaged, f"{damaged}.head"):
        (home / name).write_bytes(b"x")
    (home / removed).unlink()
    monkeypatch.setattr(index_build, "_MAX_ROWS_IN_MEMORY", 31)
    assert Store(home, write_sidecars=False).shards.file is None
    with lease(home):
        assert Store(home).shards.file is None
    store = Store(home)
    assert (len(store.shards.indexed), len(store)) == (8, 32)
    assert sorted(damage.name for damage in store.damaged) == sorted([damaged, removed])
    assert store.shards.loaded == {}
    filled(store, tuple(range(100, 140)))
    assert list(store.shards.loaded) != []
    monkeypatch.setattr(index_build, "_MAX_ROWS_IN_MEMORY", 100)
    (home / NAME).unlink()
    assert Store(home).shards.file is None


def test_a_shard_that_is_removed_while_it_is_written_is_left_out(home: Path) -> None:
    store = Store(home)
    name = store.shards.names[4]
    (home / name).unlink()
    with lease(home) as held:
        write_index(store, held)
    assert name not in IndexFile(home / NAME).head.names
    assert len(store) == 36


@pytest.mark.usefixtures("pays_early")
def test_another_process_may_hold_the_lease_or_have_written_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / NAME).unlink()
    store, other = Store(home), Store(home)
    with lease(home):
        assert not update_index(store)
    assert update_index(other)
    assert not update_index(store)
    holds(store)


@pytest.mark.usefixtures("pays_early")
def test_another_process_may_write_it_while_the_lease_is_awaited(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / NAME).unlink()
    store, other = Store(home), indexed(Store(home))
    monkeypatch.setattr(index_build, "write_index", lambda *_: pytest.fail("it is there"))
    assert not update_index(store)
    holds(other)


@pytest.mark.usefixtures("pays_early")
def test_a_full_disk_costs_only_the_index_file(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (home / NAME).unlink()
    store = Store(home)

    def full(*_: object) -> None:
        raise StoreWriteError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(index_build, "_write_pages", full)
        assert not update_index(store)
    assert "was not written: the disk is full" in caplog.text
    assert not [name for name in os.listdir(home) if name.startswith((".tmp", NAME))]
    with monkeypatch.context() as patched:
        patched.setattr(index_build._Parts, "add", lambda *_: None)
        patched.setattr(index_build._Parts, "merged", lambda self: iter([self._read(0, 3)]))
        assert not update_index(store)
    assert "was truncated" in caplog.text
    assert update_index(store)


def test_parts_that_do_not_fit_in_memory_are_merged(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (home / NAME).read_bytes()
    monkeypatch.setattr(index_build, "_ROWS_PER_PART", 9)
    indexed(Store(home))
    assert (home / NAME).read_bytes() == before


_NONE_NEWER = (np.arange(10), RowIndex([]), np.zeros(0, np.int64))


@pytest.mark.parametrize("many", [2, 64])
def test_removed_rows_are_removed_from_the_index_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(index_build, "MANY_SHARDS", many)
    collect(tmp_path, keep_ids=ids_of(*range(0, 40, 2)))
    assert (home / NAME).exists() == (many == 2)
    if many == 2:
        assert len(IndexFile(home / NAME)) == 20
        assert len(LayeredIndex(IndexFile(home / NAME), *_NONE_NEWER)) == 20
    holds(Store(home), tuple(range(0, 40, 2)))
    store = Store(home)
    with lease(home) as held:
        renew_index(store, held)
    assert (home / NAME).exists() == (many == 2)


def test_a_folder_with_sidecars_alone_can_have_one(home: Path, tmp_path: Path) -> None:
    """As the local copies of a store in a bucket."""
    source = Store(home)
    sizes = {path.name: path.stat().st_size for path in shards(source)}
    copies = tmp_path / "copies"
    copies.mkdir()
    with lease(copies) as held:
        build_index(
            copies, SPEC.key, WIDTH, source.shard_names, source.shards.find, held, sizes.__getitem__
        )
    manifest = read_manifest(home)
    file = FolderIndex(copies, removable=True).current(manifest)
    assert file is not None
    listed = {name: number for number, name in enumerate(file.head.names) if "-4-" in name}
    table = ShardTable({}, file, listed, source.shards.find)
    assert make_index(table).contains(pack_ids(ids_of(*NUMBERS))).all()
    assert file.head.sizes.tolist() == [sizes[name] for name in table.names]


# What is never believed


@pytest.mark.parametrize("content", ["link", "folder", "pipe", "empty"])
def test_whatever_has_its_name_is_ignored_and_found(
    home: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = (home / NAME).read_bytes()
    (home / NAME).unlink()
    if content == "link":
        (home.parent / "elsewhere").write_bytes(data)
        (home / NAME).symlink_to(home.parent / "elsewhere")
    elif content == "folder":
        (home / NAME).mkdir()
    elif content == "pipe":
        os.mkfifo(home / NAME)
    else:
        (home / NAME).touch()
    store = Store(home, write_sidecars=False)
    holds(store)
    assert caplog.text.count("cannot be used") == 1
    assert [damage.name for damage in verify(home)] == [NAME]
    assert [damage.name for damage in repair(home)] == [NAME]
    assert verify(home) == []
    assert (home.parent / "elsewhere").exists() == (content == "link")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"key": "ab" * 32}, "of another store"),
        ({"width": WIDTH + 1}, "of another store"),
        ({"names": ("MANIFEST.json",)}, "not that of a shard"),
        ({"names": ("../" + "x" * 5000,)}, "not that of a shard"),
        ({"names": (f"{'ab' * 4}-000001-{'9' * 5000}-{'ab' * 32}.h5",)}, "a field is wrong"),
        ({"names": (f"{'ab' * 4}-000001-0-{'ab' * 32}.h5",)}, "not that of a shard"),
        ({"distinct": 41}, "number of rows"),
        ({"seconds": np.full(10, np.nan)}, "seconds are not numbers"),
        ({"seconds": np.full(10, -1.0)}, "seconds are not numbers"),
        ({"fences": np.zeros(2, "S36")}, "number of rows"),
        ({"sizes": np.zeros(9, np.int64)}, "number of rows"),
    ],
)
def test_a_head_that_was_made_to_fit_is_checked(
    home: Path, fields: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    forge(home, nothing, **fields)
    holds(Store(home, write_sidecars=False))
    assert reason in caplog.text
    assert reason in verify(home)[0].reason
    holds(Store(home))
    assert not (home / NAME).exists()


def test_names_of_shards_are_sorted(home: Path) -> None:
    forge(home, nothing, names=IndexFile(home / NAME).head.names[::-1])
    assert "its shards are not sorted" in verify(home)[0].reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: b"X" + data[1:], "not an index of this version"),
        (lambda data: data[:55], "truncated"),
        (lambda data: data[:-1], "another size"),
        (lambda data: data + b"x", "another size"),
        (lambda data: data[:48] + b"\xff" * 8 + data[56:], "another size"),
        (lambda data: data[:48] + bytes(8) + data[56:], "another size"),
        (lambda data: data[:60] + b"xx" + data[62:], "checksum"),
    ],
)
def test_a_damaged_head_is_found(
    home: Path, change: Callable[[bytes], bytes], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    (home / NAME).write_bytes(change((home / NAME).read_bytes()))
    holds(Store(home))
    assert reason in caplog.text
    assert not (home / NAME).exists()


def swap(rows: Any) -> None:
    rows["shard"], rows["row"] = np.roll(rows["shard"], 1), np.roll(rows["row"], 1)


def misplace(rows: Any) -> None:
    rows["shard"][:] = 10


def overrun(rows: Any) -> None:
    rows["row"][:] = 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [(swap, "other ids"), (misplace, "no shard has"), (overrun, "no shard has")],
)
def test_a_row_is_never_returned_for_another_id(
    home: Path, change: Callable[[Any], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    forge(home, change)
    store = Store(home)
    assert np.array_equal(store.read(ids_of(*NUMBERS)), rows_of(*NUMBERS))
    assert reason in caplog.text
    assert not (home / NAME).exists()
    holds(store)
    indexed(store)
    holds(Store(home))
    forge(home, change)
    assert reason in verify(home)[0].reason
    assert [damage.name for damage in repair(home)] == [NAME]


def test_views_are_compared_as_well(home: Path) -> None:
    views = np.arange(4, dtype=np.int32)
    Store(home).append_packed(rows_of(60, 61, 62, 63), pack_ids(ids_of(*[60] * 4)), views, {})
    indexed(Store(home))

    def change(rows: Any) -> None:
        is_view = rows["key"] > make_keys(pack_ids(ids_of(60)), np.zeros(1, np.int32))
        is_view &= rows["key"] <= make_keys(pack_ids(ids_of(60)), np.full(1, 9, np.int32))
        rows["row"][is_view] = 0
        rows["row"][np.flatnonzero(is_view)[0] - 1] = 2

    forge(home, change)
    assert np.array_equal(Store(home).read(ids_of(60)), rows_of(60))
    assert not (home / NAME).exists()


def invent(rows: Any) -> None:
    """Give the first row of the index the id of an image that no shard has."""
    rows["key"][0] = make_keys(pack_ids(["00" * 32]), np.zeros(1, np.int32))[0]


def test_a_row_that_no_shard_has_is_missing_when_it_is_read(home: Path) -> None:
    forge(home, invent)
    assert "other ids" in verify(home)[0].reason
    store = Store(home)
    assert store.contains(["00" * 32]).all()
    with pytest.raises(MissingRows):
        store.read(["00" * 32])
    holds(store)


def test_a_row_that_no_shard_has_is_not_confirmed(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Store(home).contains(ids_of(*range(50)), confirm=True).sum() == 40
    assert (home / NAME).exists()
    forge(home, invent)
    store = Store(home)
    assert store.contains(["00" * 32, *ids_of(1)], confirm=True).tolist() == [False, True]
    assert "other ids" in caplog.text
    assert not (home / NAME).exists()
    holds(store)


@pytest.mark.parametrize("packed", [False, True])
def test_a_row_that_the_target_lists_but_lacks_is_copied(
    home: Path, tmp_path: Path, *, packed: bool
) -> None:
    source = filled(
        Store.create(tmp_path / "a" / "stores" / SPEC.folder, SPEC, WIDTH), (1, 2), (3,)
    )
    source.append(rows_of(60), ["00" * 32])
    source.refresh()
    forge(home, invent, distinct=17)
    if packed:
        pack(source, tmp_path / "p.h5")
        target = unpack(tmp_path / "p.h5", home.parent.parent)
    else:
        found = copy_rows(source, home.parent.parent, progress=False)
        assert (found.rows, found.present) == (1, 3)
        target = found.store
    assert np.array_equal(target.read(["00" * 32]), rows_of(60))
    assert len(target) == 41


def test_the_manifest_may_be_lost(home: Path) -> None:
    (home / "MANIFEST.json").unlink()
    for path in shards(Store.create(home, SPEC, WIDTH)):
        path.unlink()
        metadata_path(path).unlink()
    (home / "MANIFEST.json").write_text("{")
    assert find_index_damage(home, None, {}) is None
    assert [damage.name for damage in verify(home)] == ["MANIFEST.json"]


def test_an_unsorted_table_returns_no_wrong_row(home: Path) -> None:
    def shuffle(rows: Any) -> None:
        rows[:] = np.random.default_rng(0).permutation(rows)

    forge(home, shuffle)
    store = Store(home)
    for number in NUMBERS:
        if store.contains(ids_of(number)).all():
            assert np.array_equal(store.read(ids_of(number)), rows_of(number))
    assert "not sorted" in verify(home)[0].reason


def test_rows_left_out_or_counted_twice_are_found(home: Path) -> None:
    forge(home, lambda rows: rows[1:2].__setitem__(slice(None), rows[:1]))
    assert "lacks rows" in verify(home)[0].reason
    indexed(Store(home))
    forge(home, nothing, distinct=39)
    assert "distinct" in verify(home)[0].reason


@pytest.mark.parametrize("place", [-4000, -1])
def test_a_damaged_page_is_found_when_it_is_used(
    home: Path, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(home)
    data = bytearray((home / NAME).read_bytes())
    data[place] ^= 1
    with (home / NAME).open("r+b") as file:
        file.write(data)
    holds(store)
    assert "not as it was written" in caplog.text
    holds(Store(home))


@pytest.mark.parametrize("fault", ["truncated", "unreadable"])
def test_a_file_that_changes_while_it_is_open_stops_nothing(
    home: Path, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(home)
    if fault == "truncated":
        os.truncate(home / NAME, 5000)
        reason = "truncated"
    else:

        def fail(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "pread", fail)
        reason = "the disk cannot read it"
    holds(store)
    assert reason in caplog.text


def test_too_many_open_files_cost_no_index_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(index_file, "open_own_file", fail)
        store = Store(home)
        holds(store)
        assert store.shards.file is None
    assert Store(home).shards.file is not None


def test_a_file_that_cannot_be_removed_is_ignored(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(home)
    error = IndexFile(home / NAME).damage("of a test")
    with monkeypatch.context() as patched:
        patched.setattr(listing.Path, "unlink", lambda _: (_ for _ in ()).throw(PermissionError()))
        store.drop_index(error)
        store.refresh()
        assert store.shards.file is None
        store.drop_index(error)
    indexed(store)
    assert store.shards.file is not None


# Shards that change beside it


def test_a_lost_sidecar_or_another_size_is_looked_at(home: Path) -> None:
    one, two, *_ = shards(Store(home))
    metadata_path(one).unlink()
    two.write_bytes(two.read_bytes()[:-1])
    store = Store(home)
    assert [damage.name for damage in store.damaged] == [two.name]
    assert len(store) == 36
    assert metadata_path(one).exists()


def test_an_indexed_shard_that_became_a_link_to_nothing_is_damage(home: Path) -> None:
    one, *_ = shards(Store(home))
    one.unlink()
    one.symlink_to("/nowhere/at/all")
    store = Store(home)
    assert [damage.reason for damage in store.damaged] == ["it is a link to nothing"]
    assert (len(store), len(store.shards.indexed)) == (36, 9)


def test_a_shard_and_its_sidecar_damaged_together_are_skipped(home: Path) -> None:
    shard = shards(Store(home))[0]
    for path in (shard, metadata_path(shard)):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    store, other = Store(home), Store(home)
    assert other.read_shard(shard.name) is None
    assert list(shards_of(other, lambda _: False)) == [(shard.name, None)]
    assert [name for name, _ in shards_of(other, _fails)] == other.shard_names
    indexed(Store(home))
    assert copy_rows(other, home.parent.parent / "c", progress=False).rows == 36
    with pytest.raises(MissingRows):
        store.read(ids_of(*NUMBERS))
    assert [damage.name for damage in store.damaged] == [shard.name]
    assert store.shards.file is not None  # the new one, which is right
    assert len(Store(home)) == 36


def _fails(_: object) -> bool:
    raise FileNotFoundError


def test_a_merge_during_a_question_or_a_read_is_no_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(home)
    assert len(store.shards.indexed) == 10
    compact(Store(home), many=2)
    assert sorted(store.ids()) == sorted(ids_of(*NUMBERS))
    indexed(filled(Store(home), (50,)))
    store = Store(home)
    compact(Store(home), many=2)
    assert np.array_equal(store.read(ids_of(*NUMBERS, 50)), rows_of(*NUMBERS, 50))

    def never(*_: object) -> None:
        raise FileNotFoundError

    store = Store(home)
    monkeypatch.setattr(store.shards, "all_ids", never)
    monkeypatch.setattr(store, "refresh", lambda: None)
    with pytest.raises(StoreError, match="merged its shards during each of"):
        store.ids()


def test_an_index_file_may_vanish_or_be_replaced(home: Path) -> None:
    store = Store(home)
    (home / NAME).unlink()
    store.refresh()
    assert store.shards.file is None
    holds(store)
    first = indexed(store).shards.file
    store.refresh()
    assert store.shards.file is first
    assert indexed(store).shards.file is not first
    with pytest.raises(FileNotFoundError):
        IndexFile(home / "nothing")
    with pytest.raises(IndexDamaged):
        IndexFile(home)
