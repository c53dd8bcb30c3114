"""LightGBM on rows that do not fit in memory: accuracy and held-out rows are those in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from contracts import blobs
from featcache.errors import InvalidRequest
from heads import LightGBMHead, calibration
from heads.blocks import Block
from heads.sums import RowSums, principal_axes
from heads.weights import RowWeights

LIMIT = "1.6M"


def on_disk(X: Any, folder: Path) -> Any:
    """Return the rows as a `numpy.memmap`."""
    np.save(folder / "rows.npy", X)
    return np.load(folder / "rows.npy", mmap_mode="r")


def head(**options: Any) -> LightGBMHead:
    return LightGBMHead(n_components=32, n_estimators=40, n_jobs=1, **options)


@pytest.fixture(scope="module")
def rows() -> tuple[Any, Any]:
    X, y = blobs(4, 1200, 64, spread=2.0)
    return X, np.array(["ant", "bee", "cat", "dog"])[y]


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_accuracy_and_probabilities_are_those_of_training_in_memory(
    class_weight: Any, rows: Any, tmp_path: Path
) -> None:
    X, y = rows
    train, test = slice(0, 4000), slice(4000, None)
    # Without chance: LightGBM draws other columns and thresholds for other bins.
    options = {"class_weight": class_weight, "extra_trees": False, "feature_fraction": 1.0}
    expected = head(**options).fit(X[train], y[train])
    found = head(memory_limit=LIMIT, **options).fit(on_disk(X[train], tmp_path), y[train])
    assert abs(found.score(X[test], y[test]) - expected.score(X[test], y[test])) < 0.01
    assert np.abs(found.predict_proba(X) - expected.predict_proba(X)).mean() < 0.015
    assert found.temperature_ == pytest.approx(expected.temperature_, rel=0.1)
    steps = found.to_classifier()
    assert np.allclose(steps.predict_proba(X[:50]), found.predict_proba(X[:50]), atol=1e-5)


def test_rows_without_a_label_and_held_out_groups_are_not_trained_on(
    rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heads import booster

    X, y = rows
    y = np.where(np.arange(len(y)) % 5, y, None)
    groups = np.arange(len(X)) // 3
    parts: list[Any] = []
    real = booster.block_data

    def spy(blocks: Any, rows: Any, *others: Any) -> Any:
        parts.append(rows)
        return real(blocks, rows, *others)

    monkeypatch.setattr(booster, "block_data", spy)
    found = head(memory_limit=LIMIT, patience=2).fit(on_disk(X, tmp_path), y, groups=groups)
    train, held_out = parts
    assert found.best_iteration_ <= 40
    assert not np.intersect1d(groups[train], groups[held_out]).size
    assert np.array_equal(np.sort(np.r_[train, held_out]), np.flatnonzero(np.arange(len(y)) % 5))
    assert found.score(X, y) > 0.8


def test_weights_count_as_copies(rows: Any, tmp_path: Path) -> None:
    X, y = rows
    plain, heavy = (
        head(memory_limit=LIMIT).fit(on_disk(X, tmp_path), y, weight).predict_proba(X)[:, 0].mean()
        for weight in (None, np.where(y == "ant", 30.0, 1.0))
    )
    assert heavy > plain + 0.02


@pytest.mark.parametrize("groups", ["giant", "few"])
def test_a_temperature_is_found_if_few_groups_can_be_held_out(
    groups: str, rows: Any, tmp_path: Path
) -> None:
    X, y = rows
    of_row = np.zeros(len(y)) if groups == "giant" else np.arange(len(y)) % 20
    found = head(memory_limit=LIMIT).fit(on_disk(X, tmp_path), y, groups=of_row)
    assert 0.05 < found.temperature_ < 2
    assert found.score(X, y) > 0.8


def test_more_held_out_rows_than_a_temperature_needs_are_sampled(
    rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = rows
    seen: list[int] = []
    fit = calibration.fit_temperature
    monkeypatch.setattr("heads.streamed_trees.HELD_OUT", 60)
    monkeypatch.setattr(
        "heads.streamed_trees.fit_temperature",
        lambda scores, *others: seen.append(len(scores)) or fit(scores, *others),
    )
    head(memory_limit=LIMIT).fit(on_disk(X, tmp_path), y)
    assert seen == [60]


def test_a_limit_below_what_lightgbm_keeps_of_all_rows_is_refused(
    rows: Any, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="4,800 rows of 64 columns in blocks takes 1 MiB"):
        head(memory_limit="1M").fit(on_disk(rows[0], tmp_path), rows[1])


def test_classes_beyond_the_supported_number_are_refused_before_a_row_is_read(
    tmp_path: Path,
) -> None:
    X = on_disk(np.full((4002, 64), np.nan, np.float32), tmp_path)
    with pytest.raises(InvalidRequest, match="at most 2,000 classes"):
        head(memory_limit="1M").fit(X, np.arange(4002) % 2001)


def test_axes_of_sums_are_those_of_the_rows() -> None:
    generator = np.random.default_rng(0)
    X = (generator.normal(size=(500, 20)) * np.linspace(1, 9, 20) + 1000).astype(np.float32)
    sums = RowSums(20)
    for start in range(0, 500, 100):
        part = X[start : start + 100]
        sums.add(Block(part.copy(), np.zeros(100, np.int64), RowWeights()))
    mean, axes = principal_axes(sums, 5)
    expected = PCA(5, svd_solver="full").fit(X.astype(np.float64))
    std = np.sqrt(expected.explained_variance_)
    assert np.allclose(mean, expected.mean_, atol=1e-3)
    assert np.allclose(axes, expected.components_ / std[:, None], atol=1e-4)
