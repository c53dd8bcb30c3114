"""Archives that nobody vouches for: long and deep names, bombs of headers, silent ends."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

import archives
from featcache.datasets.archives import unpack
from featcache.errors import DatasetError, UnsafeArchive


def one_file(path: Path, name: str, form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        member = tarfile.TarInfo(name)
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    return path


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
@pytest.mark.parametrize(
    "name",
    ["a/" * 3000 + "b", "a/" * 40 + "b", "x" * 300, "x" * 5000, "/".join(["x" * 150] * 10)],
    ids=["3000 folders", "40 folders", "300 characters", "5000 characters", "1500 in all"],
)
def test_a_long_or_deep_name_is_refused(tmp_path: Path, name: str, form: int) -> None:
    path = one_file(tmp_path / "a.tar", name, form)
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsafeArchive, match="too long, or in too many folders") as raised:
        unpack(path, tmp_path / "out")
    assert len(str(raised.value)) < 500
    assert list((tmp_path / "out").iterdir()) == []


def test_a_name_of_common_length_is_written(tmp_path: Path) -> None:
    name = "/".join(["x" * 150] * 5)
    (tmp_path / "out").mkdir()
    assert unpack(one_file(tmp_path / "a.tar", name), tmp_path / "out") == 1
    assert (tmp_path / "out" / name).read_bytes() == b"abc"


@pytest.mark.parametrize(
    "kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE], ids=["L", "x", "g"]
)
def test_a_header_that_declares_gigabytes_is_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("name")
    member.type, member.size = kind, 2**32
    path = tmp_path / "a.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match="declares 4,294,967,296 bytes"):
        unpack(path, tmp_path / "out")


def test_headers_within_headers_are_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("name")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2
    one = member.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")
    path = tmp_path / "a.tar"
    path.write_bytes(one * 5000)
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match="cut off or damaged"):
        unpack(path, tmp_path / "out")


def test_folders_count_as_entries(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in range(20):
            member = tarfile.TarInfo(f"{number}")
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsafeArchive, match="more than 10 entries"):
        unpack(tmp_path / "a.tar", tmp_path / "out", max_files=10)


def test_no_damaged_or_missing_header_ends_an_archive_in_silence(tmp_path: Path) -> None:
    files = {f"{i}.bin": bytes([i]) * 700 for i in range(4)}
    whole = archives.tar(tmp_path / "whole.tar", files).read_bytes()
    path = tmp_path / "a.tar"
    used = 4 * (512 + 1024)
    assert whole[used : used + 512] == bytes(512)
    for number in range(1, 4):
        data = bytearray(whole)
        data[number * 1536 + 100] ^= 1  # in a header behind the first one
        path.write_bytes(bytes(data))
        (tmp_path / f"damaged{number}").mkdir()
        with pytest.raises(DatasetError, match="cut off or damaged"):
            unpack(path, tmp_path / f"damaged{number}")
    for length in range(512, used + 1, 256):
        path.write_bytes(whole[:length])
        (tmp_path / f"cut{length}").mkdir()
        with pytest.raises(DatasetError, match="cut off or damaged"):
            unpack(path, tmp_path / f"cut{length}")
    path.write_bytes(whole)
    (tmp_path / "whole").mkdir()
    assert unpack(path, tmp_path / "whole") == 4


def test_a_name_that_is_no_text_keeps_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    unpack(one_file(tmp_path / "a.tar", os.fsdecode(b"a\xff.bin")), tmp_path / "out")
    assert os.listdir(os.fsencode(tmp_path / "out")) == [b"a\xff.bin"]
