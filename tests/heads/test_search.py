"""Search: the results of scikit-learn's GridSearchCV, and folds of every kind."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.metrics import make_scorer, recall_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    ShuffleSplit,
    StratifiedKFold,
)

from contracts import blobs
from featcache import extract
from featcache.errors import InvalidRequest
from heads import LightGBMHead, LogisticHead, SVMHead, make_head, search
from heads.folds import make_folds

GRID = {"C": [1e-3, 0.1]}


@pytest.fixture
def features(photos: Path, tiny_model: Any) -> Any:
    return extract(tiny_model, photos)


@pytest.fixture
def data() -> Any:
    return blobs(3, 30, 12, spread=0.8)


def test_the_best_of_the_grid_is_trained_on_all_rows(features: Any) -> None:
    result = search("logistic", features, param_grid=GRID, cv=3, n_jobs=1)
    found = result.cv_results_
    assert result.best_score_ == found["mean_test_score"].max()
    assert result.best_params_ == found["params"][result.best_index_]
    assert found["rank_test_score"][result.best_index_] == 1
    assert result.best_estimator_.predict(np.asarray(features.X)).shape == (12,)
    assert result.best_estimator_.get_params()["C"] == result.best_params_["C"]
    unfitted = search("logistic", features, param_grid=GRID, cv=3, n_jobs=1, refit=False)
    assert unfitted.best_estimator_ is None
    assert unfitted.best_params_ == result.best_params_


def test_a_result_describes_itself_in_one_line(data: Any) -> None:
    result = search("svm", *data, param_grid={"C": [1e-3, 0.1]}, cv=3, n_jobs=1, refit=False)
    score, best = result.best_score_, result.best_params_
    assert (
        repr(result) == f"SearchResult(best_score_={score:.4f}, best_params_={best}, 2 candidates)"
    )


@pytest.mark.parametrize("scoring", [None, "balanced_accuracy", "neg_log_loss"])
def test_results_are_those_of_scikit_learns_search(data: Any, scoring: Any) -> None:
    X, y = data
    grid = [{"max_iter": [3, 9], "C": [1e-3, 0.1]}, {"calibration_folds": [0]}]
    head = SVMHead(tol=1e-6, C=0.01)
    folds = StratifiedKFold(3, shuffle=True, random_state=1)
    theirs = GridSearchCV(head, grid, cv=folds, scoring=scoring).fit(X, y)
    ours = search(head, X, y, param_grid=grid, cv=folds, scoring=scoring, n_jobs=1)
    names = {name for name in theirs.cv_results_ if "_time" not in name}
    assert set(ours.cv_results_) == names
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    for name in names - {"params", "rank_test_score"}:
        mine, other = (r.cv_results_[name] for r in (ours, theirs))
        if name.startswith("param_"):
            assert mine.tolist() == other.tolist()
        elif scoring is not None:  # accuracies of a few steps differ along a path of C
            assert np.allclose(mine, other)
    if scoring is not None:
        assert ours.cv_results_["rank_test_score"].tolist() == (
            theirs.cv_results_["rank_test_score"].tolist()
        )
        assert ours.best_params_ == theirs.best_params_


def test_a_scorer_may_be_a_function_or_made_by_scikit_learn(data: Any) -> None:
    X, y = data
    recall = make_scorer(recall_score, average="macro")
    by_scorer = search(LogisticHead(), X, y, param_grid=GRID, scoring=recall, n_jobs=1)
    by_name = search(LogisticHead(), X, y, param_grid=GRID, scoring="recall_macro", n_jobs=1)
    assert by_scorer.cv_results_["mean_test_score"].tolist() == (
        by_name.cv_results_["mean_test_score"].tolist()
    )
    constant = search(LogisticHead(), X, y, param_grid=GRID, scoring=lambda *_: 0.25, n_jobs=1)
    assert constant.best_score_ == 0.25


def test_the_path_along_c_gives_what_single_fits_give() -> None:
    X, y = blobs(6, 40, 40, spread=1.2)
    head = LogisticHead(tol=1e-6, max_iter=1000)
    path = search(head, X, y, param_grid={"C": [0.3, 1e-4, 0.01]}, n_jobs=1)
    alone = search(
        head, X, y, param_grid={"C": [0.3, 1e-4, 0.01]}, scoring=lambda h, X, y: h.score(X, y),
        n_jobs=1,
    )  # fmt: skip
    assert np.allclose(
        path.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"], atol=0.02
    )


def test_a_grid_may_hold_auto_and_class_weights(data: Any) -> None:
    X, y = data
    grid = {"C": ["auto", 0.01], "class_weight": [None, "balanced"]}
    result = search("logistic", X, y, param_grid=grid, n_jobs=1)
    assert len(result.cv_results_["params"]) == 4
    assert np.isfinite(result.cv_results_["mean_test_score"]).all()
    defaults = search("logistic", X, y, param_grid={}, n_jobs=1)
    assert defaults.best_params_ == {}


def test_a_parallel_search_gives_the_same_results(features: Any) -> None:
    one, two = (
        search(
            LightGBMHead(n_estimators=5), features, param_grid={"num_leaves": [2, 4]}, cv=2,
            n_jobs=n,
        ).cv_results_["mean_test_score"].tolist()
        for n in (1, 2)
    )  # fmt: skip
    assert one == two


class TestFolds:
    def test_a_column_a_splitter_and_pairs_are_the_same_folds(self, data: Any) -> None:
        X, y = data
        column = np.arange(len(y)) % 3
        names = [f"fold {i}" for i in column]
        pairs = [(np.flatnonzero(column != i), np.flatnonzero(column == i)) for i in range(3)]
        found = [
            search("svm", X, y, param_grid=GRID, cv=cv, n_jobs=1).cv_results_["mean_test_score"]
            for cv in (column, column.tolist(), names, PredefinedSplit(column), pairs)
        ]
        assert all(np.array_equal(found[0], other) for other in found)

    def test_rows_of_no_fold_are_always_trained_on(self) -> None:
        X, y = blobs(6, 40, 40, spread=1.2)
        column = np.arange(len(y)) % 3 - 1
        for cv in (
            column,
            [None if i < 0 else i for i in column],
            np.where(column < 0, np.nan, column),
        ):
            folds = make_folds(X, y, None, cv)
            assert [sorted(test) for _, test in folds] == [
                np.flatnonzero(column == i).tolist() for i in (0, 1)
            ]
            assert all(len(train) + len(test) == len(y) for train, test in folds)
        path = search("svm", X, y, param_grid=GRID, cv=column, n_jobs=1)
        alone = search(
            "svm", X, y, param_grid=GRID, cv=column, n_jobs=1,
            scoring=lambda h, X, y: h.score(X, y),
        )  # fmt: skip
        assert np.allclose(
            path.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"], atol=0.03
        )

    def test_splits_that_overlap_are_trained_one_by_one(self, data: Any) -> None:
        X, y = data
        splitter = ShuffleSplit(4, test_size=0.3, train_size=0.5, random_state=0)
        result = search("logistic", X, y, param_grid=GRID, cv=splitter, n_jobs=1)
        train, test = next(splitter.split(X))
        head = make_head("logistic", C=0.1).fit(X[train], y[train])
        assert result.cv_results_["split0_test_score"][1] == head.score(X[test], y[test])

    def test_copies_of_a_photo_never_straddle_a_fold(self, features: Any) -> None:
        doubled = features.take([*range(12), *range(12)])
        ids = doubled.ids
        for train, test in make_folds(np.asarray(doubled.X), doubled.y, ids, 3):
            assert not {ids[i] for i in train} & {ids[i] for i in test}
        result = search("logistic", doubled, param_grid=GRID, cv=GroupKFold(3), n_jobs=1)
        assert np.isfinite(result.best_score_)

    def test_a_splitter_that_parts_copies_is_reported(
        self, features: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        doubled = features.take([*range(12), *range(12)])
        with caplog.at_level(logging.WARNING, "heads"):
            search("logistic", doubled, param_grid=GRID, cv=KFold(2), n_jobs=1)
        assert (
            "12 groups, such as copies of a photo, have both training and test rows" in caplog.text
        )

    def test_columns_and_groups_are_of_all_rows_also_beside_unlabelled_ones(
        self, data: Any
    ) -> None:
        X, y = data
        labels = y.astype(object)
        labels[::7] = None
        known = np.arange(len(y)) % 7 > 0
        column, groups = np.arange(len(y)) % 3, np.arange(len(y)) // 2
        expected = search(
            "svm", X[known], y[known], param_grid=GRID, cv=column[known], n_jobs=1
        ).best_score_
        assert (
            search("svm", X, labels, param_grid=GRID, cv=column, n_jobs=1).best_score_ == expected
        )
        pairs = [(np.flatnonzero(column != i), np.flatnonzero(column == i)) for i in range(3)]
        assert search("svm", X, labels, param_grid=GRID, cv=pairs, n_jobs=1).best_score_ == expected
        folds = make_folds(X[known], y[known], groups, 3, 0, known)
        for train, test in folds:
            assert not set(groups[known][train]) & set(groups[known][test])


def test_features_may_come_with_labels_of_their_own(features: Any) -> None:
    result = search("logistic", features, features.labels, param_grid=GRID, cv=2, n_jobs=1)
    assert set(result.best_estimator_.classes_) == set(features.labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"param_grid": {"D": [1]}}, r"no parameter \['D'\]"),
        ({"param_grid": {}, "y": [0] * 89}, "X has 90 rows, but y has 89 labels"),
        ({"param_grid": []}, r"param_grid=\[\] must map .* at least one value"),
        ({"param_grid": {"C": []}}, r"param_grid={'C': \[\]} must map .* at least one value"),
        ({"param_grid": {"C": 5}}, "param_grid={'C': 5} must map .* a list"),
        ({"param_grid": {"C": [None]}}, "C=None must be 'auto' or a number"),
        ({"head": LogisticHead}, r"head=LogisticHead is a class.* LogisticHead\(\)"),
        ({"head": 3}, "head=3 must be a head"),
        ({"random_state": "a"}, "random_state='a' must be a whole number from 0"),
        ({"cv": GroupKFold(3)}, "GroupKFold.* cannot split the 90 rows: .* Give groups="),
        ({"cv": 99}, "cv=99 must be a number of folds from 2 to 90, the number of different rows"),
        ({"cv": 3, "groups": [0] * 45 + [1] * 45}, "from 2 to 2, the number of different groups"),
        ({"cv": KFold(91)}, "KFold.* cannot split the 90 rows: "),
        ({"cv": "five"}, "cv='five' does not define folds"),
        ({"cv": 2.5}, "cv=2.5 does not define folds"),
        ({"cv": [0, 1]}, "cv has 2 fold numbers, but there are 90 rows"),
        ({"cv": [0] * 90}, "without training rows"),
        ({"groups": [1, 2]}, "groups has 2 entries, but there are 90 rows"),
        ({"scoring": "acuracy"}, "is not a scorer of scikit-learn"),
        ({"scoring": ["accuracy"]}, "is not one scorer"),
        ({"y": None}, "A search needs labels, but y is None"),
        ({"y": [None] * 90}, "none of the 90 rows has one"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    data: Any, options: dict[str, Any], message: str
) -> None:
    X, y = data
    options = options.copy()  # those of the module, for every run
    head, labels = options.pop("head", "logistic"), options.pop("y", y)
    with pytest.raises(InvalidRequest, match=message):
        search(head, X, labels, **{"param_grid": GRID, "n_jobs": 1, **options})


def test_features_without_labels_cannot_be_searched(photos: Path, tiny_model: Any) -> None:
    with pytest.raises(InvalidRequest, match="needs labels"):
        search("logistic", extract(tiny_model, photos / "cat"), param_grid=GRID)


@pytest.mark.slow
def test_a_search_runs_on_the_workers_of_a_cluster() -> None:
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    X, y = blobs(3, 60, 16)
    grid = {"n_estimators": [5, 10]}
    expected = search("lightgbm", X, y, param_grid=grid, cv=3)

    def process(head: Any, X: Any, y: Any) -> float:
        return float(os.getpid())

    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config("dask"),
    ):
        found = search("lightgbm", X, y, param_grid=grid, cv=3, n_jobs=-1)
        where = search("lightgbm", X, y, param_grid=grid, cv=3, n_jobs=-1, scoring=process)
        pids = {float(pid) for pid in client.run(os.getpid).values()}
    scores = where.cv_results_
    assert {scores[f"split{i}_test_score"][k] for i in range(3) for k in range(2)} <= pids
    assert found.best_params_ == expected.best_params_
    assert found.best_score_ == expected.best_score_
