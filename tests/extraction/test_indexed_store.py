"""Extractions into a store that has an index file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import photo
from featcache import extract
from featcache.cli import main
from featcache.store import index_build
from featcache.store.index_file import NAME, IndexFile

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
