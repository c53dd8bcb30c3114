"""Rows on disk as an array: its size without reading, and the rows that an index selects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.store import lazy_rows
from featcache.store.lazy_rows import StoredRows
from featcache.store.row_index import pack_ids
from featcache.store.store import Store
from stores import SPEC, WIDTH, filled, ids_of, rows_of

NUMBERS = (5, 2, 9, 2, 7)


@pytest.fixture
def rows(tmp_path: Path) -> StoredRows:
    store = filled(Store.create(tmp_path / "store", SPEC, WIDTH), (2, 5), (7, 9))
    return StoredRows(store, pack_ids(ids_of(*NUMBERS)))


def refuse_to_read(*_: Any) -> Any:
    raise AssertionError("rows were read")


def test_sizes_are_known_without_reading_a_row(
    rows: StoredRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = rows_of(*NUMBERS)
    monkeypatch.setattr(Store, "read", refuse_to_read)
    for name in ("shape", "size", "nbytes", "ndim", "dtype"):
        assert getattr(rows, name) == getattr(true, name)
    assert len(rows) == len(true)
    assert repr(rows) == f"<StoredRows 5 x {WIDTH} float32 in {tmp_path / 'store'}>"


@pytest.mark.parametrize("at_once", [1, 2, 5, 1024])
def test_iteration_yields_every_row_in_order_some_at_once(
    rows: StoredRows, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(lazy_rows, "_ROWS_AT_ONCE", at_once)
    reads, real = list[int](), Store.read

    def counted(store: Store, ids: Any) -> Any:
        reads.append(len(ids))
        return real(store, ids)

    monkeypatch.setattr(Store, "read", counted)
    assert np.array_equal(list(rows), rows_of(*NUMBERS))
    assert max(reads) == min(at_once, len(NUMBERS))


@pytest.mark.parametrize(
    "select",
    [
        lambda x: x[3], lambda x: x[-1, 2], lambda x: x[1:4], lambda x: x[::-2, 1:],
        lambda x: x[[4, 0, 0]], lambda x: x[np.arange(5) % 2 == 0], lambda x: x[[]],
    ],
    ids=range(7),
)  # fmt: skip
def test_an_index_selects_the_rows_that_it_selects_of_an_array(
    rows: StoredRows, select: Callable[[Any], Any]
) -> None:
    assert np.array_equal(select(rows), select(rows_of(*NUMBERS)))


@pytest.mark.parametrize("index", [[[0, 1], [2, 3]], np.zeros((2, 2), int), (0, 0, 0)])
def test_an_index_of_more_dimensions_is_refused(rows: StoredRows, index: Any) -> None:
    with pytest.raises(IndexError, match=r"rows are chosen by|has two dimensions"):
        rows[index]
