"""Classifiers that a bundle cannot keep as they are, or that were trained on other codes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from contracts import blobs
from featcache import Bundle, extract, make_bundle
from featcache.bundle import code_check
from featcache.bundle.estimators import to_classifier
from featcache.errors import BundleError, BundleMismatch, InvalidRequest, WrongClassOrder
from heads import LogisticHead


@pytest.fixture
def clear(tmp_path: Path, tiny_model: Any) -> Any:
    """Features of dark cats and light dogs, forty each, all cats first."""
    for i in range(80):
        path = tmp_path / "clear" / ("cat" if i < 40 else "dog") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 60, (20, 24, 3), np.uint8)
        Image.fromarray(pixels + np.uint8(0 if i < 40 else 150)).save(path)
    return extract(tiny_model, tmp_path / "clear")


@pytest.fixture
def bundle(clear: Any) -> Bundle:
    return make_bundle(clear, LogisticHead().fit(clear.X, clear.labels))


@pytest.mark.parametrize("rows", [30, 79])
def test_rows_of_all_classes_are_checked_if_there_are_too_many(
    clear: Any, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(code_check, "_MAX_ROWS", rows)
    own = np.array([1 if label == "cat" else 0 for label in clear.labels])
    head = LogisticHead(C=10.0).fit(clear.X, own)
    with pytest.raises(WrongClassOrder, match=f"of {rows} "):
        make_bundle(clear, head)


@pytest.mark.parametrize("name", [None, ("a", "b"), float("nan"), np.datetime64("2020-01-01")])
def test_a_class_that_json_does_not_keep_is_refused(
    bundle: Bundle, tmp_path: Path, name: Any
) -> None:
    classifier = replace(bundle.classifier, classes=["cat", name])
    with pytest.raises(BundleError, match="A bundle cannot hold the class"):
        replace(bundle, classifier=classifier).save(tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


def test_features_of_a_resize_rule_that_is_unknown_here_do_not_fit(
    clear: Any, bundle: Bundle
) -> None:
    later = replace(bundle, spec=replace(bundle.spec, resize="seams"))
    with pytest.raises(BundleMismatch, match="in resize"):
        later.predict_proba(clear)
    own = replace(clear, spec=later.spec)
    assert np.allclose(later.predict_proba(own), bundle.predict_proba(clear))


def test_a_scaler_that_clips_is_refused() -> None:
    X, y = blobs(2, 20, 5)
    model = make_pipeline(MaxAbsScaler(), LogisticRegression()).fit(X, y)
    model[0].clip = True  # a parameter of later versions of scikit-learn
    with pytest.raises(InvalidRequest, match="clip=True is not supported"):
        to_classifier(model)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("labels", [2, 3])
def test_a_network_of_several_labels_per_row_is_refused(labels: int) -> None:
    X, y = blobs(labels, 20, 5)
    several = np.eye(labels, dtype=int)[y]
    several[0] = 1
    model = MLPClassifier((4,), max_iter=5).fit(X, several)
    with pytest.raises(InvalidRequest, match="several labels per row"):
        to_classifier(model)
