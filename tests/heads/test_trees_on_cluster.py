"""LightGBM on a Dask cluster of processes, which read the rows of a store themselves."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts import blobs
from featcache.errors import ClusterError, StoreError
from featcache.store.lazy_rows import StoredRows
from featcache.store.store import Store
from heads import LightGBMHead
from stores import SPEC

distributed = pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CLASSES, TRAIN = 5, 6000


def head(**options: Any) -> LightGBMHead:
    return LightGBMHead(n_components=48, n_estimators=60, **options)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any, Any]:
    """Rows of a store, sorted by class as those of folders are, and others to test with."""
    X, y = blobs(CLASSES, 2000, 96, spread=2.0)
    names = np.array(["ant", "bee", "cat", "dog", "emu"])[y]
    order = np.argsort(y[:TRAIN], kind="stable")
    ids = np.random.default_rng(0).integers(0, 256, (TRAIN, 32), np.uint8)
    store = Store.create(tmp_path_factory.mktemp("store"), SPEC, 96)
    for start in range(0, TRAIN, 500):
        part = slice(start, start + 500)
        store.append_packed(X[order][part], ids[part], np.zeros(500, np.int32), {})
    store.write_manifest()
    stored = StoredRows(Store(store.folder), ids)
    return stored, names[order], X[TRAIN:], names[TRAIN:]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two processes with one thread each."""
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.mark.parametrize("weighted", [False, True])
def test_accuracy_is_that_of_training_in_memory(client: Any, rows: Any, weighted: bool) -> None:
    X, y, U, v = rows
    weight = np.where(y == "ant", 3.0, 1.0) if weighted else None
    expected = head().fit(np.asarray(X), y, weight)
    found = head().fit(X, y, weight, client=client)
    assert abs(found.score(U, v) - expected.score(U, v)) < 0.01
    assert found.temperature_ == pytest.approx(expected.temperature_, rel=0.25)
    assert np.array_equal(found.classes_, expected.classes_)


def test_the_head_is_an_ordinary_one(client: Any, rows: Any, tmp_path: Path) -> None:
    X, y, U, _ = rows
    found = head().fit(X, y, client=client)
    steps = found.to_classifier()
    assert np.allclose(steps.predict_proba(U[:100]), found.predict_proba(U[:100]), atol=1e-5)
    assert found.get_params() == head().get_params()


def test_rows_of_a_class_that_one_worker_lacks_are_not_mislabelled(client: Any, rows: Any) -> None:
    X, y, U, v = rows
    y = y.copy()
    y[:3] = "aar"  # sorts first, so that all codes of a worker without it would be others
    found = head().fit(X, y, client=client)
    assert found.classes_[0] == "aar"
    assert found.score(U, v) > 0.9


def test_a_store_that_a_worker_does_not_see_is_an_error(
    client: Any, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y, _, _ = rows
    state = {"folder": tmp_path / "elsewhere", "write_sidecars": True}
    monkeypatch.setattr(Store, "__getstate__", lambda self: state)  # in this process alone
    with pytest.raises(StoreError, match="elsewhere is not a store"):
        head().fit(X, y, client=client)


def test_a_worker_that_is_killed_in_training_is_an_error_at_once(client: Any, rows: Any) -> None:
    X, y, _, _ = rows
    victim = next(iter(client.run(os.getpid).values()))

    def kill() -> None:
        while not any("_train_part" in str(keys) for keys in client.processing().values()):
            time.sleep(0.05)
        time.sleep(2)
        os.kill(victim, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    with pytest.raises(ClusterError, match="Training on the cluster failed"):
        LightGBMHead(n_estimators=5000, patience=0).fit(X, y, client=client)
    thread.join()
