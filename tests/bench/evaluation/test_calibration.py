"""Probabilities from few images per class can be trusted, whatever the head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.evaluation.few_shot import draw_rows
from bench.evaluation.metrics import calibration_error
from contracts import blobs
from featcache import extract
from heads import HEADS, DenseHead, LightGBMHead, make_head
from heads.calibration import (
    cross_fitted_temperature,
    fit_temperature,
    prior_temperature,
)
from heads.held_out import held_out_folds

DRAWS = 3


def error_of(name: str, per_class: int, rare: int | None = None, spread: float = 1.6) -> float:
    """Calibration error of a head on few rows per class of made-up data, mean of some draws."""
    small: dict[str, Any] = {
        "dense": {"units": 64, "epochs": 30},
        "lightgbm": {"n_estimators": 120},
    }
    errors = []
    for draw in range(1 if name == "dense" else DRAWS):
        X, y = blobs(12, 60, 64, spread=spread, seed=draw)
        rows = draw_rows(y, per_class, 0, 0)
        others = np.setdiff1d(np.arange(len(y)), rows)
        if rare is not None:
            first = np.flatnonzero(y[rows] == rare)[0]
            rows = rows[(y[rows] != rare) | (np.arange(len(rows)) == first)]
            others = others[y[others] != rare]
        head = make_head(name, **small.get(name, {})).fit(X[rows], y[rows])
        errors.append(calibration_error(y[others], head.predict_proba(X[others])))
    return float(np.mean(errors))


@pytest.mark.parametrize("per_class", [2, 5])
@pytest.mark.parametrize("name", list(HEADS))
def test_few_rows_per_class_give_probabilities_that_hold(name: str, per_class: int) -> None:
    assert error_of(name, per_class) < 0.15


@pytest.mark.parametrize("name", list(HEADS))
def test_one_rare_class_does_not_undo_the_calibration(name: str) -> None:
    assert error_of(name, 5, rare=3) < 0.15


@pytest.mark.parametrize("name", list(HEADS))
def test_one_row_per_class_is_no_reason_to_be_unsure_of_everything(name: str) -> None:
    assert error_of(name, 1, spread=2.5) < 0.4


def test_training_never_lacks_a_class_that_is_held_out() -> None:
    codes = np.array([0, 0, 1, 2, 2, 2, 2, 2, 3])
    folds = held_out_folds(codes, 3)
    held_out = np.concatenate(folds).tolist()
    assert len(set(held_out)) == len(held_out) == 5  # 0 and 1, and three of class 2
    assert not {2, 8} & set(held_out)
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(codes)), fold)
        assert set(codes[rest]) == {0, 1, 2, 3}
    assert held_out_folds(np.arange(5), 3) == []
    assert held_out_folds(codes, 1) == []


def test_classes_of_one_size_are_of_one_size_without_a_fold() -> None:
    codes = np.repeat(np.arange(12), 5)
    for fold in held_out_folds(codes, 3):
        assert len(set(np.bincount(np.delete(codes, fold)))) == 1


def test_scores_for_the_temperature_come_from_models_without_the_scored_rows() -> None:
    codes = np.repeat(np.arange(4), 6)
    logits = np.random.default_rng(0).normal(size=(24, 4)) + 2 * np.eye(4)[codes]
    seen: list[int] = []

    def scores_of(train: Any, scored: Any) -> Any:
        assert not set(train) & set(scored)
        assert len(train) + len(scored) == 24
        seen.extend(scored)
        return logits[scored] * 5

    found = cross_fitted_temperature(scores_of, codes)
    assert sorted(seen) == list(range(24))
    assert found == pytest.approx(fit_temperature(logits * 5, codes), rel=1e-6)
    assert cross_fitted_temperature(scores_of, np.arange(4)) is None


def test_many_rows_are_cross_fitted_in_part() -> None:
    codes = np.repeat(np.arange(100), 9)
    calls = []
    logits = np.random.default_rng(0).normal(size=(900, 100)) + 3 * np.eye(100)[codes]
    cross_fitted_temperature(lambda _, scored: (calls.append(1), logits[scored])[1], codes)
    assert len(calls) == 1


def test_the_prior_follows_the_unit_of_the_scores() -> None:
    scores = np.eye(5) * 3
    one = prior_temperature(scores, np.arange(5))
    assert prior_temperature(scores * 7, np.arange(5)) == pytest.approx(7 * one)
    assert prior_temperature(np.zeros((5, 5)), np.arange(5)) == 1.0
    assert prior_temperature(-scores, np.arange(5)) == 1.0


def test_few_rows_raise_the_dense_heads_learning_rate_and_many_do_not() -> None:
    head = DenseHead(learning_rate=1e-4, batch_size=64)
    assert [head._rate(n) for n in (48, 320, 6400)] == pytest.approx([1e-3, 2e-4, 1e-4])
    assert DenseHead(learning_rate=0.05)._rate(10) == 0.05


def test_cross_fitting_leaves_the_trained_head_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(6, 4, 32)
    for head in (LightGBMHead(n_estimators=30), DenseHead(units=16, epochs=8)):
        with monkeypatch.context() as patch:
            patch.setattr(type(head), "_temperature", lambda *_: 1.0)
            plain = head.fit(X, y)._scores(X)
        fitted = head.fit(X, y)
        assert fitted.temperature_ != 1.0
        assert np.allclose(fitted._scores(X), plain, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_head_is_calibrated_on_photos_of_24_classes(test_data: Path) -> None:
    """Mean of three draws of the training images: 232 test images alone are noisy."""
    features = extract(
        "mobilenet_v2",
        test_data / "caltech24" / "split.csv",
        weights=test_data / "weights" / "mobilenet_v2_imagenet.weights.h5",
    )
    train, test = features.split()
    X, U = np.asarray(train.X), np.asarray(test.X)
    assert train.y is not None
    assert test.y is not None
    table = {}
    print("head       images per class   calibration error   top-1   confidence")
    for name in HEADS:
        for per_class in (2, 3, 5, None):
            found = []
            for draw in range(DRAWS):
                rows = slice(None) if per_class is None else draw_rows(train.y, per_class, draw, 0)
                head = make_head(name)
                if "random_state" in head.get_params():
                    head.set_params(random_state=draw)
                proba = head.fit(X[rows], train.y[rows]).predict_proba(U)
                right = np.mean(proba.argmax(axis=1) == test.y)
                found.append((calibration_error(test.y, proba), right, proba.max(axis=1).mean()))
            error, right, sure = np.mean(found, axis=0)
            table[name, per_class] = error
            print(f"{name:<10} {per_class or 'all':>16} {error:19.3f} {right:7.3f} {sure:12.3f}")
    assert max(table.values()) <= 0.10, table
