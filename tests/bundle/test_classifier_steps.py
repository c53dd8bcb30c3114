"""The steps of a classifier as arrays: plain algebra, or refused where they do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache import Classifier, ClassifierStep
from featcache.errors import InvalidRequest

STANDARD = {"mean": np.zeros(2), "scale": np.ones(2)}
LINEAR = {"weights": np.zeros((2, 2)), "bias": np.zeros(2)}


@pytest.mark.parametrize(
    ("kind", "arrays"),
    [
        ("standardise", {"mean": np.zeros(2)}),
        ("standardise", {**STANDARD, "mean": np.zeros((2, 1))}),
        ("standardise", {**STANDARD, "mean": np.zeros(2, complex)}),
        ("standardise", {**STANDARD, "mean": np.zeros(3)}),
        ("standardise", {**STANDARD, "scale": np.array([1.0, 0.0])}),
        ("linear", {**LINEAR, "bias": np.zeros(3)}),
        ("linear", {**LINEAR, "weights": np.full((2, 2), np.inf)}),
    ],
)
def test_steps_that_do_not_fit_are_refused(kind: str, arrays: Any) -> None:
    last = [] if kind == "linear" else [ClassifierStep("linear", LINEAR)]
    with pytest.raises(InvalidRequest, match="does not fit"):
        Classifier([ClassifierStep(kind, arrays), *last], ["a", "b"], 2)


TREES = {
    "root": np.array([0, 3], np.int32),
    "column": np.array([0, 0, 0, 0], np.int32),
    "threshold": np.array([0.5, 0, 0, 0]),
    "left": np.array([1, -1, -1, -1], np.int32),
    "right": np.array([2, -1, -1, -1], np.int32),
    "value": np.array([0, 1.0, 2.0, 5.0]),
}


def test_trees_are_walked_to_their_leaves() -> None:
    classifier = Classifier([ClassifierStep("trees", TREES)], ["a", "b"], 1)
    assert classifier.scores([[0.5], [0.6]]).tolist() == [[1, 5], [2, 5]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("left", [0, -1, -1, -1]),  # a circle
        ("right", [9, -1, -1, -1]),
        ("column", [7, 0, 0, 0]),
        ("root", [0, 99]),
        ("root", [0]),
        ("value", [0.0, np.nan, 0, 0]),
        ("left", [1.5, -1, -1, -1]),
        ("right", [2, -1]),
    ],
)
def test_trees_that_lead_nowhere_are_refused(name: str, value: Any) -> None:
    kind = TREES[name].dtype if name not in ("left",) or value[0] != 1.5 else np.float64
    arrays = {**TREES, name: np.array(value, kind)}
    with pytest.raises(InvalidRequest, match="does not fit"):
        Classifier([ClassifierStep("trees", arrays)], ["a", "b"], 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 99), st.floats(0.1, 10))
def test_steps_are_plain_algebra(width: int, classes: int, seed: int, temperature: float) -> None:
    g = np.random.default_rng(seed)
    mean, scale = g.normal(size=width), g.uniform(0.5, 2, width)
    inner, outer = g.normal(size=(width, 4)), g.normal(size=(4, classes))
    steps = [
        ClassifierStep("standardise", {"mean": mean, "scale": scale}),
        ClassifierStep("linear", {"weights": inner, "bias": np.zeros(4)}),
        ClassifierStep("relu"),
        ClassifierStep("linear", {"weights": outer, "bias": np.ones(classes)}),
    ]
    classifier = Classifier(steps, [str(i) for i in range(classes)], width, temperature)
    X = g.normal(size=(7, width)).astype(np.float32)
    expected = np.maximum(((X - mean) / scale) @ inner, 0) @ outer + 1
    assert np.allclose(classifier.scores(X), expected)
    proba = classifier.predict_proba(X)
    powers = np.exp(expected / temperature - (expected / temperature).max(axis=1, keepdims=True))
    assert np.allclose(proba, powers / powers.sum(axis=1, keepdims=True))
    with pytest.raises(InvalidRequest, match="takes embeddings"):
        classifier.scores(X[:, :-1])
