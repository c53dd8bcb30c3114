"""The index never names a changed file by its old content, and reads nothing twice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache._io import file_state
from featcache._io.atomic import write_memo
from featcache.data import file_index
from featcache.data.file_index import identify
from featcache.images.image_file import content_id


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    read = file_index.read_file

    def counting(path: str, reserve: Callable[[int], None]) -> object:
        seen.append(str(path))
        return read(path, reserve)

    monkeypatch.setattr(file_index, "read_file", counting)
    monkeypatch.setattr(file_state, "_RACY_NS", 0)
    return seen


def test_an_unchanged_file_is_read_once(tmp_path: Path, reads: list[str]) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    time.sleep(0.02)
    results = [identify([str(file)], str(tmp_path), tmp_path / "i")[0].image_id for _ in range(3)]
    assert results == [content_id(b"one")] * 3
    assert len(reads) == 1


def test_a_change_of_same_size_and_restored_mtime_is_noticed(
    tmp_path: Path, reads: list[str]
) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    before = file.stat()
    time.sleep(0.02)
    identify([str(file)], str(tmp_path), tmp_path / "i")
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert identify([str(file)], str(tmp_path), tmp_path / "i")[0].image_id == content_id(b"two")


def test_a_file_changed_within_the_clocks_tick_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")  # just now, so it may change again with equal times
    identify([str(file)], str(tmp_path), tmp_path / "i")
    assert not list((tmp_path / "i").glob("*.json"))


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"version": 1', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_index_is_as_good_as_none(
    tmp_path: Path, reads: list[str], damage: bytes
) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    time.sleep(0.02)
    identify([str(file)], str(tmp_path), tmp_path / "i")
    (index,) = (tmp_path / "i").iterdir()
    index.write_bytes(damage)
    assert identify([str(file)], str(tmp_path), tmp_path / "i")[0].image_id == content_id(b"one")


@pytest.mark.parametrize("entries", [None, 5, [1, 2], {"a": 5}, {"a": None}, "absent"])
def test_an_index_without_entries_of_its_form_is_as_good_as_none(
    tmp_path: Path, reads: list[str], entries: object
) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    time.sleep(0.02)
    identify([str(file)], str(tmp_path), tmp_path / "i")
    (index,) = (tmp_path / "i").iterdir()
    kept = {"version": file_index.VERSION, "entries": entries}
    if entries == "absent":
        del kept["entries"]
    write_memo(index, kept, "the file index")  # its checksum fits
    for _ in range(2):
        found = identify([str(file)], str(tmp_path), tmp_path / "i")
        assert found[0].image_id == content_id(b"one")
    assert len(reads) == 2  # the second time from an index that was written again


def test_an_index_with_a_swapped_id_is_not_believed(tmp_path: Path, reads: list[str]) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    time.sleep(0.02)
    identify([str(file)], str(tmp_path), tmp_path / "i")
    (index,) = (tmp_path / "i").iterdir()
    index.write_text(index.read_text().replace(content_id(b"one"), content_id(b"two")))
    assert identify([str(file)], str(tmp_path), tmp_path / "i")[0].image_id == content_id(b"one")


def test_an_unreadable_path_has_a_reason_and_the_others_their_place(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"x")
    missing, present = identify([str(tmp_path / "a"), str(tmp_path / "b")], "r", tmp_path / "i")
    assert (missing.image_id, present.image_id) == (None, content_id(b"x"))
    assert "No such file" in str(missing.reason)
