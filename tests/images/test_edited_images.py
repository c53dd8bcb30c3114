"""An image that is edited after its bytes were hashed gets no row of other pixels."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import make_tiny_model, photo
from featcache import Store, extract
from featcache._io import file_state
from featcache.data import file_index
from featcache.images.decode import load_pixels
from featcache.images.image_file import BadImage, content_id


def edit_through_a_map(path: Path, data: bytes) -> None:
    """Change a file's bytes and leave size, times and inode as they were."""
    before = path.stat()
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:] = data
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_image_edited_between_the_look_and_the_decoding_gets_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's state is made equal, as a write through a memory map can leave it."""
    model = make_tiny_model()
    first = photo(tmp_path / "photos" / "a.bmp", 1)
    photo(tmp_path / "photos" / "b.bmp", 2)
    other = photo(tmp_path / "other.bmp", 3).read_bytes()
    original = first.read_bytes()
    identify = file_index.identify
    state = file_index.file_state(first.stat())

    def edited_after_it(*arguments: Any, **options: Any) -> Any:
        found = identify(*arguments, **options)
        edit_through_a_map(first, other)
        return found

    monkeypatch.setattr("featcache.data.sources.identify", edited_after_it)
    monkeypatch.setattr(
        "featcache.images.image_file.file_state", lambda _: state._replace(size=len(other))
    )
    monkeypatch.setattr(file_state, "_RACY_NS", 0)
    time.sleep(0.02)
    features = extract(model, tmp_path / "photos", cache_dir=tmp_path / "cache")
    assert [q.reason for q in features.quarantined] == [
        "was replaced since it was listed; run again"
    ]
    assert not Store(features.summary.folder).contains([content_id(original)])[0]


def test_pixels_are_those_of_the_bytes_that_were_hashed(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.bmp", 1)
    planned = content_id(path.read_bytes())
    edit_through_a_map(path, photo(tmp_path / "b.bmp", 2).read_bytes())
    with pytest.raises(BadImage, match="replaced"):
        load_pixels(path, (8, 8), "stretch", planned)
    edit_through_a_map(path, photo(tmp_path / "c.bmp", 1).read_bytes())
    assert np.asarray(load_pixels(path, (8, 8), "stretch", planned)).shape == (8, 8, 3)
