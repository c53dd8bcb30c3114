"""A folder appears with all that was written into it, on the disk, or does not appear."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featcache._io import atomic
from featcache._io.atomic import open_folder_atomic


def test_all_files_are_synced_before_the_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, bool]] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, target.exists()))
        fsync(handle)

    monkeypatch.setattr(atomic.os, "fsync", note)
    target = tmp_path / "set"
    with open_folder_atomic(target) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a.txt").write_text("a")
        assert not target.exists()
    assert os.listdir(tmp_path) == ["set"]
    for path in (target / "inner" / "a.txt", target / "inner", target):
        assert (path.stat().st_ino, False) in synced
    assert (tmp_path.stat().st_ino, True) in synced


def test_after_an_error_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_folder_atomic(tmp_path / "set") as folder:  # noqa: PT012
        (folder / "a.txt").write_text("a")
        raise KeyboardInterrupt
    assert not os.listdir(tmp_path)


def test_a_folder_that_holds_something_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("mine")
    with pytest.raises(OSError), open_folder_atomic(tmp_path / "set") as folder:  # noqa: PT011
        (folder / "a.txt").write_text("a")
    assert os.listdir(tmp_path) == ["set"]
    assert os.listdir(tmp_path / "set") == ["mine"]
