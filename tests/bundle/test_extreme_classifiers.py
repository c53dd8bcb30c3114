"""Classifiers with extreme numbers: probabilities that sum to 1, or a refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache import Classifier, ClassifierStep, load_bundle, make_bundle
from featcache.errors import InvalidRequest

EXTREME = st.sampled_from([0.0, 1.0, -1.0, 1e-45, 1e-38, 1e15, -1e30, 1e38, 3.4e38, -3.4e38])
TINY = float(np.finfo(np.float64).tiny)


@settings(deadline=None, max_examples=200)
@given(
    weights=st.lists(EXTREME, min_size=6, max_size=6),
    more=st.lists(EXTREME, min_size=9, max_size=9),
    row=st.lists(EXTREME, min_size=2, max_size=2),
    scale=st.sampled_from([1e-45, 1e-38, 1.0, 3e38]),
    temperature=st.sampled_from([5e-324, TINY, 1e-300, 1e-6, 1.0, 1e300]),
)
def test_probabilities_are_finite_and_sum_to_one_or_are_refused(
    weights: list[float], more: list[float], row: list[float], scale: float, temperature: float
) -> None:
    steps = [
        ClassifierStep(
            "standardise", {"mean": np.zeros(2, np.float32), "scale": np.float32([scale, 1])}
        ),
        ClassifierStep(
            "linear",
            {"weights": np.float32(weights).reshape(2, 3), "bias": np.zeros(3, np.float32)},
        ),
        ClassifierStep(
            "linear", {"weights": np.float32(more).reshape(3, 3), "bias": np.zeros(3, np.float32)}
        ),
    ]
    try:
        classifier = Classifier(steps, ["a", "b", "c"], 2, temperature)
        proba = classifier.predict_proba(np.float32([row, [0, 0]]))
    except InvalidRequest:
        return
    assert np.isfinite(proba).all()
    assert np.allclose(proba.sum(axis=1), 1)


def test_a_bundle_with_a_tiny_temperature_predicts(
    photos: Path, tiny_model: object, tmp_path: Path
) -> None:
    from featcache import extract

    features = extract(tiny_model, photos)
    width = features.X.shape[1]
    linear = {"weights": np.ones((width, 2), np.float32), "bias": np.float32([0, 1])}
    classifier = Classifier([ClassifierStep("linear", linear)], ["cat", "dog"], width, 5e-324)
    make_bundle(features, classifier).save(tmp_path / "b")
    proba = load_bundle(tmp_path / "b").predict_proba(features)
    assert proba[:, 1] == pytest.approx(1)
