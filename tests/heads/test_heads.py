"""Each head meets the contract; linear ones are what scikit-learn's are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import heads
from contracts import HeadContract, blobs
from featcache.errors import InvalidRequest
from heads import (
    DenseHead,
    KNNHead,
    LightGBMHead,
    LogisticHead,
    RidgeHead,
    SVMHead,
    make_head,
)
from heads.calibration import fit_temperature
from heads.scaling import row_space
from heads.solver import minimise


class TestLogisticHead(HeadContract):
    head = LogisticHead()
    accuracy = 0.95


class TestSVMHead(HeadContract):
    head = SVMHead()
    accuracy = 0.95


class TestRidgeHead(HeadContract):
    head = RidgeHead()
    accuracy = 0.95

    @pytest.mark.parametrize("rows", [60, 300])
    def test_its_scores_are_scikit_learns(self, rows: int) -> None:
        X, y = blobs(5, rows // 5, 90)
        weight = np.random.default_rng(0).integers(1, 4, len(X))
        scaled = StandardScaler().fit(X, sample_weight=weight).transform(X)
        reference = RidgeClassifier(alpha=20.0).fit(scaled, y, weight)
        head = RidgeHead(alpha=20.0).fit(X, y, weight)
        # Indicators are 0 and 1 here, and -1 and 1 there.
        assert np.allclose(2 * head._scores(X) - 1, reference.decision_function(scaled), atol=1e-4)

    def test_alpha_is_chosen_by_held_out_rows(self) -> None:
        X, y = blobs(4, 400, 64, spread=0.9)
        chosen = RidgeHead().fit(X[:800], y[:800])
        other = RidgeHead(alpha=1e7).fit(X[:800], y[:800])
        assert chosen.score(X[800:], y[800:]) >= other.score(X[800:], y[800:])
        assert 0.0005 < chosen.alpha_ / 800 < 4
        assert RidgeHead(alpha=3.0).fit(X, y).alpha_ == 3.0


class TestLightGBMHead(HeadContract):
    head = LightGBMHead()
    accuracy = 0.85


class TestKNNHead(HeadContract):
    head = KNNHead()
    accuracy = 0.9


class TestKNNHeadWithEuclideanDistances(HeadContract):
    head = KNNHead(weights="uniform", metric="euclidean")
    accuracy = 0.9


class TestDenseHead(HeadContract):
    head = DenseHead(units=64, epochs=25, learning_rate=1e-3)
    accuracy = 0.9

    @pytest.mark.slow
    def test_it_passes_scikit_learns_own_checks(self) -> None:
        super().test_it_passes_scikit_learns_own_checks()

    def test_its_history_has_a_value_an_epoch_and_ends_early(self) -> None:
        X, y = blobs(4, 60, 32)
        history = DenseHead(units=32, epochs=200, learning_rate=0.01, patience=3).fit(X, y).history_
        assert len({len(values) for values in history.values()}) == 1
        assert len(history["val_loss"]) < 200
        assert history["seconds"] == sorted(history["seconds"])

    def test_the_best_epochs_weights_are_kept(self) -> None:
        X, y = blobs(4, 60, 32, spread=1)
        head = DenseHead(units=32, epochs=60, learning_rate=0.05, validation_fraction=0.3).fit(X, y)
        train, held_out = head._parts(y)
        proba = softmax(head._scores(X[held_out]), axis=1)
        loss = -np.log(proba[np.arange(len(held_out)), y[held_out]]).mean()
        assert loss == pytest.approx(min(head.history_["val_loss"]), rel=1e-3)
        assert len(train) + len(held_out) == len(y)


@pytest.mark.parametrize("rows", [60, 300])  # fewer and more rows than columns
@pytest.mark.parametrize("classes", [2, 5])
def test_logistic_scores_are_scikit_learns(rows: int, classes: int) -> None:
    X, y = blobs(classes, rows // classes, 90)
    scale = StandardScaler().fit(X)
    reference = LogisticRegression(C=0.05, max_iter=2000, tol=1e-6).fit(scale.transform(X), y)
    head = LogisticHead(C=0.05, max_iter=2000, tol=1e-6, calibration_folds=0).fit(X, y)
    assert np.allclose(
        head.predict_proba(X), reference.predict_proba(scale.transform(X)), atol=2e-3
    )


@pytest.mark.parametrize("rows", [60, 300])
def test_svm_margins_are_those_of_liblinear(rows: int) -> None:
    X, y = blobs(3, rows // 3, 90)
    scale = StandardScaler().fit(X)
    # LIBLINEAR penalises the bias; a large scaling makes that penalty vanish.
    reference = LinearSVC(C=0.01, dual=True, tol=1e-7, max_iter=100_000, intercept_scaling=100)
    margins = reference.fit(scale.transform(X), y).decision_function(scale.transform(X))
    head = SVMHead(C=0.01, tol=1e-10, max_iter=5000, calibration_folds=0).fit(X, y)
    assert np.allclose(head._scores(X), margins, atol=2e-2)


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (7, 7)])
def test_the_row_space_holds_the_rows(shape: tuple[int, int]) -> None:
    X = np.random.default_rng(0).normal(size=shape).astype("float32")
    inner, axes = row_space(X)
    assert np.allclose(inner if axes is None else inner @ axes, X, atol=1e-4)
    assert (axes is None) == (shape[0] >= shape[1])


def test_the_temperature_finds_the_scale_that_was_taken_away() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (4000, 5))
    weights = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    codes = np.array([generator.choice(5, p=w) for w in weights])
    assert fit_temperature(logits * 7, codes) == pytest.approx(7, rel=0.1)


@pytest.mark.parametrize("name", ["logistic", "svm"])
@pytest.mark.parametrize("width", [40, 400])  # fewer and more columns than rows
def test_a_path_of_strengths_is_what_single_fits_give(name: str, width: int) -> None:
    X, y = blobs(6, 40, width, spread=1.2)
    folds = [np.arange(180, 240), np.arange(180)]
    train, test = folds[1], folds[0]
    values = [0.3, 0.0003, 0.01]
    options = {"tol": 1e-7, "max_iter": 2000}
    head = make_head(name, **options)
    path = head.accuracy_paths(X, y, folds, values)[:, 0].tolist()
    alone = [
        make_head(name, C=value, tol=1e-7, max_iter=2000).fit(X[train], y[train])
        for value in values
    ]
    assert path == pytest.approx([one.score(X[test], y[test]) for one in alone], abs=0.02)
    assert len(set(path)) > 1
    assert head.C == make_head(name).C


def test_on_many_rows_one_held_out_fold_gives_the_temperature() -> None:
    X, y = blobs(4, 1500, 16, spread=0.7)
    few = LogisticHead(C=0.01).fit(X[:3990], y[:3990])
    many = LogisticHead(C=0.01).fit(X, y)
    assert many.temperature_ == pytest.approx(few.temperature_, rel=0.1)
    assert many.score(X, y) == pytest.approx(few.score(X, y), abs=0.01)


class TestSolver:
    def test_a_narrow_valley_is_followed_to_its_end(self) -> None:
        scales = np.geomspace(1, 1000, 50).astype(np.float32)
        target = np.linspace(-1, 1, 50).astype(np.float32)

        def valley(x: Any) -> tuple[float, Any]:
            away = x - target
            return float(0.5 * (scales * away**2).sum(dtype=np.float64)), scales * away

        found, steps = minimise(valley, np.zeros(50, np.float32), 500, 1e-9)
        assert np.allclose(found, target, atol=1e-3)
        assert steps < 400

    def test_it_stops_where_it_was_told_and_at_the_bottom(self) -> None:
        def bowl(x: Any) -> tuple[float, Any]:
            return float((x**2).sum()), 2 * x

        assert minimise(bowl, np.full(3, 9, np.float32), 0, 1e-9)[1] == 0
        found, steps = minimise(bowl, np.zeros(3, np.float32), 50, 1e-9)
        assert (found.tolist(), steps) == ([0, 0, 0], 0)

    def test_a_function_that_misleads_does_not_hang_it(self) -> None:
        def liar(x: Any) -> tuple[float, Any]:
            return float(x.sum()), -np.ones_like(x)  # the gradient points the wrong way

        found, _ = minimise(liar, np.zeros(3, np.float32), 50, 1e-9)
        assert found.tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["dense", "lightgbm"])
@pytest.mark.parametrize(
    "given",
    [
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"learning_rate": 0},
        {"learning_rate": "fast"},
        {"validation_fraction": 0},
        {"validation_fraction": 1.0},
        {"patience": -1},
        {"patience": 2.5},
    ],
    ids=str,
)
def test_parameters_that_make_no_sense_are_refused(name: str, given: dict[str, Any]) -> None:
    X, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    (parameter,) = given
    with pytest.raises(InvalidRequest, match=f"{parameter}=.* must be "):
        make_head(name, **given).fit(X, y)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("dense", {"epochs": 0}),
        ("dense", {"units": -1}),
        ("dense", {"batch_size": 0}),
        ("dense", {"dropout": 1.0}),
        ("dense", {"factor": 1.0}),
        ("lightgbm", {"n_estimators": 0}),
        ("lightgbm", {"num_leaves": 1}),
        ("lightgbm", {"n_components": True}),
        ("lightgbm", {"feature_fraction": 1.1}),
        ("lightgbm", {"reg_lambda": -1.0}),
        ("logistic", {"max_iter": 0}),
        ("logistic", {"max_iter": 2.5}),
        ("svm", {"tol": "a"}),
        ("svm", {"tol": float("nan")}),
        ("svm", {"tol": -1e-4}),
        ("logistic", {"calibration_folds": -1}),
        ("svm", {"calibration_folds": True}),
        ("knn", {"n_neighbors": 0}),
        ("ridge", {"alpha": 0}),
    ],
    ids=str,
)
def test_parameters_of_one_head_that_make_no_sense_are_refused(
    name: str, given: dict[str, Any]
) -> None:
    test_parameters_that_make_no_sense_are_refused(name, given)


def test_a_path_of_strengths_refuses_parameters_that_make_no_sense() -> None:
    X, y = blobs(3, 10, 4)
    with pytest.raises(InvalidRequest, match="LogisticHead: max_iter=0 must be a whole number"):
        LogisticHead(max_iter=0).accuracy_paths(X, y, [np.arange(5)], [0.1])


def test_registry_suggests_near_names() -> None:
    with pytest.raises(InvalidRequest, match="Did you mean 'logistic'"):
        make_head("logistics")
    assert set(heads.HEADS) >= {"logistic", "svm", "lightgbm"}


@pytest.mark.parametrize("head", [LightGBMHead(n_estimators=5), DenseHead(units=4, epochs=2)])
def test_a_random_state_may_be_an_object_as_in_scikit_learn(head: Any) -> None:
    X, y = blobs(3, 20, 8)
    fits = [
        clone(head).set_params(random_state=np.random.RandomState(s)).fit(X, y).predict_proba(X)
        for s in (0, 0, 1)
    ]
    assert np.array_equal(fits[0], fits[1])
    assert not np.array_equal(fits[0], fits[2])


@pytest.mark.parametrize("name", list(heads.HEADS))
def test_parameters_have_the_names_of_scikit_learn_and_lightgbm(name: str) -> None:
    private = {"seed", "rounds", "leaves", "components", "validation_size", "plateau", "cut"}
    assert not private & set(make_head(name).get_params())


@pytest.mark.parametrize("units", [0, 8])
def test_heads_count_their_own_parameters(units: int) -> None:
    X, y = blobs(3, 20, 10)
    for name in ("logistic", "svm"):
        assert make_head(name).fit(X, y).n_parameters == 3 * (10 + 1)
    dense = DenseHead(units=units, epochs=1).fit(X, y)
    assert dense.n_parameters == (10 * 8 + 8 + 8 * 3 + 3 if units else 10 * 3 + 3)
    trees = LightGBMHead(n_estimators=2, num_leaves=3, patience=0).fit(X, y)
    assert trees.n_parameters == 2 * 3 * 3
    assert KNNHead().fit(X, y).n_parameters == 60 * 10


@pytest.mark.parametrize("name", list(heads.HEADS))
def test_an_untrained_head_has_no_parameters_to_count(name: str) -> None:
    with pytest.raises(NotFittedError):
        _ = make_head(name).n_parameters


def test_heads_say_whether_they_train_in_seconds() -> None:
    assert {name: make_head(name).trains_in_seconds for name in heads.HEADS} == {
        "logistic": True, "svm": True, "lightgbm": True, "dense": False, "knn": True,
        "ridge": True,
    }  # fmt: skip


def test_a_contender_asks_its_head_how_long_it_trains_and_how_large_it_is() -> None:
    from bench import CachedHead
    from bench.contenders.colour_histogram import ColourHistogram

    class Slow(LogisticHead):
        trains_in_seconds = False

    assert not CachedHead("mobilenet_v2", Slow()).quick
    assert not ColourHistogram(Slow()).quick
    assert CachedHead("mobilenet_v2", "svm").quick
