"""Search on a Dask cluster of processes over rows of a store that do not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from contracts import blobs
from featcache.store.bucket.push import push_rows
from featcache.store.lazy_rows import StoredRows
from featcache.store.store import Store
from heads import RidgeHead, search
from stores import SPEC

distributed = pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two processes with one thread each."""
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.mark.parametrize("place", ["folder", "bucket"])
@pytest.mark.parametrize("backend", ["dask", "loky"])
def test_the_scores_are_those_of_one_process(
    client: Any, place: str, backend: str, tmp_path: Path
) -> None:
    X, y = blobs(4, 1200, 64, spread=1.5)
    ids = np.random.default_rng(0).integers(0, 256, (len(X), 32), np.uint8)
    store = Store.create(tmp_path / "store", SPEC, 64)
    store.append_packed(X, ids, np.zeros(len(X), np.int32), {})
    store.write_manifest()
    if place == "bucket":
        store = push_rows(Store(store.folder), f"file://{tmp_path}/bucket", tmp_path / "c").store
    rows = StoredRows(Store(store.folder) if place == "folder" else store, ids)
    head, grid = RidgeHead(memory_limit="1M"), {"alpha": [10.0, 500.0]}
    expected = search(head, rows, y, param_grid=grid, cv=2, n_jobs=1)
    options = {"client": client} if backend == "dask" else {}
    with joblib.parallel_config(backend, **options):
        found = search(head, rows, y, param_grid=grid, cv=2, n_jobs=2)
    for name in ("split0_test_score", "split1_test_score"):
        assert np.allclose(found.cv_results_[name], expected.cv_results_[name])
    assert found.best_params_ == expected.best_params_
