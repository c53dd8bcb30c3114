"""Bundles from heads and from scikit-learn's estimators: names and probabilities as trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import LinearSVC

from contracts import blobs
from featcache import extract, load_bundle, make_bundle
from featcache.bundle.code_check import better_assignment
from featcache.bundle.estimators import to_classifier
from featcache.errors import InvalidRequest, WrongClassOrder
from heads import LogisticHead

SOFTMAX = LogisticRegression(C=0.1, max_iter=300)


@pytest.fixture
def features(photos: Path, tiny_model: Any) -> Any:
    return extract(tiny_model, photos)


PIPELINES = {
    "logistic": SOFTMAX,
    "scaled": make_pipeline(StandardScaler(), SOFTMAX),
    "not centred": make_pipeline(StandardScaler(with_mean=False), SOFTMAX),
    "not scaled": make_pipeline(StandardScaler(with_std=False), SOFTMAX),
    "robust": make_pipeline(RobustScaler(), SOFTMAX),
    "robust, not centred": make_pipeline(RobustScaler(with_centering=False), SOFTMAX),
    "largest": make_pipeline(MaxAbsScaler(), SOFTMAX),
    "range": make_pipeline(MinMaxScaler((-1, 3)), SOFTMAX),
    "nested": make_pipeline(make_pipeline(StandardScaler(), PCA(6)), make_pipeline(SOFTMAX)),
    "nested head": make_pipeline(make_pipeline("passthrough"), make_pipeline(LogisticHead(C=0.3))),
    "length": make_pipeline(Normalizer(), SOFTMAX),
    "axes": make_pipeline(PCA(5), SOFTMAX),
    "whitened": make_pipeline("passthrough", StandardScaler(), PCA(5, whiten=True), SOFTMAX),
    "discriminant": make_pipeline(StandardScaler(), LinearDiscriminantAnalysis()),
    "network": make_pipeline(StandardScaler(), MLPClassifier((8, 6), max_iter=300, tol=1e-2)),
    "network without": MLPClassifier((5,), activation="identity", max_iter=200, tol=1e-2),
    "head": make_pipeline(StandardScaler(), PCA(6), LogisticHead(C=0.3)),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", list(PIPELINES))
def test_a_pipelines_probabilities_are_kept(name: str, classes: int) -> None:
    X, y = blobs(classes, 20, 12, spread=1)
    model = PIPELINES[name].fit(X, y)
    plain = to_classifier(model)
    X[0] = 0  # without a length
    assert plain.classes == list(range(classes))
    assert np.allclose(plain.predict_proba(X), model.predict_proba(X), atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_cross_validated_strength_is_kept() -> None:
    X, y = blobs(3, 20, 12, spread=1)
    model = LogisticRegressionCV(
        Cs=[0.01, 0.1],
        cv=2,
        max_iter=2000,
        l1_ratios=(0,),
        use_legacy_attributes=False,
        scoring="accuracy",
    ).fit(X, y)
    assert np.allclose(to_classifier(model).predict_proba(X), model.predict_proba(X), atol=1e-5)


class Lookalike(LogisticRegression):
    """Predicts in its own way."""

    def predict_proba(self, X: Any) -> Any:
        return 1 - super().predict_proba(X)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model", "named"),
    [
        (make_pipeline(StandardScaler(), LinearSVC()), r"LinearSVC\(\)"),
        (GaussianNB(), r"GaussianNB\(\)"),
        (make_pipeline(MinMaxScaler(clip=True), SOFTMAX), "clip=True is not supported"),
        (GridSearchCV(SOFTMAX, {"C": [0.1, 1]}), r"GridSearchCV; pass its \.best_estimator_"),
        (RandomizedSearchCV(SOFTMAX, {"C": [0.1]}, n_iter=1), r"pass its \.best_estimator_"),
        (make_pipeline(FunctionTransformer(np.sqrt), SOFTMAX), "FunctionTransformer"),
        (make_pipeline(Normalizer("l1"), SOFTMAX), "only norm='l2'"),
        (LogisticRegression(solver="liblinear"), "not a softmax"),
        (MLPClassifier((3,), activation="tanh", max_iter=5), "'relu' and 'identity'"),
        (Lookalike(), "Lookalike"),
    ],
)
def test_what_cannot_be_stored_is_named(model: Any, named: str) -> None:
    X, y = blobs(3, 20, 12)
    if "liblinear" in repr(model):  # newer versions refuse three classes themselves
        model.fit(X, y == 1)
        model.classes_ = np.arange(3)
    else:
        model.fit(X, y)
    with pytest.raises(InvalidRequest, match=named):
        to_classifier(model)


def test_a_step_in_the_wrong_place_is_told_what_belongs_there() -> None:
    X, y = blobs(3, 20, 12)
    before = make_pipeline(FunctionTransformer(np.sqrt), SOFTMAX)
    with pytest.raises(InvalidRequest, match=r"as a step before the last .* PCA\.$"):
        to_classifier(before.fit(np.abs(X), y))
    with pytest.raises(InvalidRequest, match="as the last step it must be a head or one of Logis"):
        to_classifier(GaussianNB().fit(X, y))


@pytest.mark.parametrize("model", [None, "logistic", LogisticRegression, 3, np.zeros((2, 2))])
def test_what_is_no_estimator_is_told_what_is_expected(features: Any, model: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"needs a fitted head, a Classifier, a scikit-learn"):
        make_bundle(features, model)


def test_an_estimator_that_is_not_fitted_says_so() -> None:
    with pytest.raises(InvalidRequest, match="not fitted"):
        to_classifier(make_pipeline(StandardScaler(), SOFTMAX.__class__()))


# Class names


def test_a_head_fitted_on_codes_predicts_names(features: Any, tmp_path: Path) -> None:
    head = LogisticHead().fit(features.X, features.y)
    for given in (head, head.to_classifier()):
        make_bundle(features, given).save(tmp_path / "b")
        assert list(load_bundle(tmp_path / "b").classes) == ["cat", "dog"]
    by_name = LogisticHead().fit(features.X, features.labels)
    assert list(make_bundle(features, by_name).classes) == ["cat", "dog"]


def test_a_scikit_learn_pipeline_becomes_a_bundle(features: Any, tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), SOFTMAX).fit(np.asarray(features.X), features.y)
    make_bundle(features, model).save(tmp_path / "b")
    again = load_bundle(tmp_path / "b")
    assert list(again.classes) == ["cat", "dog"]
    proba = again.predict_proba(features)
    assert np.allclose(proba, model.predict_proba(np.asarray(features.X)), atol=1e-5)


def test_a_card_says_calibrated_only_where_a_temperature_was_fitted(
    features: Any, tmp_path: Path
) -> None:
    head = LogisticHead().fit(features.X, features.labels)
    assert head.temperature_ != 1
    estimator = make_pipeline(StandardScaler(), SOFTMAX).fit(np.asarray(features.X), features.y)
    for model, calibrated in ((head, True), (estimator, False)):
        make_bundle(features, model).save(tmp_path / "b")
        card = load_bundle(tmp_path / "b").card()
        assert ("probabilities are calibrated" in card) == calibrated
        assert ("those of the estimator" in card) == (not calibrated)


def test_a_head_fitted_on_some_classes_names_those(features: Any) -> None:
    X = np.asarray(features.X)
    classes = ["ant", "bee", "cat", "dog"]
    head = LogisticHead().fit(X, features.y + 2)
    assert list(make_bundle(replace(features, classes=classes), head).classes) == ["cat", "dog"]


def test_integer_labels_are_kept_and_not_taken_for_codes(features: Any) -> None:
    X, y = np.asarray(features.X), features.y
    labelled = replace(features, classes=[3, 7])
    by_label = LogisticHead().fit(X, np.array([3, 7])[y])
    by_code = LogisticHead().fit(X, y)
    assert list(make_bundle(labelled, by_label).classes) == [3, 7]
    assert list(make_bundle(labelled, by_code).classes) == [3, 7]
    text = replace(features, classes=["1", "10"])
    assert list(make_bundle(text, by_code).classes) == ["1", "10"]


def test_where_codes_and_labels_cannot_be_told_apart_it_asks(features: Any) -> None:
    head = LogisticHead().fit(np.asarray(features.X), features.y + 1)
    several = replace(features, classes=[1, 2, 3])
    with pytest.raises(InvalidRequest, match=r"labels, or codes .* \[2, 3\]"):
        make_bundle(several, head)
    assert list(make_bundle(several, head, classes=[1, 2]).classes) == [1, 2]


@pytest.mark.parametrize("names", [["large", "small"], [False, True], [5, 900]])
def test_a_head_of_other_labels_is_refused_unless_they_are_named(
    features: Any, names: list[Any]
) -> None:
    head = LogisticHead().fit(features.X, np.array(names)[features.y])
    with pytest.raises(InvalidRequest, match=r"not among the features' classes .*'cat', 'dog'"):
        make_bundle(features, head)
    assert list(make_bundle(features, head, classes=head.classes_.tolist()).classes) == names


def test_unlabelled_rows_are_no_class(features: Any) -> None:
    head = LogisticHead().fit(np.asarray(features.X), features.y - 1)
    with pytest.raises(InvalidRequest, match="-1 often stands for unlabelled rows"):
        make_bundle(features, head)


# Codes of one's own


@pytest.fixture
def clear(tmp_path: Path, tiny_model: Any) -> Any:
    """Features of dark cats and light dogs, ten each."""
    for i in range(20):
        path = tmp_path / "clear" / ("cat" if i < 10 else "dog") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 60, (20, 24, 3), np.uint8)
        Image.fromarray(pixels + np.uint8(0 if i < 10 else 150)).save(path)
    return extract(tiny_model, tmp_path / "clear")


def test_a_head_fitted_on_other_codes_than_the_features_is_refused(clear: Any) -> None:
    own = np.array([1 if label == "cat" else 0 for label in clear.labels])
    head = LogisticHead(C=10.0).fit(clear.X, own)
    with pytest.raises(WrongClassOrder, match=r"with 0 as 'dog', 1 as 'cat'\. Pass classes=") as e:
        make_bundle(clear, head)
    assert e.value.fitting == {0: "dog", 1: "cat"}
    bundle = make_bundle(clear, head, classes=["dog", "cat"])
    predicted = np.array(bundle.classes)[bundle.predict_proba(clear).argmax(axis=1)]
    assert (predicted == clear.labels).mean() > 0.8


def test_other_codes_without_labels_cannot_be_noticed(clear: Any) -> None:
    head = LogisticHead(C=10.0).fit(clear.X, 1 - clear.y)
    unlabelled = replace(clear, y=np.full(len(clear), np.nan))
    assert list(make_bundle(unlabelled, head).classes) == ["cat", "dog"]


def test_codes_of_some_classes_are_compared_with_all_labels(clear: Any) -> None:
    head = LogisticHead(C=10.0).fit(clear.X, clear.y)  # 0 for cat, but ant is 0
    several = replace(clear, classes=["ant", "bee", "cat", "dog"], y=clear.y + 2)
    with pytest.raises(InvalidRequest, match="with 0 as 'cat', 1 as 'dog'"):
        make_bundle(several, head)


def predictions(truth: Any, classes: int, accuracy: float, seed: int) -> Any:
    generator = np.random.default_rng(seed)
    right = generator.random(len(truth)) < accuracy
    return np.where(right, truth, generator.integers(0, classes, len(truth)))


@pytest.mark.parametrize("classes", [2, 3, 24, 200])
@pytest.mark.parametrize("rows", [12, 100, 2000])
@pytest.mark.parametrize("skewed", [False, True])
def test_weak_heads_are_not_refused_for_noise(classes: int, rows: int, skewed: bool) -> None:
    generator = np.random.default_rng(rows + classes)
    weights = 1 / np.arange(1, classes + 1) if skewed else np.ones(classes)
    for seed in range(30):
        truth = generator.choice(classes, rows, p=weights / weights.sum())
        for accuracy in (0.0, 0.1, 0.3):
            predicted = predictions(truth, classes, accuracy, seed)
            assert better_assignment(predicted, truth) == {}
        of_rarest = np.full(rows, classes - 1)
        assert better_assignment(of_rarest, truth) == {}


@pytest.mark.parametrize(("classes", "rows"), [(2, 60), (3, 60), (24, 500), (200, 4000)])
def test_another_order_is_noticed_whole_or_in_part(classes: int, rows: int) -> None:
    truth = np.arange(rows) % classes
    predicted = predictions(truth, classes, 0.8, 0)
    turned = better_assignment((predicted + 1) % classes, truth)
    assert turned == {(code + 1) % classes: code for code in range(classes)}
    swapped = np.array([1, 0, *range(2, classes)])
    found = better_assignment(swapped[predicted], truth)
    assert found == {0: 1, 1: 0}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["x", "x"], r"has 'x' more than once"),
        (["x", 1], r"mixes labels of int and str \('x', 1\)"),
        ([1, True], "mixes labels of bool and int"),
        ("ab", "classes='ab' is of type str; give a list"),
        ({"a", "b"}, "is of type set; give a list"),
        (7, "classes=7 is of type int; give a list"),
        (["a"], r"head has 2 classes \('cat', 'dog'\), and classes= has length 1"),
        (["a", None], "has the label None"),
        ([float("nan"), 1.0], "has the label nan"),
        (["a", ["b"]], r"has the label \['b'\]"),
    ],
)
def test_classes_that_a_bundle_cannot_hold_are_refused_at_once(
    clear: Any, classes: Any, message: str
) -> None:
    head = LogisticHead().fit(clear.X, clear.labels)
    with pytest.raises(InvalidRequest, match=message):
        make_bundle(clear, head, classes=classes)
