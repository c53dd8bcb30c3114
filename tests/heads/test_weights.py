"""Weights of rows and classes: scikit-learn's own answers, and copies instead of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from contracts import blobs
from featcache.errors import InvalidRequest
from heads import HEADS, DenseHead, KNNHead, LightGBMHead, LogisticHead, SVMHead, make_head
from heads.calibration import fit_temperature, prior_temperature

SMALL: dict[str, dict[str, Any]] = {
    "dense": {"units": 8, "epochs": 3}, "lightgbm": {"n_estimators": 8},
}  # fmt: skip
CLASS_WEIGHTS = [None, "balanced", {0: 5.0, 1: 0.5, 2: 1.0}]


def small(name: str, **parameters: Any) -> Any:
    return make_head(name, **SMALL.get(name, {}), **parameters)


def unequal(rows: int = 160) -> tuple[Any, Any, Any]:
    X, y = blobs(3, rows // 2, 30, spread=0.8)
    kept = np.flatnonzero((y != 0) | (np.arange(len(y)) % 4 == 0))
    return X[kept], y[kept], np.random.default_rng(0).uniform(0.1, 4, len(kept))


@pytest.mark.parametrize("class_weight", CLASS_WEIGHTS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_logistic_regression_is_scikit_learns(class_weight: Any, weighted: bool) -> None:
    X, y, weights = unequal()
    chosen = weights if weighted else None
    Z = StandardScaler().fit(X, sample_weight=chosen).transform(X)
    reference = LogisticRegression(C=0.05, max_iter=3000, tol=1e-7, class_weight=class_weight)
    head = LogisticHead(
        C=0.05, max_iter=3000, tol=1e-8, calibration_folds=0, class_weight=class_weight
    )
    expected = reference.fit(Z, y, chosen).predict_proba(Z)
    assert np.allclose(head.fit(X, y, chosen).predict_proba(X), expected, atol=3e-3)


@pytest.mark.parametrize("class_weight", CLASS_WEIGHTS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_svm_margins_are_liblinears(class_weight: Any, weighted: bool) -> None:
    X, y, weights = unequal()
    chosen = weights if weighted else None
    Z = StandardScaler().fit(X, sample_weight=chosen).transform(X)
    reference = LinearSVC(
        C=0.01, dual=True, tol=1e-7, max_iter=200_000, intercept_scaling=100,
        class_weight=class_weight,
    )  # fmt: skip
    head = SVMHead(C=0.01, tol=1e-10, max_iter=5000, calibration_folds=0, class_weight=class_weight)
    expected = reference.fit(Z, y, chosen).decision_function(Z)
    assert np.allclose(head.fit(X, y, chosen)._scores(X), expected, atol=3e-2)


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(["logistic", "svm", "ridge", "knn"]),
    counts=st.lists(st.integers(0, 3), min_size=24, max_size=24),
    class_weight=st.sampled_from([None, "balanced"]),
    seed=st.integers(0, 100),
)
def test_a_weight_of_k_is_k_copies(
    name: str, counts: list[int], class_weight: Any, seed: int
) -> None:
    X, y = blobs(3, 8, 10, spread=1, seed=seed)
    times = np.maximum(counts, np.arange(24) < 12)
    if len(set(y[times > 0])) < 2 or times.max() < 2:
        return
    head = small(name, class_weight=class_weight)
    weighted = clone(head).fit(X, y, times)
    order = np.random.default_rng(seed).permutation(int(times.sum()))
    copied = clone(head).fit(np.repeat(X, times, axis=0)[order], np.repeat(y, times)[order])
    assert np.array_equal(weighted.predict_proba(X), copied.predict_proba(X))
    assert weighted.temperature_ == copied.temperature_


@pytest.mark.parametrize("name", list(HEADS))
def test_a_weight_of_zero_is_no_row(name: str) -> None:
    X, y, _ = unequal(60)
    kept = np.arange(len(y)) % 3 > 0
    zero, removed = small(name).fit(X, y, kept), small(name).fit(X[kept], y[kept])
    assert np.array_equal(zero.predict_proba(X), removed.predict_proba(X))


@pytest.mark.parametrize("name", ["logistic", "svm"])
def test_a_weight_of_k_is_k_copies_for_the_solver_itself(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = blobs(3, 40, 20, spread=0.8)
    times = np.arange(len(y)) % 4
    head = make_head(name, C=0.01, tol=1e-9, max_iter=4000, calibration_folds=0)
    weighted = clone(head).fit(X, y, times)
    monkeypatch.setattr("heads.base.merge_copies", lambda *arguments: arguments)
    copied = clone(head).fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    assert np.allclose(weighted._scores(X), copied._scores(X), atol=2e-3)


@pytest.mark.parametrize("name", ["lightgbm", "dense", "knn"])
def test_weights_reach_every_head(name: str) -> None:
    X, y, _ = unequal()
    parameters: dict[str, dict[str, Any]] = {
        "dense": {"units": 8, "epochs": 20, "learning_rate": 0.01},
        "lightgbm": {"n_estimators": 20},
        "knn": {"weights": "uniform"},
    }
    proba = [
        make_head(name, **parameters[name], **options)
        .fit(X, y, weight)
        .predict_proba(X)[:, 0]
        .mean()
        for options, weight in (
            ({}, None),
            ({"class_weight": {0: 30.0}}, None),
            ({}, np.where(y == 0, 30.0, 1.0)),
        )
    ]
    assert proba[1] > proba[0] + 0.05
    assert proba[2] > proba[0] + 0.05


@pytest.mark.parametrize("name", list(HEADS))
def test_weights_of_one_are_no_weights(name: str) -> None:
    X, y, _ = unequal(60)
    plain, ones = (small(name).fit(X, y, weights) for weights in (None, np.ones(len(y))))
    assert np.array_equal(plain.predict_proba(X), ones.predict_proba(X))


def test_temperatures_are_weighted() -> None:
    generator = np.random.default_rng(0)
    scores, codes = generator.normal(0, 3, (300, 4)), generator.integers(0, 4, 300)
    times = generator.integers(1, 4, 300)
    copies = np.repeat(scores, times, axis=0), np.repeat(codes, times)
    weights = times.astype(np.float32)
    assert fit_temperature(scores, codes, weights) == pytest.approx(
        fit_temperature(*copies), rel=0.02
    )
    scores[np.arange(300), codes] += 8
    copies = np.repeat(scores, times, axis=0), np.repeat(codes, times)
    assert prior_temperature(scores, codes, weights) == pytest.approx(prior_temperature(*copies))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0] * 5, r"shape \(5,\), but there are 12 rows"),
        ([-1.0] + [1.0] * 11, "finite numbers of at least zero"),
        ([0.0] * 12, "not all of them zero"),
        ([np.nan] * 12, "finite numbers"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: list[float], message: str) -> None:
    X, y = blobs(3, 4, 6)
    with pytest.raises(InvalidRequest, match=message):
        LogisticHead().fit(X, y, weights)


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ("even", "None, 'balanced', or a dict"),
        (3.0, "None, 'balanced', or a dict"),
        ({0: 1.0, 9: 2.0}, "class_weight"),
        ({0: -1.0}, "above 0"),
        ({0: "a"}, "class_weight"),
    ],
)
def test_class_weights_that_make_no_sense_are_refused(class_weight: Any, message: str) -> None:
    X, y = blobs(3, 4, 6)
    with pytest.raises(InvalidRequest, match=message):
        LogisticHead(class_weight=class_weight).fit(X, y)


def test_unlabelled_rows_take_their_weights_with_them() -> None:
    X, y, weights = unequal(60)
    labels = y.astype(object)
    labels[::5] = None
    known = np.arange(len(y)) % 5 > 0
    with_gaps = LogisticHead().fit(X, labels, weights)
    without = LogisticHead().fit(X[known], y[known], weights[known])
    assert np.array_equal(with_gaps.predict_proba(X), without.predict_proba(X))


@pytest.mark.parametrize(
    "head", [LightGBMHead(n_estimators=5), DenseHead(units=4, epochs=2), KNNHead()]
)
def test_copies_of_a_row_are_one_row_for_every_head(head: Any) -> None:
    X, y, _ = unequal(60)
    twice = clone(head).fit(np.vstack([X, X]), np.concatenate([y, y]))
    weighted = clone(head).fit(X, y, np.full(len(y), 2))
    assert np.array_equal(twice.predict_proba(X), weighted.predict_proba(X))
