"""Folders of the cache whose content is loaded by later runs, and who may write to them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from featcache import extract
from featcache._io import cache_dirs
from featcache._io.atomic import make_folder, write_memo
from featcache.errors import InvalidRequest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")


def rights(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_folders_that_a_run_loads_from_are_private(tmp_path: Path, photos: Path) -> None:
    pytest.importorskip("openvino")
    before = os.umask(0)
    try:
        cache = tmp_path / "new" / "cache"
        extract(
            "mobilenet", photos, weights="random", image_size=32, cache_dir=cache, engine="openvino"
        )
    finally:
        os.umask(before)
    found = {name: rights(cache / name) for name in ("weights", "engines")}
    assert found == {"weights": 0o700, "engines": 0o700}


def test_a_folder_that_is_shared_on_purpose_keeps_its_rights(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights").chmod(0o775)
    write_memo(tmp_path / "weights" / "a.json", 1, "a memo")
    make_folder(tmp_path / "weights", private=True)
    assert rights(tmp_path / "weights") == 0o775


@pytest.mark.parametrize("part", ["", "stores", "files", "weights", "engines", "training"])
def test_a_cache_that_others_can_write_to_is_said_once(
    tmp_path: Path, photos: Path, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    folder = tmp_path / "shared" / part
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    for _ in range(2):
        with caplog.at_level(logging.WARNING, "featcache"):
            cache_dirs.warn_if_shared(tmp_path / "shared")
    (message,) = caplog.messages
    assert "every user can write" in message
    assert str(folder) in message


def test_an_extraction_says_it(
    tmp_path: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    options = {"weights": "random", "image_size": 32}
    extract("mobilenet", photos, cache_dir=tmp_path / "open", **options)
    extract("mobilenet", photos, cache_dir=tmp_path / "own", **options)
    said = [m for m in caplog.messages if "can write" in m]
    assert len(said) == 1
    assert "/open" in said[0]


def test_a_private_cache_and_one_of_the_users_own_group_are_silent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for mode in (0o700, 0o755):
        tmp_path.chmod(mode)
        cache_dirs.warn_if_shared(tmp_path)
    cache_dirs.warn_if_shared(tmp_path / "missing")
    assert not caplog.messages
    assert cache_dirs._is_own_group(os.getuid() + 12345, os.getuid()) is False


@pytest.mark.parametrize("cache", [Path("s3://bucket/prefix"), "s3:/bucket/prefix"])
def test_a_url_that_lost_a_slash_is_no_folder(cache: Path | str) -> None:
    with pytest.raises(InvalidRequest, match=r"The cache s3:/bucket/prefix is not a folder, and a"):
        cache_dirs.cache_folder(cache)
    assert cache_dirs.cache_folder("./s3:/bucket") == Path.cwd() / "s3:/bucket"
