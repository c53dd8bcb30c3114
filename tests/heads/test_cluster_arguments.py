"""Training of LightGBM on a cluster: what is refused, and early stopping without LightGBM's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from contracts import blobs
from featcache.errors import InvalidRequest, MissingExtra
from featcache.store.lazy_rows import StoredRows
from featcache.store.store import Store
from heads import LightGBMHead
from heads.cluster import best_round
from heads.cluster_trees import deal
from stores import SPEC, WIDTH, filled, ids_of


@pytest.fixture
def stored(tmp_path: Path) -> Any:
    store = filled(Store.create(tmp_path / "store", SPEC, WIDTH), tuple(range(12)))
    return StoredRows(
        store, np.array([list(bytes.fromhex(i)) for i in ids_of(*range(12))], np.uint8)
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_the_best_round_is_that_of_early_stopping(weighted: bool) -> None:
    X, y = blobs(3, 120, 8, spread=0.8)
    weights = np.linspace(1, 3, 60, dtype=np.float32) if weighted else None
    data = lightgbm.Dataset(X[:300], y[:300])
    params = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "learning_rate": 0.3,
              "num_threads": 1}  # fmt: skip
    valid = data.create_valid(X[300:], y[300:], weight=weights)
    stopped = lightgbm.train(
        params, data, 60, valid_sets=[valid], callbacks=[lightgbm.early_stopping(4, verbose=False)]
    )
    whole = lightgbm.train(params, data, 60)
    found = best_round(whole, X[300:], y[300:], weights, 4)
    assert found == stopped.best_iteration < 60
    assert best_round(whole, X[:300], y[:300], None, 4) == 60


def test_rows_that_would_have_to_be_sent_are_refused(tmp_path: Path) -> None:
    X, y = blobs(3, 10, 8)
    np.save(tmp_path / "rows.npy", X)
    for rows in (X, np.load(tmp_path / "rows.npy", mmap_mode="r")):
        with pytest.raises(InvalidRequest, match="client= trains on the rows of a store"):
            LightGBMHead().fit(rows, y, client=object())


def test_what_is_no_client_is_refused(stored: Any) -> None:
    pytest.importorskip("distributed")
    with pytest.raises(InvalidRequest, match=r"pass a distributed\.Client"):
        LightGBMHead().fit(stored, np.arange(12) % 2, client="tcp://scheduler:8786")


@pytest.mark.parametrize("missing", ["pandas", "dask"])
def test_a_missing_library_is_named_with_its_extra(
    missing: str, stored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "heads.cluster_trees", raising=False)
    monkeypatch.delattr("heads.cluster_trees", raising=False)
    monkeypatch.setattr("featcache.toolkit.check_cluster", lambda client: None)
    with pytest.raises(MissingExtra, match=r"\.\[dask\]"):
        LightGBMHead().fit(stored, np.arange(12) % 2, client=object())


def test_every_row_is_dealt_once_and_parts_resemble_each_other() -> None:
    rows = np.sort(np.random.default_rng(0).choice(100_000, 10_007, replace=False))
    parts = deal(rows, 4)
    assert np.array_equal(np.sort(np.concatenate(parts)), rows)
    assert max(map(len, parts)) - min(map(len, parts)) < 100
    assert all(abs(part.mean() - rows.mean()) < 1500 for part in parts)
    assert [len(part) for part in deal(rows[:3], 8)] == [1, 1, 1]
