"""The nearest-neighbours head: scikit-learn's neighbours and votes, scored in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

import heads.neighbors
from contracts import blobs
from featcache.errors import InvalidRequest
from heads import KNNHead


@pytest.fixture
def data() -> Any:
    X, y = blobs(5, 60, 32, spread=1.2)
    return X[:200], y[:200], X[200:]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("n_neighbors", [1, 7, 1000])
def test_votes_are_scikit_learns(data: Any, metric: Any, weights: Any, n_neighbors: int) -> None:
    X, y, U = data
    head = KNNHead(n_neighbors, weights, metric).fit(X, y)
    mean = X.mean(axis=0, dtype=np.float64)
    count = min(n_neighbors, len(X) // 5)  # at most the mean number of rows per class
    reference = KNeighborsClassifier(count, weights=weights, metric=metric).fit(X - mean, y)
    found, rows = head._neighbors(head._centred(U))[0], reference.kneighbors(U - mean)[1]
    assert np.array_equal(np.sort(found, axis=1), np.sort(rows, axis=1))
    expected = reference.predict_proba(U - mean)
    assert np.allclose(2 * np.exp(head._scores(U)) - 1 / 5, expected, atol=1e-5)


def test_a_training_row_is_of_its_own_class_with_votes_by_distance(data: Any) -> None:
    X, y, _ = data
    head = KNNHead().fit(X, y)
    assert head.score(X, y) == 1
    assert KNNHead(weights="uniform").fit(X, y).score(X, y) < 1


def test_rows_are_scored_in_blocks(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, U = data
    head = KNNHead().fit(X, y)
    at_once = head.predict_proba(U)
    sizes = []
    inner = KNNHead._log_estimates
    monkeypatch.setattr(heads.neighbors, "_SIMILARITIES_PER_BLOCK", 3 * len(X))
    monkeypatch.setattr(heads.neighbors, "_VALUES_PER_BLOCK", 1)
    monkeypatch.setattr(
        KNNHead, "_log_estimates", lambda self, X: (sizes.append(len(X)), inner(self, X))[1]
    )
    assert np.allclose(head.predict_proba(U), at_once, atol=1e-12)
    assert max(sizes) == 3


def test_almost_equal_rows_are_neighbours_by_their_exact_distances() -> None:
    # In float32 all similarities are 1: which rows come first would depend on the block.
    angles = np.linspace(0, 3e-4, 40)
    X = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    X = np.vstack([X, -X])
    y = np.arange(80) % 2
    head = KNNHead(3, "uniform").fit(X, y)
    alone = np.concatenate([head.predict_proba(row[None]) for row in X])
    assert np.array_equal(alone, head.predict_proba(X))


def test_the_order_of_the_training_rows_does_not_matter(data: Any) -> None:
    X, y, U = data
    backwards = KNNHead().fit(X[::-1], y[::-1])
    assert np.allclose(np.exp(backwards._scores(U)), np.exp(KNNHead().fit(X, y)._scores(U)))


@pytest.mark.parametrize("given", [{"metric": "manhattan"}, {"weights": "rank"}])
def test_choices_that_do_not_exist_are_refused(data: Any, given: dict[str, Any]) -> None:
    X, y, _ = data
    with pytest.raises(InvalidRequest, match="is not known; choose one of"):
        KNNHead(**given).fit(X, y)


def test_a_row_of_the_mean_has_no_direction_and_gets_probabilities() -> None:
    X, y = blobs(3, 10, 4)
    head = KNNHead().fit(X, y)
    assert np.isfinite(head.predict_proba(head.mean_[None])).all()
