"""What a killed process left is removed in time, and what is in use or the user's stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bench.finetune import pixels
from bench.splits import Images
from conftest import photo
from featcache._io.atomic import TEMPORARY_PREFIX, open_atomic, remove_stale
from featcache.datasets.drawn.dogs import drawn_dogs
from featcache.errors import StoreWriteError
from featcache.images.image_file import content_id


def test_a_folder_in_which_somebody_still_works_is_not_stale(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").write_bytes(b"x")
    busy, left, link = (tmp_path / f"{TEMPORARY_PREFIX}{n * 32}" for n in "abc")
    for path in (busy, left):
        (path / "below").mkdir(parents=True)
        (path / "below" / "image").write_bytes(b"x")
    link.symlink_to(target)
    old = time.time() - 7200
    os.utime(left / "below", (old, old))
    for path in (busy, left):
        os.utime(path, (old, old))
    os.utime(link, (old, old), follow_symlinks=False)
    remove_stale(tmp_path)
    assert busy.is_dir()
    assert not left.exists()
    assert not link.is_symlink()
    assert (target / "kept").exists()
    remove_stale(tmp_path / "gone")  # no folder, no error


def test_what_a_killed_process_left_among_pixels_and_samples_goes(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png", 1)
    images = Images((str(path),), (content_id(path.read_bytes()),))
    for folder in ("pixels", "samples"):
        (tmp_path / folder).mkdir()
        for name in "01":
            (tmp_path / folder / f"{TEMPORARY_PREFIX}{name * 32}").write_bytes(b"x")
        os.utime(tmp_path / folder / f"{TEMPORARY_PREFIX}{'0' * 32}", (1, 1))
    pixels.decoded(images, (8, 9), cache_dir=tmp_path, progress=False)
    drawn_dogs(1, 1, image_size=32, folder=tmp_path / "samples" / "dogs", progress=False)
    for folder in ("pixels", "samples"):
        left = [path.name for path in (tmp_path / folder).glob(".tmp-*")]
        assert left == [f"{TEMPORARY_PREFIX}{'1' * 32}"]


def test_an_error_of_ours_while_a_file_is_written_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(StoreWriteError, match="another"), open_atomic(tmp_path / "x"):
        raise StoreWriteError("another")
    assert list(tmp_path.iterdir()) == []
