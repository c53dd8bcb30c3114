"""Extractions into a store that has an index file."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import photo
from featcache import extract
from featcache.cli import main
from featcache.store import index_build
from featcache.store.index_file import NAME, PAGE, IndexFile, make_keys
from featcache.store.row_index import pack_ids

OPTIONS: dict[str, Any] = {"batch_size": 4, "progress": False, "engine": "keras"}


def test_the_index_file_is_written_and_used(
    photos: Path, tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_build, "MANY_SHARDS", 0)
    first = extract(tiny_model, photos, cache_dir=tmp_path / "a", **OPTIONS)
    folder = Path(first.summary.folder)
    assert len(IndexFile(folder / NAME)) == 12
    photo(photos / "cat" / "new.png", 99)
    again = extract(tiny_model, photos, cache_dir=tmp_path / "a", **OPTIONS)
    assert (again.summary.stored, again.summary.computed) == (12, 1)
    assert len(IndexFile(folder / NAME)) == 12  # one of 13 rows is read from its sidecar
    rows = dict(zip(again.ids, again.X, strict=True))
    for one, row in zip(first.ids, first.X, strict=True):
        np.testing.assert_array_equal(rows[one], row)
    assert main(["verify", str(folder)]) == 0
    assert main(["ls", "--cache-dir", str(tmp_path / "a")]) == 0


def _plant(path: Path, image_id: str) -> None:
    """Write an index file of one page again, with another id for its first row."""
    file = IndexFile(path)
    page = np.zeros(1, PAGE)
    rows = np.concatenate(list(file.blocks()))
    rows["key"][0] = make_keys(pack_ids([image_id]), np.zeros(1, np.int32))[0]
    page["rows"][0, : len(rows)] = np.sort(rows, order="key")
    page["crc"] = zlib.crc32(page.tobytes()[:-4])
    head = replace(file.head, fences=page["rows"]["key"][:, 0].copy())
    path.write_bytes(head.encode() + page.tobytes())


def test_an_image_that_the_index_lists_but_no_shard_has_is_computed(
    photos: Path, tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_build, "MANY_SHARDS", 0)
    own = extract(tiny_model, photos, cache_dir=tmp_path / "a", **OPTIONS)
    photo(photos / "cat" / "new.png", 99)
    both = extract(tiny_model, photos, cache_dir=tmp_path / "b", **OPTIONS)
    (new_id,) = set(both.ids) - set(own.ids)
    _plant(Path(own.summary.folder) / NAME, new_id)
    again = extract(tiny_model, photos, cache_dir=tmp_path / "a", **OPTIONS)
    assert (again.summary.stored, again.summary.computed) == (12, 1)
    np.testing.assert_allclose(again.X, both.X, rtol=1e-4, atol=1e-6)
