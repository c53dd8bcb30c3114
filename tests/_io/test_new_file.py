"""Paths that a user asks to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from featcache._io.new_file import check_new_path
from featcache.errors import InvalidRequest


def test_what_exists_is_replaced_by_its_like_alone(tmp_path: Path) -> None:
    file, folder, link = tmp_path / "file", tmp_path / "folder", tmp_path / "link"
    file.write_bytes(b"")
    folder.mkdir()
    link.symlink_to("nowhere")
    assert check_new_path(tmp_path / "new", overwrite=False) == tmp_path / "new"
    assert check_new_path(file, overwrite=True) == file
    assert check_new_path(link, overwrite=True) == link
    assert check_new_path(folder, overwrite=True, folder=True) == folder
    for path in (file, folder, link):
        with pytest.raises(InvalidRequest, match=r"not overwritten.*overwrite=True"):
            check_new_path(path, overwrite=False)
    with pytest.raises(InvalidRequest, match="is a folder; name a file"):
        check_new_path(folder, overwrite=True)
    with pytest.raises(InvalidRequest, match="is a file; name a folder"):
        check_new_path(file, overwrite=True, folder=True)
    with pytest.raises(InvalidRequest, match="null character"):
        check_new_path("a\0b", overwrite=False)
