"""Collection beside those who use a store, and what it says about what it could not do."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import photo
from featcache import extract, load_dataset, verify
from featcache._io.cache_dirs import cache_folder, engines_folder, stores_folder
from featcache.cli import main
from featcache.errors import DatasetNotFound, StoreWriteError
from featcache.gc.collect import collect
from featcache.images.image_file import content_id
from featcache.store import maintenance, place
from featcache.store import row_removal as rowremoval
from featcache.store.lease import NAME as LEASE
from featcache.store.lease import is_in_use, mark_in_use
from featcache.store.manifest import Manifest
from featcache.store.pack import pack, unpack
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of


def filled(cache: Path, *batches: tuple[int, ...]) -> Store:
    store = Store.create(stores_folder(cache) / SPEC.folder, SPEC, WIDTH)
    for batch in batches:
        store.append(rows_of(*batch), ids_of(*batch))
    store.write_manifest()
    return store


def once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, before: Any) -> list[int]:
    """Call `before` at the first call of a function, ahead of it."""
    real, calls = getattr(owner, name), list[int]()

    def wrapped(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            before()
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, wrapped)
    return calls


# Beside extraction


def test_an_extraction_waits_for_rows_that_are_being_removed(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = extract(tiny_model, photos)
    rows = np.asarray(before.X)
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(extract(tiny_model, photos)))

    def begin() -> None:
        thread.start()  # the look for marks is over by now
        time.sleep(1)

    once(monkeypatch, rowremoval, "remove_shards", begin)
    found = collect(cache_folder(), keep_ids=before.ids[:3])
    assert [removal.rows for removal in found] == [9]
    thread.join(60)
    assert (done[0].summary.stored, done[0].summary.computed) == (3, 9)
    assert np.allclose(done[0].X, rows, rtol=1e-5, atol=1e-5)


def test_an_extraction_waits_however_long_the_removal_takes(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_LEASE_WAIT_SECONDS", 0.05)
    test_an_extraction_waits_for_rows_that_are_being_removed(photos, tiny_model, monkeypatch)


def test_a_model_that_an_extraction_is_about_to_need_stays(tmp_path: Path) -> None:
    model = engines_folder(tmp_path) / f"vgg19-{'0' * 16}"
    model.mkdir(parents=True)
    (model / "model.bin").write_bytes(b"x")
    os.utime(model / "model.bin", (1, 1))
    folder = stores_folder(tmp_path) / SPEC.folder
    folder.mkdir(parents=True)
    with mark_in_use(folder):
        found = collect(tmp_path, unused_days=1)
        assert [kept.name for kept in found.kept] == [model.name]
        assert model.exists()
    assert [removal.name for removal in collect(tmp_path, unused_days=1)] == [model.name]


def test_unpacking_marks_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(filled(tmp_path, (1, 2)), tmp_path / "p.h5")
    found: list[Any] = []
    other = tmp_path / "other"
    once(
        monkeypatch, Store, "append_packed",
        lambda: found.append(collect(other, unused_days=0).kept),
    )  # fmt: skip
    assert len(unpack(tmp_path / "p.h5", other)) == 2
    assert [(kept.name, kept.reason) for kept in found[0]] == [(SPEC.folder, "it is in use")]


def test_an_empty_store_that_another_has_begun_to_use_stays(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with mark_in_use(store.folder):
        place._remove_empty_store(store.folder)
        assert len(Store(store.folder)) == 0
    place._remove_empty_store(store.folder)
    assert not store.folder.exists()


# A lease that is lost


def steal(folder: Path) -> None:
    (folder / LEASE).unlink()


def test_a_manifest_that_was_listed_too_early_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(tmp_path, (1,), (2,))
    store.append(rows_of(3), ids_of(3))

    def stopped() -> None:
        steal(store.folder)
        assert maintenance.compact(Store(store.folder), many=2) == 3

    once(monkeypatch, Manifest, "write", stopped)
    store.write_manifest()
    assert verify(store.folder) == []
    assert np.array_equal(Store(store.folder).read(ids_of(1, 2, 3)), rows_of(1, 2, 3))


@pytest.mark.parametrize("what", ["compact", "collect"])
def test_whoever_lost_its_lease_removes_nothing_and_leaves_a_true_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    store = filled(tmp_path, (1, 2), (3, 4), (5, 6))
    work = {
        "compact": lambda: maintenance.compact(Store(store.folder), many=2),
        "collect": lambda: collect(tmp_path, keep_ids=ids_of(1, 3, 5)),
    }[what]

    def stopped() -> None:
        steal(store.folder)
        assert maintenance.compact(Store(store.folder), many=2) >= 3

    once(monkeypatch, Manifest, "write", stopped)
    found = work()
    if what == "collect":
        assert [kept.failed for kept in found.kept] == [True]
        assert "taken over" in found.kept[0].reason
    assert verify(store.folder) == []
    assert np.array_equal(Store(store.folder).read(ids_of(1, 3, 5)), rows_of(1, 3, 5))
    assert not (store.folder / LEASE).exists()


# What stays, by the images


@pytest.mark.parametrize("margin", [1 / 6, 1 / 3, 0.1, 0.123456789])
def test_a_margin_that_its_name_gives_in_six_digits_keeps_its_rows(
    tmp_path: Path, tiny_model: Any, margin: float
) -> None:
    # Widened by a sixth or by 0.166667, a box of 15 pixels is not the same.
    rows = ["path,left,top,right,bottom"]
    for number, (width, height) in enumerate([(15, 9), (9, 15), (15, 15), (3, 3), (21, 4)]):
        photo(tmp_path / f"{number}.png", number, (60, 60))
        rows.append(f"{number}.png,5,5,{5 + width},{5 + height}")
    table = tmp_path / "boxes.csv"
    table.write_text("\n".join(rows))
    folder = extract(tiny_model, table, crop="box", margin=margin).summary.folder
    found = collect(cache_folder(), keep_data=[table])
    assert (found, found.kept) == ([], [])
    assert len(Store(folder)) == 5
    plain = load_dataset(table, crop="box")
    assert collect(cache_folder(), keep_data=[plain]) == []


def test_data_that_are_not_there_are_an_error_for_stores_of_boxes_too(
    tmp_path: Path, tiny_model: Any
) -> None:
    photo(tmp_path / "a.png", 1)
    table = tmp_path / "boxes.csv"
    table.write_text("path,left,top,right,bottom\na.png,1,1,9,9")
    folder = extract(tiny_model, table, crop="box").summary.folder
    with pytest.raises(DatasetNotFound):
        collect(cache_folder(), keep_data=[tmp_path / "absent"])
    table.write_text("path,left,top,right,bottom\na.png,9,1,1,9")
    assert "is not a box" in collect(cache_folder(), keep_data=[table]).kept[0].reason
    assert len(Store(folder)) == 1


def test_rows_of_files_that_only_another_installation_decodes_stay(
    tmp_path: Path, photos: Path
) -> None:
    raw = b"a camera's own format"
    (photos / "cat" / "photo.cr2").write_bytes(raw)
    store = filled(tmp_path, (1,))
    store.append(rows_of(2), [content_id(raw)])
    store.write_manifest()
    assert [removal.rows for removal in collect(tmp_path, keep_data=[photos])] == [1]
    assert Store(store.folder).ids() == [content_id(raw)]


def test_a_store_elsewhere_is_not_taken_for_the_one_of_that_name_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = filled(tmp_path / "here", (1,)), filled(tmp_path / "there", (1,))
    words = ["--unused-days", "0", "--cache-dir", str(tmp_path / "here")]
    assert main(["gc", str(there.folder), *words]) == 2
    assert "is not in the cache folder" in capsys.readouterr().err
    assert len(Store(here.folder)) == len(Store(there.folder)) == 1
    assert main(["gc", str(here.folder), *words]) == 0
    assert not here.folder.exists()


# What could not be done


def test_a_store_without_its_manifest_is_named(tmp_path: Path) -> None:
    store = filled(tmp_path, (1,))
    (store.folder / "MANIFEST.json").unlink()
    found = collect(tmp_path, unused_days=0)
    assert found == []
    assert "its manifest is missing" in found.kept[0].reason


@pytest.fixture
def pinned() -> Iterator[list[Path]]:
    """Files that the system lets nobody remove, once they are appended: something is mounted."""
    files: list[Path] = []

    class Pinned(list[Path]):
        def append(self, path: Path) -> None:
            done = subprocess.run(["mount", "--bind", path, path], capture_output=True)
            if done.returncode:
                pytest.skip("this user may not mount")
            files.append(path)

    yield Pinned()
    for path in files:
        subprocess.run(["umount", "-l", path], check=True)


def test_shards_that_the_system_does_not_let_go_are_told(
    tmp_path: Path, pinned: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store = filled(tmp_path, (1, 2), (3, 4))
    pinned.append(sorted(store.folder.glob("*.h5"))[0])
    found = collect(tmp_path, keep_ids=[])
    assert [removal.rows for removal in found] == [2]
    assert [(kept.failed, kept.reason[:33]) for kept in found.kept] == [
        (True, "2 of the rows to remove are left,")
    ]
    (tmp_path / "data").mkdir()
    photo(tmp_path / "data" / "a.png", 1)
    words = ["--only", str(tmp_path / "data"), "--json", "--cache-dir", str(tmp_path)]
    assert main(["gc", *words]) == 1
    assert json.loads(capsys.readouterr().out)["kept"][0]["failed"]


def test_rows_of_a_damaged_shard_are_not_counted_as_removed(tmp_path: Path) -> None:
    store = filled(tmp_path, (1, 2), (3, 4))
    victim = sorted(store.folder.glob("*.h5"))[0]
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    found = collect(tmp_path, keep_ids=[])
    assert [removal.rows for removal in found] == [2]
    assert "2 of the rows to remove are left" in found.kept[0].reason
    assert victim.exists()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_manifest_that_cannot_be_written_takes_the_new_shards_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    store = filled(tmp_path, (1, 2), (3, 4))
    before = sorted(path.name for path in store.folder.iterdir())

    def refuses(*_: Any) -> None:
        raise StoreWriteError("refused", system_errno=error)

    monkeypatch.setattr(Manifest, "write", refuses)
    found = collect(tmp_path, keep_ids=ids_of(1, 3))
    assert (list(found), [kept.failed for kept in found.kept]) == ([], [True])
    assert sorted(path.name for path in store.folder.iterdir()) == before
    assert verify(store.folder) == []


def test_marks_are_taken_away_at_the_end(photos: Path, tiny_model: Any) -> None:
    folder = extract(tiny_model, photos).summary.folder
    extract(tiny_model, photos)
    assert not is_in_use(folder)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
