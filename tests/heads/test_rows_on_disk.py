"""Heads on rows that do not fit in memory: the result of training in memory, read in blocks."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss

from contracts import blobs
from featcache.errors import InvalidRequest
from heads import KNNHead, LogisticHead, RidgeHead, SVMHead
from heads.blocks import RowBlocks, exceeds, limit_bytes
from heads.streamed import held_out_rows
from heads.weights import RowWeights
from made_features import IMAGES, VIEWS, Backbones

LIMIT = 2**20


def on_disk(X: Any, folder: Path) -> Any:
    """Return the rows as a `numpy.memmap`."""
    np.save(folder / "rows.npy", X)
    return np.load(folder / "rows.npy", mmap_mode="r")


@pytest.fixture(scope="module")
def rows() -> tuple[Any, Any]:
    X, y = blobs(6, 1000, 64, spread=1.2)
    return X, np.array(["ant", "bee", "cat", "dog", "emu", "fox"])[y]


@pytest.mark.parametrize("kind", [LogisticHead, SVMHead])
@pytest.mark.parametrize("class_weight", [None, {"ant": 3.0, "bee": 0.5}])
def test_the_coefficients_are_those_of_training_in_memory(
    kind: Any, class_weight: Any, rows: Any, tmp_path: Path
) -> None:
    X, y = rows
    options = {"C": 0.01, "tol": 1e-7, "calibration_folds": 0, "class_weight": class_weight}
    weight = np.random.default_rng(0).integers(0, 3, len(X))
    expected = kind(**options).fit(X, y, weight)
    found = kind(memory_limit=LIMIT, **options).fit(on_disk(X, tmp_path), y, weight)
    scale = np.abs(expected.coef_).max()
    assert np.abs(found.coef_ - expected.coef_).max() < 2e-3 * scale
    assert np.array_equal(found.classes_, expected.classes_)
    assert np.allclose(found.predict_proba(X), expected.predict_proba(X), atol=2e-3)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_ridge_regression_in_blocks_is_that_in_memory(
    class_weight: Any, rows: Any, tmp_path: Path
) -> None:
    X, y = rows[0] + 1000, rows[1]  # columns with a large mean lose no digits
    kept = (y != "ant") | (np.arange(len(y)) % 4 == 0)
    X, y = X[kept], y[kept]
    options = {"alpha": 500.0, "class_weight": class_weight}
    expected = RidgeHead(**options).fit(X, y)
    found = RidgeHead(memory_limit=LIMIT, **options).fit(on_disk(X, tmp_path), y)
    assert np.allclose(found._scores(X), expected._scores(X), atol=1e-3)
    assert found.temperature_ == pytest.approx(expected.temperature_, rel=0.1)


@pytest.mark.parametrize("kind", [LogisticHead, SVMHead, RidgeHead])
def test_accuracy_and_calibration_are_those_of_training_in_memory(
    kind: Any, rows: Any, tmp_path: Path
) -> None:
    X, y = rows
    train, test = slice(0, 4500), slice(4500, None)
    expected = kind().fit(X[train], y[train])
    found = kind(memory_limit=LIMIT).fit(on_disk(X[train], tmp_path), y[train])
    assert abs(found.score(X[test], y[test]) - expected.score(X[test], y[test])) < 0.01
    losses = [log_loss(y[test], head.predict_proba(X[test])) for head in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert found.n_features_in_ == 64


def test_groups_are_held_out_as_a_whole(rows: Any, tmp_path: Path) -> None:
    X, y = rows
    groups = np.arange(len(X)) // 7
    found = LogisticHead(memory_limit=LIMIT).fit(on_disk(X, tmp_path), y, groups=groups)
    assert found.score(X, y) > 0.5


@pytest.mark.parametrize("kind", [LogisticHead, SVMHead, RidgeHead])
@pytest.mark.parametrize("giant", [0, 3])  # is drawn first, or among the others
def test_probabilities_are_calibrated_with_a_giant_group(
    giant: int, kind: Any, rows: Any, tmp_path: Path
) -> None:
    X, y = rows
    order = np.random.default_rng(0).permutation(len(X))
    groups = np.full(len(X), giant)
    if giant:
        groups[order[:500]] = np.r_[:500] % 50 + 1000
    head = kind(memory_limit=LIMIT).fit(on_disk(X, tmp_path), y, groups=groups)
    plain = kind(memory_limit=LIMIT).fit(on_disk(X, tmp_path), y)
    losses = [log_loss(y, one.predict_proba(X)) for one in (head, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_a_giant_group_leaves_others_to_hold_out() -> None:
    codes = np.arange(1000) % 2
    groups = np.r_[np.zeros(900, int), np.arange(100) // 2 + 1].astype(np.int64)
    for shuffled in (np.arange(1000), np.arange(1000)[::-1]):
        held_out = held_out_rows(codes, groups, shuffled)
        assert len(held_out) == 100
        assert held_out.min() == 900


def test_rows_without_a_label_are_not_trained_on(rows: Any, tmp_path: Path) -> None:
    X, y = rows
    some: Any = [label if i % 3 else None for i, label in enumerate(y)]
    head = LogisticHead(C=0.01, memory_limit=LIMIT, calibration_folds=0, tol=1e-7)
    found = head.fit(on_disk(X, tmp_path), some)
    kept = np.arange(len(X)) % 3 > 0
    expected = LogisticHead(C=0.01, calibration_folds=0, tol=1e-7).fit(X[kept], y[kept])
    assert np.allclose(found.predict_proba(X), expected.predict_proba(X), atol=5e-3)


def test_few_rows_are_in_memory_at_once(rows: Any, tmp_path: Path) -> None:
    X, y = rows
    codes = np.unique(y, return_inverse=True)[1].astype(np.int64)
    codes[5::7] = -1
    blocks = RowBlocks(on_disk(X, tmp_path), codes, RowWeights(), LIMIT)
    found = list(blocks)
    assert len(found) > 2
    assert max(block.rows.nbytes for block in found) <= LIMIT // 8
    assert np.array_equal(np.concatenate([block.rows for block in found]), X[codes >= 0])
    assert np.array_equal(np.concatenate([b.codes for b in found]), codes[codes >= 0])
    assert not [t for t in threading.enumerate() if t.name.startswith("heads-read")]


def test_a_row_that_is_not_finite_is_refused(rows: Any, tmp_path: Path) -> None:
    X, y = rows[0].copy(), rows[1]
    X[4000, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        LogisticHead(memory_limit=LIMIT).fit(on_disk(X, tmp_path), y)


@pytest.mark.parametrize("limit", [True, -1, 10, "much", 1.5])
def test_a_limit_that_makes_no_sense_is_refused(limit: Any, rows: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"size|memory_limit"):
        LogisticHead(memory_limit=limit).fit(*rows)


def test_limits_are_bytes_texts_or_half_of_what_is_free() -> None:
    assert limit_bytes(2**21) == 2**21
    assert limit_bytes("2G") == 2**31
    assert limit_bytes(None) > 2**20


def test_arrays_in_memory_are_not_read_in_blocks(rows: Any) -> None:
    assert not exceeds(rows[0], 1)


def test_labels_of_one_class_and_another_number_of_labels_are_refused(
    rows: Any, tmp_path: Path
) -> None:
    X, y = on_disk(rows[0], tmp_path), rows[1]
    head = LogisticHead(memory_limit=LIMIT)
    with pytest.raises(InvalidRequest, match="one class"):
        head.fit(X, ["a"] * len(X))
    with pytest.raises(InvalidRequest, match="5,999 labels"):
        head.fit(X, y[:-1])
    with pytest.raises(InvalidRequest, match="requires y"):
        head.fit(X)


def test_predictions_of_rows_on_disk_read_them_in_chunks(
    rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = rows
    head = KNNHead().fit(X[:600], y[:600])
    expected = head.predict_proba(X)
    monkeypatch.setattr("heads.calibration.SCORES_PER_CHUNK", 64 * 100)
    seen: list[int] = []
    checked = KNNHead._checked_rows
    monkeypatch.setattr(
        KNNHead, "_checked_rows", lambda self, X: seen.append(len(X)) or checked(self, X)
    )
    assert np.allclose(head.predict_proba(on_disk(X, tmp_path)), expected)
    assert max(seen) <= 100
    assert len(seen) >= 60


def test_rows_of_two_backbones_are_read_in_blocks(tmp_path: Path) -> None:
    import featcache

    features = featcache.extract("pocket")
    both = featcache.concat([features, featcache.extract("pocket", image_size=48)])
    head = LogisticHead(memory_limit=LIMIT, C=0.01, calibration_folds=0)
    assert exceeds(both.X, LIMIT) == (2 * 4 * both.X.size > LIMIT)
    found = RowBlocks(both.X, np.zeros(len(both), np.int64), RowWeights(), LIMIT)
    assert np.array_equal(np.concatenate([block.rows for block in found]), both.X)
    expected = LogisticHead(C=0.01, calibration_folds=0).fit(np.asarray(both.X), both.y)
    assert np.allclose(
        head.fit(both)._scores(np.asarray(both.X)), expected._scores(both.X[:]), atol=0.05
    )


@pytest.mark.parametrize("kind", [LogisticHead, SVMHead, RidgeHead])
def test_a_limit_below_what_training_takes_besides_the_blocks_is_refused(
    kind: Any, tmp_path: Path
) -> None:
    # With fewer rows than columns, the products of these always take more than the rows.
    X = on_disk(np.ones((400, 500), np.float32), tmp_path)
    with pytest.raises(InvalidRequest, match=r"500 columns in blocks takes . MiB.*pca\(128\)"):
        kind(memory_limit=LIMIT).fit(X, np.arange(400) % 2)


def test_huge_weights_give_the_loss_of_training_in_memory(rows: Any, tmp_path: Path) -> None:
    # Not the coefficients: without an effective penalty, the same vector may be added to those of
    # all classes, and the minimum is flat.
    X, y = rows
    weight = np.full(len(X), 1e12)
    options: dict[str, Any] = {"C": 0.01, "calibration_folds": 0}
    expected = LogisticHead(**options).fit(X, y, weight)
    found = LogisticHead(memory_limit=LIMIT, **options).fit(on_disk(X, tmp_path), y, weight)
    losses = [log_loss(y, head.predict_proba(X)) for head in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    assert np.mean(found.predict(X) != expected.predict(X)) < 0.005


@pytest.mark.parametrize("kind", [LogisticHead, RidgeHead])
def test_features_are_trained_on_in_blocks_with_their_codes_and_photos(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [(image, view) for view in range(VIEWS) for image in range(IMAGES)]
    features: Any = Backbones(tmp_path, 1).features(0, views)
    monkeypatch.setattr(
        "heads.block_head.exceeds", lambda X, *others: not isinstance(X, np.ndarray)
    )
    seen: list[Any] = []
    fit = kind._fit_blocks
    monkeypatch.setattr(
        kind, "_fit_blocks", lambda self, *given: seen.append(given) or fit(self, *given)
    )
    head = kind().fit(features)
    ((blocks, groups),) = seen
    assert np.array_equal(blocks.codes, features.y)
    assert np.array_equal(groups, np.unique(features.ids, return_inverse=True)[1])
    assert head.score(features) >= 0.5
    by_label = kind().fit(features, features.labels)
    assert by_label.classes_.tolist() == ["cat", "dog"]
