"""Removal of a store on a disk that fails, or beside others: all of it, or nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from featcache.store import removal
from featcache.store.lease import NAME as LEASE
from featcache.store.lease import USE_PREFIX, lease, mark_in_use
from featcache.store.maintenance import verify
from featcache.store.removal import Kept, remove, remove_renamed, resume_removals
from featcache.store.store import Store
from refusals import before_first_call, refuse
from stores import SPEC, WIDTH, filled, ids_of

RENAMED = f".gone-{'0' * 32}-store"


def made(folder: Path) -> Path:
    filled(Store.create(folder, SPEC, WIDTH), (1, 2), (3,)).close()
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return made(tmp_path / "store")


def is_intact(folder: Path) -> bool:
    return verify(folder) == [] and bool(Store(folder).contains(ids_of(1, 2, 3)).all())


def is_new_file(_: Any, flags: int, *__: Any) -> bool:
    return bool(flags & os.O_CREAT)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_without_space_for_a_lease_lets_a_store_go(
    store: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    failed = refuse(monkeypatch, os, "open", code, concerns=is_new_file)
    assert remove(store) is None
    assert failed
    assert list(store.parent.iterdir()) == []


def test_a_disk_that_refuses_the_lease_keeps_the_store(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, os, "open", errno.EROFS, concerns=is_new_file)
    kept = remove(store)
    assert kept == Kept("store", "the system refuses: Read-only file system", failed=True)
    assert is_intact(store)


def test_a_store_that_the_system_does_not_rename_stays(tmp_path: Path) -> None:
    folder = made(tmp_path / ("s" * 240))  # a longer name is no name
    kept = remove(folder)
    assert kept == Kept(folder.name, "the system refuses: File name too long", failed=True)
    assert is_intact(folder)
    assert not (folder / LEASE).exists()


def test_whoever_lost_its_lease_removes_no_store(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_first_call(monkeypatch, removal, "is_in_use", (store / LEASE).unlink)
    kept = remove(store)
    assert kept is not None
    assert kept.failed
    assert "was taken over by another process" in kept.reason
    assert is_intact(store)


def test_a_store_that_another_process_has_just_removed_is_no_failure(tmp_path: Path) -> None:
    assert remove(tmp_path / "store") == Kept("store", "another process has just removed it")


def test_a_store_whose_lease_another_holds_is_no_failure(store: Path) -> None:
    with lease(store):
        kept = remove(store)
    assert kept is not None
    assert (kept.reason.split(";")[0], kept.failed) == (
        "another process is merging or removing its shards", False,
    )  # fmt: skip
    assert is_intact(store)


def test_a_removal_that_the_disk_interrupts_is_completed_by_the_next(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, os, "rmdir", errno.EIO, times=1)
    kept = remove(store)
    assert kept is not None
    assert kept.failed
    assert "Input/output error (.gone-" in kept.reason
    assert [path.name[:6] for path in store.parent.iterdir()] == [".gone-"]
    assert resume_removals(store.parent) == []
    assert list(store.parent.iterdir()) == []


def test_a_file_under_the_name_of_a_removal_is_kept_and_named(tmp_path: Path) -> None:
    (tmp_path / RENAMED).write_text("mine")
    (kept,) = resume_removals(tmp_path)
    assert kept.failed
    assert f"Not a directory ({RENAMED})" in kept.reason
    assert (tmp_path / RENAMED).read_text() == "mine"


def test_a_folder_of_stores_that_cannot_be_listed_is_said(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(store.with_name("other")).rename(store.with_name(RENAMED))
    refuse(monkeypatch, os, "listdir", errno.EACCES)
    assert resume_removals(store.parent) == [
        Kept(store.parent.name, "the system refuses: Permission denied", failed=True)
    ]
    monkeypatch.undo()
    assert resume_removals(store.parent) == []
    assert os.listdir(store.parent) == ["store"]


def test_a_file_that_both_folders_have_is_the_new_folders(store: Path) -> None:
    renamed = store.with_name(RENAMED)
    with mark_in_use(store):
        store.rename(renamed)
        Store.create(store, SPEC, WIDTH).close()
        (renamed / ".DS_Store").write_text("old")
        (store / ".DS_Store").write_text("new")
        assert remove_renamed(renamed) == Kept("store", "it is in use")
        assert [path.name for path in store.parent.iterdir()] == ["store"]
        assert len(list(store.glob(f"{USE_PREFIX}*"))) == 1
    assert (store / ".DS_Store").read_text() == "new"
    assert Store(store).contains(ids_of(1, 2, 3)).all()


def test_what_remains_of_a_store_that_cannot_be_put_back_is_kept_for_the_next_attempt(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = store.with_name(RENAMED)
    with mark_in_use(store):
        store.rename(renamed)
        Store.create(store, SPEC, WIDTH).close()
        refuse(monkeypatch, Path, "rename", errno.EIO, concerns=lambda path, _: ".h5" in str(path))
        kept = remove_renamed(renamed)
        assert kept is not None
        assert "Input/output error" in kept.reason
        monkeypatch.undo()
        assert remove_renamed(renamed) == Kept("store", "it is in use")
    assert not renamed.exists()
    assert Store(store).contains(ids_of(1, 2, 3)).all()
    shutil.rmtree(store)
