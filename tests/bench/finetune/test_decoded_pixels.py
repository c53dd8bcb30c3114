"""Decoded pixels for fine-tuning: those of each image, mapped from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import Images
from bench.finetune import pixels
from conftest import photo
from featcache.images.decode import load_pixels
from featcache.images.image_file import content_id


def test_decoded_pixels_are_those_of_each_image_and_zero_where_there_is_none(
    tmp_path: Path,
) -> None:
    paths = [photo(tmp_path / f"{number}.png", number) for number in range(70)]
    paths[3].write_bytes(b"no image")
    ids = [content_id(path.read_bytes()) for path in paths]
    images = Images(tuple(map(str, paths)), tuple(ids))
    found = pixels.decoded(images, (8, 9), cache_dir=tmp_path / "c", progress=False)
    assert list(found.unusable) == [ids[3]]
    assert isinstance(found.array, np.memmap)
    for number, path in enumerate(paths):
        if number != 3:
            expected = load_pixels(path, (8, 9), "stretch", ids[number])
            assert np.array_equal(found.array[found.rows[ids[number]]], expected)
    zeros = [row for row in range(70) if row not in found.rows.values()]
    assert len(zeros) == 1
    assert not found.array[zeros[0]].any()


def test_images_are_decoded_once_and_mapped_from_disk(
    easy_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: Images = easy_images[0]
    first = pixels.decoded(images, (10, 12))
    monkeypatch.setattr(Images, "pixels", lambda *_: pytest.fail("decoded again"))
    again = pixels.decoded(images, (10, 12))
    assert isinstance(again.array, np.memmap)
    assert np.array_equal(first.take(images.ids), again.take(images.ids))
    assert again.seconds == first.seconds
