"""Steps on the rows of features: what scikit-learn gives, fitted on the rows at hand alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.preprocessing import Normalizer, StandardScaler

import heads
from featcache import Features, ImportedModel, concat, import_features
from featcache.errors import InvalidRequest
from featcache.extraction.derived.spec import DerivedSpec
from featcache.extraction.derived.steps import RowStep
from featcache.store.store import Store
from made_features import Backbones, expected
from stores import SPEC

PLAIN = [(image, 0) for image in range(8)]
BOTH_VIEWS = [(image, view) for view in range(2) for image in range(8)]


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Backbones:
    return Backbones(tmp_path_factory.mktemp("stores"), count=2)


@pytest.fixture
def features(backbones: Backbones) -> Features:
    return backbones.features(0, PLAIN)


def imported(X: np.ndarray[Any, Any], name: str = "mine") -> Features:
    ids = [f"{i:064x}" for i in range(len(X))]
    return import_features(X, ids, ImportedModel(name, "1"), labels=[i % 2 for i in range(len(X))])


def close(features: Features, values: Any, tolerance: float = 1e-5) -> bool:
    return np.allclose(np.asarray(features.X), values, rtol=tolerance, atol=tolerance)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 30), st.integers(1, 12), st.integers(0, 99), st.sampled_from([1e-6, 1.0, 1e6])
)
def test_steps_give_what_scikit_learn_gives(
    tmp_path_factory: pytest.TempPathFactory, count: int, width: int, seed: int, unit: float
) -> None:
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(width, width)) * generator.uniform(0.3, 3, width)
    X = ((generator.normal(size=(count, width)) @ mixed + 5) * unit).astype(np.float32)
    store = Store.create(tmp_path_factory.mktemp("s") / "store", SPEC, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATCACHE_CACHE", str(store.folder.parent / "cache"))
        patch.setattr("featcache.extraction.derived.rows._BLOCK_BYTES", 7 * 4 * width)
        features = imported(X)
        exact = X.astype(np.float64)
        assert close(features.l2(), Normalizer().fit_transform(exact))
        assert close(features.standardize(), StandardScaler().fit_transform(exact), 1e-3)
        most = min(count, width)
        fitted = features.pca(most)
        reference = PCA(most, svd_solver="full").fit(exact)
        strong = reference.singular_values_ > 1e-2 * reference.singular_values_[0]
        found = np.asarray(fitted.X)[:, strong] / unit
        assert np.allclose(found, reference.transform(exact)[:, strong] / unit, atol=1e-3)
        axes = fitted.steps[0].arrays["components"]
        assert np.allclose(axes @ axes.T, np.eye(most), atol=1e-5)


def test_a_large_mean_costs_no_digits() -> None:
    noise = np.random.default_rng(0).normal(size=(500, 3))
    X = (noise + 1e3).astype(np.float32)
    scaled = np.asarray(imported(X).standardize().X)
    assert np.allclose(scaled, StandardScaler().fit_transform(X.astype(np.float64)), atol=1e-4)


def test_rows_of_zeros_and_constant_columns_stay_finite() -> None:
    X = np.zeros((4, 3), np.float32)
    X[1:, 0], X[:, 2] = 2, 1e30
    features = imported(X)
    assert np.array_equal(np.asarray(features[:1].l2().X), [[0, 0, 1]])
    assert np.array_equal(np.asarray(imported(X[:, :2], "zeros").l2().X), X[:, :2] / 2)
    scaled = np.asarray(features.standardize().X)
    assert np.array_equal(scaled[:, 1:], np.zeros((4, 2)))
    assert np.allclose(scaled[:, 0], StandardScaler().fit_transform(X[:, :1])[:, 0])
    tiny = np.array([[1e-45], [0]], np.float32)  # its deviation is 0 in float32
    assert np.isfinite(np.asarray(imported(tiny, "tiny").standardize().X)).all()


def test_steps_are_recorded_and_change_the_key(features: Features) -> None:
    assert features.steps == ()
    changed = features.l2().standardize().pca(2)
    assert [str(step) for step in changed.steps] == ["l2", "standardize", "pca(2)"]
    assert changed.X.shape == (8, 2)
    assert repr(changed) == "<Features 8 x 2 of b0/pool > l2 > standardize > pca(2), 2 classes>"
    assert changed.spec == features.l2().standardize().pca(2).spec
    keys = {f.spec.key for f in (features, features.l2(), changed, features[:6].standardize())}
    assert len(keys) == 4
    assert changed.stored_bytes == features.stored_bytes
    assert len({changed.steps[0], features.l2().steps[0]}) == 1
    assert features.steps != changed.steps
    assert changed.steps[0] != "l2"


def test_no_row_is_read_for_l2_until_it_is_used(
    features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_to_read(*_: Any) -> Any:
        raise AssertionError("rows were read")

    monkeypatch.setattr(Store, "read", refuse_to_read)
    assert features.l2()[2:4].X.shape == (2, 3)
    assert features.l2().transformed_like(features.l2()).X.shape == (8, 3)


def test_a_test_part_takes_the_steps_of_the_training_part(features: Features) -> None:
    train, test = features[:6], features[6:]
    fitted = train.standardize().pca(2)
    X = [np.asarray(part.X, np.float64) for part in (train, test)]
    scaler = StandardScaler().fit(X[0])
    pca = PCA(2).fit(scaler.transform(X[0]))
    found = test.transformed_like(fitted)
    assert close(found, pca.transform(scaler.transform(X[1])), 1e-4)
    assert found.spec == fitted.spec
    assert found.transformed_like(fitted).spec == fitted.spec
    early = features.l2()
    again = early[6:].transformed_like(early[:6].standardize())
    assert [str(step) for step in again.steps] == ["l2", "standardize"]


def test_other_features_and_other_steps_are_refused(
    backbones: Backbones, features: Features
) -> None:
    other = backbones.features(1, PLAIN)
    with pytest.raises(InvalidRequest, match=r"same backbones and settings, not b1/pool and b0"):
        other.transformed_like(features.l2())
    for changed in (features.standardize(), features.l2().l2()):
        with pytest.raises(InvalidRequest, match="other steps"):
            changed.transformed_like(features[:6].standardize())


@pytest.mark.parametrize("n_components", [0, 4, -1, 2.0, True, None, "2"])
def test_impossible_numbers_of_components_are_refused(
    features: Features, n_components: Any
) -> None:
    with pytest.raises(InvalidRequest, match="whole number from 1 to 3, the smaller of 8 rows and"):
        features.pca(n_components)
    with pytest.raises(InvalidRequest, match="to 2, the smaller of 2 rows and 3 columns"):
        features[:2].pca(3)


def test_steps_that_cannot_be_fitted_are_refused(
    features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidRequest, match="needs at least one row"):
        features[[]].standardize()
    assert features.pca(np.int64(2)).X.shape == (8, 2)
    monkeypatch.setattr("featcache.extraction.derived.fit._MAX_VALUES", 8)
    with pytest.raises(InvalidRequest, match=r"Fit it on at most 2 rows, .*transformed_like"):
        features.pca(2)
    changed = features
    for _ in range(64):
        changed = changed.l2()
    with pytest.raises(InvalidRequest, match="at most 64 steps"):
        changed.l2()


def test_steps_before_and_after_joining(backbones: Backbones, features: Features) -> None:
    other = backbones.features(1, PLAIN)
    joined = concat([features.l2(), other.pca(2)])
    first, second = (expected((b,), PLAIN) for b in (0, 1))
    parts = [Normalizer().fit_transform(first), PCA(2).fit_transform(second)]
    assert close(joined, np.hstack(parts))
    both = joined.standardize()
    assert close(both, StandardScaler().fit_transform(np.hstack(parts)), 1e-4)
    assert both.origin == "b0/pool + b1/pool > l2[0:3] > pca(2)[3:7] > standardize"
    assert isinstance(both.spec, DerivedSpec)
    raw = concat([features, other])
    assert raw.transformed_like(both).spec == both.spec
    assert close(raw.transformed_like(both), np.asarray(both.X))
    assert both.arguments == raw.arguments
    assert concat([features, features.l2()]).X.shape == (8, 6)


def test_means_of_views_before_and_after_a_step(backbones: Backbones) -> None:
    several = backbones.features(0, BOTH_VIEWS)
    rows = [expected((0,), [(i, v) for i in range(8)]) for v in range(2)]
    lengths = [Normalizer().fit_transform(one) for one in rows]
    assert close(several.mean_views().l2(), Normalizer().fit_transform(np.mean(rows, axis=0)))
    assert close(several.l2().mean_views(), np.mean(lengths, axis=0))
    mean = concat([several.l2(), backbones.features(1, BOTH_VIEWS)]).mean_views()
    assert close(mean[3:], np.hstack([
        np.mean(lengths, axis=0), np.mean([expected((1,), [(i, v) for i in range(8)])
                                           for v in range(2)], axis=0)])[3:])  # fmt: skip
    assert repr(several.l2().mean_views().X) == "<MeanRows 8 x 3 float32>"


def test_means_of_means_are_those_of_the_rows(backbones: Backbones) -> None:
    X = backbones.features(0, BOTH_VIEWS).l2().X
    once = X.mean_of(np.array([[0, 8], [1, -1]]))
    twice = once.mean_of(np.array([[0, 1]]))
    rows = np.asarray(X)
    assert np.allclose(np.asarray(twice), [(rows[[0, 8]].mean(axis=0) + rows[1]) / 2], atol=1e-6)


def test_blocks_are_bounded_by_the_rows_before_the_step(
    features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, read = list[int](), Store.read

    def counted(store: Store, ids: Any) -> Any:
        sizes.append(len(ids))
        return read(store, ids)

    reduced = features.pca(1)
    monkeypatch.setattr("featcache.extraction.derived.rows._BLOCK_BYTES", 2 * 4 * 3)
    monkeypatch.setattr(Store, "read", counted)
    np.asarray(reduced.X)
    assert sizes == [2, 2, 2, 2]


def test_heads_train_on_transformed_features(features: Features, tmp_path: Path) -> None:
    changed = features.standardize().pca(2)
    head = heads.LogisticHead(C=1.0).fit(changed)
    assert head.n_features_in_ == 2
    assert head.score(features.transformed_like(changed)) == head.score(changed)
    (file,) = changed.export(tmp_path / "rows.npz")
    with np.load(file) as arrays:
        assert np.array_equal(arrays["X"], np.asarray(changed.X))


VALID = {
    "standardize": {"mean": np.zeros(2, np.float32), "scale": np.ones(2, np.float32)},
    "pca": {"mean": np.zeros(2, np.float32), "components": np.eye(2, dtype=np.float32)},
    "l2": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "changes", "message"),
    [
        ("l2", {"name": "cube"}, "none of l2, standardize, pca"),
        ("l2", {"start": 1.0}, "not whole numbers"),
        ("l2", {"start": -1}, "takes 2 columns from -1 on"),
        ("l2", {"width": 0}, "takes 0 columns"),
        ("l2", {"arrays": VALID["pca"]}, r"\['components', 'mean'\], not \[\]"),
        ("pca", {"arrays": {**VALID["pca"], "mean": np.zeros(3, np.float32)}}, "width 3, not 2"),
        ("pca", {"arrays": {**VALID["pca"], "mean": np.zeros(2)}}, "float64"),
        ("pca", {"arrays": {**VALID["pca"], "mean": np.eye(2, dtype=np.float32)}}, "shape"),
        ("pca", {"arrays": {**VALID["pca"], "components": np.empty((0, 2), np.float32)}}, "shape"),
        ("pca", {"arrays": {**VALID["pca"], "mean": np.full(2, np.nan, np.float32)}}, "finite"),
        ("standardize", {"arrays": {**VALID["standardize"], "scale": np.zeros(2, np.float32)}},
         "not positive"),
    ],
)  # fmt: skip
def test_malformed_steps_are_refused(step: Any, changes: dict[str, Any], message: str) -> None:
    valid = RowStep(step, 0, 2, VALID[step])
    with pytest.raises(InvalidRequest, match=message):
        replace(valid, **changes)


def test_a_step_on_columns_that_do_not_exist_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"Step 1 \(l2\) takes the columns 4 to 5, .* 5 there"):
        DerivedSpec((SPEC,), (5,), (RowStep("l2", 4, 2),))
