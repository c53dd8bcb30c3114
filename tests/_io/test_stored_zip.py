"""A member of a zip archive is read as a file, without reading the archive again and again."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from featcache._io.stored_zip import StoredMember

BODY = os.urandom(10_000)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("before", b"x" * 100)
        file.writestr("member", BODY)
        file.writestr("after", b"y" * 100)
    return tmp_path / "a.zip"


def test_a_member_is_a_file_that_is_read_and_sought_with_a_buffer(archive: Path) -> None:
    with open(archive, "rb") as file, zipfile.ZipFile(archive) as names:
        member = io.BufferedReader(StoredMember(file, names.getinfo("member")))
        assert (member.readable(), member.seekable(), member.writable()) == (True, True, False)
        assert member.read() == BODY
        for offset, whence in ((7000, os.SEEK_SET), (-50, os.SEEK_END), (3, os.SEEK_SET)):
            start = member.seek(offset, whence)
            assert member.read(100) == BODY[start : start + 100]
        member.seek(-1, os.SEEK_CUR)
        assert member.read(1) == BODY[102:103]


def test_a_member_that_is_an_hdf5_file_is_read_in_its_place(tmp_path: Path) -> None:
    rows = np.arange(1000.0).reshape(100, 10)
    with h5py.File(tmp_path / "rows.h5", "w") as written:
        written.create_dataset("rows", data=rows, chunks=(7, 10))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as target:
        target.writestr("first", b"x" * 333)
        target.write(tmp_path / "rows.h5", "rows.h5")
    with open(tmp_path / "b.zip", "rb") as file, zipfile.ZipFile(tmp_path / "b.zip") as names:
        member = StoredMember(file, names.getinfo("rows.h5"))
        with h5py.File(member, "r") as read:
            assert np.array_equal(read["rows"][()], rows)


def test_a_member_that_ends_after_the_archive_is_refused(archive: Path) -> None:
    with zipfile.ZipFile(archive) as names:
        info = names.getinfo("after")
    info.file_size = 10**6
    with open(archive, "rb") as file, pytest.raises(ValueError, match="ends after the archive"):
        StoredMember(file, info)
