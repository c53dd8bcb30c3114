"""Collection removes files of ours only, whatever the user's own are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from featcache._io.cache_dirs import engines_folder
from featcache.gc.collect import collect

_LONG_AGO = (1e9, 1e9)


def old_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    os.utime(path, _LONG_AGO)
    return path


@pytest.mark.parametrize("name", ["my-notes", f"notes-{'0' * 16}", f".notes-{'0' * 16}"])
def test_a_users_folder_beside_converted_models_is_kept(tmp_path: Path, name: str) -> None:
    thesis = old_file(engines_folder(tmp_path) / name / "thesis.txt")
    old_file(thesis.with_name("model.xml"))
    assert collect(tmp_path, unused_days=100) == []
    assert thesis.exists()


def test_a_folder_under_the_name_of_a_converted_file_is_kept(tmp_path: Path) -> None:
    thesis = old_file(engines_folder(tmp_path) / f"a-{'0' * 16}" / "model.bin" / "thesis.txt")
    os.utime(thesis.parent, _LONG_AGO)
    found = collect(tmp_path, unused_days=100)
    assert ["model.bin" in kept.reason for kept in found.kept] == [True]
    assert thesis.exists()


def test_a_conversion_that_was_killed_is_removed_once_it_is_old(tmp_path: Path) -> None:
    left = old_file(engines_folder(tmp_path) / f".tmp-{'0' * 32}" / "model.xml").parent
    collect(tmp_path, unused_days=100)
    assert left.exists()
    os.utime(left, _LONG_AGO)
    collect(tmp_path, unused_days=100)
    assert not left.exists()
