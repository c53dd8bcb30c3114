"""Search over rows of a store that do not fit in memory: each training reads its own."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from contracts import blobs
from featcache.errors import StoreError
from featcache.store.bucket.push import push_rows
from featcache.store.lazy_rows import StoredRows
from featcache.store.store import Store
from heads import LogisticHead, RidgeHead, search
from stores import SPEC

LIMIT = 2**20
GRID = {"alpha": [10.0, 1e6]}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    X, y = blobs(4, 1200, 64, spread=1.5)
    ids = np.random.default_rng(0).integers(0, 256, (len(X), 32), np.uint8)
    store = Store.create(tmp_path_factory.mktemp("store"), SPEC, 64)
    for part in (slice(0, 2000), slice(2000, None)):
        store.append_packed(X[part], ids[part], np.zeros(len(X[part]), np.int32), {})
    store.write_manifest()
    return StoredRows(Store(store.folder), ids), np.array(["ant", "bee", "cat", "dog"])[y]


def test_results_are_those_of_a_search_in_memory(
    rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = rows
    labels: Any = [None if i % 10 == 0 else label for i, label in enumerate(y)]
    expected = search(RidgeHead(), np.asarray(X), labels, param_grid=GRID, cv=3, n_jobs=1)
    monkeypatch.setattr(StoredRows, "__array__", None)  # nothing reads all of them
    found = search(RidgeHead(memory_limit=LIMIT), X, labels, param_grid=GRID, cv=3, n_jobs=1)
    assert found.best_params_ == expected.best_params_ == {"alpha": 10.0}
    for name in ("mean_test_score", "split0_test_score"):
        assert np.allclose(found.cv_results_[name], expected.cv_results_[name], atol=0.01)
    best: Any = found.best_estimator_
    assert best.score(X, y) > 0.8


def test_processes_share_the_free_memory(rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    fit = LogisticHead.fit
    monkeypatch.setattr(
        LogisticHead,
        "fit",
        lambda self, *a, **k: seen.append(self.memory_limit) or fit(self, *a, **k),
    )
    monkeypatch.setattr(
        "heads.blocks.psutil.virtual_memory", lambda: type("M", (), {"available": 4.4e6})
    )
    head = LogisticHead(C=0.01, max_iter=3, calibration_folds=0)
    with joblib.parallel_config("threading"):
        search(head, *rows, param_grid={"tol": [1e-2]}, cv=2, n_jobs=2, refit=False)
    assert set(seen) == {1_100_000}


def test_rows_are_sent_without_opening_their_store(rows: Any, tmp_path: Path) -> None:
    X, _ = rows
    copy = tmp_path / "copy"
    shutil.copytree(X._stores[0].folder, copy)
    sent = pickle.dumps(StoredRows(Store(copy), X._ids))
    copy.rename(tmp_path / "elsewhere")
    there = pickle.loads(sent)
    assert there.shape == X.shape
    with pytest.raises(StoreError, match="is not a store"):
        there[:2]
    again = pickle.loads(pickle.dumps(there.take([3, 1])))
    (tmp_path / "elsewhere").rename(copy)
    assert np.array_equal(again[:], X[[3, 1]])


def test_rows_in_a_bucket_are_searched_and_sent(rows: Any, tmp_path: Path) -> None:
    X, y = rows
    there = push_rows(X._stores[0], f"file://{tmp_path}/bucket", tmp_path / "cache").store
    stored = pickle.loads(pickle.dumps(StoredRows(there, X._ids)))
    head = RidgeHead(memory_limit=LIMIT)
    found = search(head, stored, y, param_grid={"alpha": [500.0]}, cv=2, n_jobs=1)
    expected = search(head, X, y, param_grid={"alpha": [500.0]}, cv=2, n_jobs=1)
    assert found.best_score_ == expected.best_score_ > 0.8
