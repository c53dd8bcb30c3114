"""Groups of rows: never both trained on and held out, wherever a head holds rows out itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.base import clone

from contracts import blobs
from featcache import Augmentation, extract
from featcache.errors import InvalidRequest
from heads import HEADS, DenseHead, LightGBMHead, LogisticHead, make_head, search
from heads.calibration import choose_temperature
from heads.groups import group_codes, needed_groups
from heads.held_out import held_out_folds, held_out_part
from heads.strength import HeldOutScores, _is_better, _Trial
from heads.weights import merge_copies

POLICY = Augmentation(rotation=0.1, zoom=0.2)
SMALL: dict[str, dict[str, Any]] = {
    "dense": {"units": 8, "epochs": 3}, "lightgbm": {"n_estimators": 8},
}  # fmt: skip


def near_copies(photos: int, copies: int, seed: int = 0) -> Any:
    """Rows of overlapping classes, several nearly equal ones per photo; and rows of new photos."""
    X, y = blobs(3, 400, 20, spread=0.5, seed=seed)
    generator = np.random.default_rng(seed)
    rows = np.repeat(X[:photos], copies, axis=0)
    rows = rows * (1 + 0.02 * generator.normal(size=rows.shape)).astype("f4")
    groups = np.repeat([f"photo {i}" for i in range(photos)], copies)
    order = generator.permutation(len(rows))
    train = rows[order], np.repeat(y[:photos], copies)[order], groups[order]
    return train, (X[photos:], y[photos:])


@st.composite
def grouped_rows(draw: Any, mixed: bool = True) -> tuple[Any, Any]:
    """Class codes and group numbers of rows, both without gaps; some groups have two classes."""
    n_classes = draw(st.integers(2, 4))
    sizes = draw(st.lists(st.integers(1, 6), min_size=n_classes, max_size=40))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    codes = groups % n_classes
    if mixed:
        changed = draw(st.lists(st.integers(0, len(groups) - 1), max_size=6))
        codes[changed] = (codes[changed] + 1) % n_classes
    codes = np.unique(codes, return_inverse=True)[1]
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(groups))
    return codes[order], groups[order]


def groups_of(codes: Any, groups: Any) -> Any:
    """Number of groups with rows of each class."""
    pairs = {(int(code), int(group)) for code, group in zip(codes, groups, strict=True)}
    return np.bincount([code for code, _ in pairs], minlength=codes.max() + 1)


class TestSplits:
    @settings(max_examples=200, deadline=None)
    @given(data=grouped_rows(), folds=st.integers(2, 5), seed=st.integers(0, 9))
    def test_no_group_is_in_both_parts_and_training_has_every_class(
        self, data: Any, folds: int, seed: int
    ) -> None:
        codes, groups = data
        parts = held_out_folds(codes, folds, seed, groups)
        held_out = np.concatenate([*parts, np.arange(0)])
        assert len(set(held_out)) == len(held_out)
        for part in [*parts, held_out_part(codes, 0.3, seed, groups, min_per_class=2)]:
            rest = np.setdiff1d(np.arange(len(codes)), part)
            assert not set(groups[part]) & set(groups[rest])
            assert set(codes[rest]) == set(codes)

    @settings(max_examples=200, deadline=None)
    @given(data=grouped_rows(mixed=False), folds=st.integers(2, 5), seed=st.integers(0, 9))
    def test_folds_hold_as_many_groups_of_a_class_and_about_as_many_rows(
        self, data: Any, folds: int, seed: int
    ) -> None:
        codes, groups = data
        parts = held_out_folds(codes, folds, seed, groups)
        for code, count in enumerate(groups_of(codes, groups)):
            own = [part[codes[part] == code] for part in parts]
            n_groups = [len(set(groups[part])) for part in own]
            n_rows = [len(part) for part in own]
            if count >= folds:
                assert n_groups == [count // folds] * folds
                assert max(n_rows) - min(n_rows) <= np.bincount(groups[codes == code]).max()
            else:
                assert sum(n_groups) == (count if count > 1 else 0)
                assert max(n_groups, default=0) <= 1

    @settings(max_examples=200, deadline=None)
    @given(
        per_class=st.lists(st.integers(2, 40), min_size=2, max_size=5),
        size=st.integers(1, 5),
        fraction=st.floats(0.05, 0.5),
        seed=st.integers(0, 9),
    )
    def test_a_part_of_equal_groups_is_stratified_and_of_the_asked_size(
        self, per_class: list[int], size: int, fraction: float, seed: int
    ) -> None:
        class_of = np.repeat(np.arange(len(per_class)), per_class)
        groups = np.repeat(np.arange(len(class_of)), size)
        codes = class_of[groups]
        part = held_out_part(codes, fraction, seed, groups, min_per_class=2)
        if round(fraction * len(class_of)) < len(per_class):
            assert not len(part)
            return
        assert abs(len(part) - fraction * len(codes)) <= size
        for code, count in enumerate(per_class):
            held_out = len(set(groups[part][codes[part] == code]))
            assert abs(held_out - fraction * count) <= 1

    def test_one_large_group_is_not_most_of_the_part(self) -> None:
        sizes = np.tile([400, *[4] * 19], 2)
        groups = np.repeat(np.arange(40), sizes)
        codes = np.repeat([0, 1], 476)
        for seed in range(20):
            part = held_out_part(codes, 0.1, seed, groups, min_per_class=2)
            assert len(set(groups[part])) == 4
            assert len(part) == 16

    def test_groups_of_two_classes_are_held_out_where_other_groups_have_both(self) -> None:
        codes, groups = np.array([0, 0, 1, 1, 1, 0]), np.array([0, 0, 0, 1, 1, 1])
        assert [part.tolist() for part in held_out_folds(codes, 3, 0, groups)] == [
            [0, 1, 2],
            [3, 4, 5],
        ]
        alone = np.array([0, 0, 2, 1, 1, 1])
        assert held_out_folds(alone, 3, 0, groups) == []

    def test_a_class_of_few_groups_holds_nothing_out(self) -> None:
        codes = np.repeat([0, 1], 40)
        one = np.where(codes == 0, 0, 1 + np.arange(80))
        assert not len(held_out_part(codes, 0.2, 0, np.unique(one, return_inverse=True)[1],
                                     min_per_class=2))  # fmt: skip
        assert held_out_folds(codes, 3, 0, codes) == []


class TestLabels:
    def test_any_hashable_label_will_do(self) -> None:
        for labels in (
            ["b", "a", "b"], np.array(["b", "a", "b"]), np.array([2, 1, 2]), [("p", 2), ("p", 1),
            ("p", 2)], np.array([[2], [1], [2]]),
        ):  # fmt: skip
            codes = group_codes(labels, 3)
            assert codes is not None
            assert codes.tolist() == [1, 0, 1]
        mixed = group_codes(["1", 1, "1", None, float("nan")], 5)
        assert mixed is not None
        assert mixed.tolist() == [0, 1, 0, 2, 2]
        missing = group_codes([None, "b", "a", ""], 4)
        assert missing is not None
        assert missing.tolist() == [2, 1, 0, 2]

    @pytest.mark.parametrize(
        ("groups", "message"),
        [
            (["a"] * 5, "groups has 5 entries, but there are 12 rows; give one per row"),
            ("photo", "groups has 1 entry, but there are 12 rows; give one per row"),
            ([["a"]] * 12, "labels that are not hashable .*'list'.*give one string, number"),
        ],
    )
    @pytest.mark.parametrize("labelled", [True, False])
    def test_others_are_refused_in_one_sentence(
        self, groups: Any, message: str, labelled: bool
    ) -> None:
        X, y = blobs(3, 4, 6)
        labels = y if labelled else [None, *y[1:].tolist()]
        with pytest.raises(InvalidRequest, match=message):
            LogisticHead().fit(X, labels, groups=groups)

    def test_as_many_groups_as_labelled_rows_are_too_few(self) -> None:
        X, y = blobs(3, 4, 6)
        with pytest.raises(InvalidRequest, match="groups has 11 entries, but there are 12 rows"):
            LogisticHead().fit(X, [None, *y[1:].tolist()], groups=range(11))


class TestCopies:
    def test_groups_with_copies_of_one_row_become_one_group(self) -> None:
        X = np.array([[1.0], [1.0], [2.0], [3.0], [3.0], [4.0]], np.float32)
        codes, groups = np.array([0, 0, 0, 1, 0, 1]), np.array([0, 1, 1, 2, 3, 3])
        rows, kept, _, united = merge_copies(X, codes, None, groups)
        assert united is not None
        of = {
            (float(row[0]), int(code)): int(group)
            for row, code, group in zip(rows, kept, united, strict=True)
        }
        assert of[1, 0] == of[2, 0]
        assert len(set(of.values())) == 3  # equal rows of different classes are not merged

    @settings(max_examples=15, deadline=None)
    @given(times=st.lists(st.integers(1, 3), min_size=24, max_size=24), seed=st.integers(0, 99))
    def test_a_weight_of_k_is_k_copies_with_groups_too(self, times: list[int], seed: int) -> None:
        X, y = blobs(3, 8, 10, spread=1, seed=seed)
        groups = np.random.default_rng(seed).integers(0, 10, 24)
        order = np.random.default_rng(seed).permutation(sum(times))
        weighted = LogisticHead().fit(X, y, times, groups)
        copied = LogisticHead().fit(
            *(np.repeat(values, times, axis=0)[order] for values in (X, y)),
            groups=np.repeat(groups, times)[order],
        )
        if max(times) > 1:
            assert np.array_equal(weighted.predict_proba(X), copied.predict_proba(X))


@pytest.mark.parametrize("name", list(HEADS))
def test_groups_of_one_row_change_nothing(name: str) -> None:
    X, y = blobs(3, 30, 12, spread=0.8)
    plain, grouped = (
        make_head(name, **SMALL.get(name, {})).fit(X, y, groups=groups).predict_proba(X)
        for groups in (None, [f"photo {i}" for i in range(len(y))])
    )
    assert np.array_equal(plain, grouped)
    assert needed_groups(np.arange(5)) is None


def log_loss_at(head: Any, temperature: float, X: Any, y: Any) -> float:
    logs = log_softmax(head._scores(X).astype(np.float64) / temperature, axis=1)
    return float(-logs[np.arange(len(y)), y].mean())


@pytest.mark.parametrize("name", ["logistic", "svm"])
def test_near_copies_in_both_parts_make_a_temperature_too_low(name: str) -> None:
    (X, y, groups), (U, v) = near_copies(90, 12)
    head = make_head(name, C=0.03)
    ignored, respected = clone(head).fit(X, y), clone(head).fit(X, y, groups=groups)
    best = min(np.geomspace(0.1, 20, 60), key=lambda t: log_loss_at(respected, t, U, v))
    lowest, with_groups, without = (
        log_loss_at(respected, t, U, v)
        for t in (best, respected.temperature_, ignored.temperature_)
    )
    assert ignored.temperature_ < best / 3
    assert without > lowest + 0.5
    assert with_groups < lowest + 0.06


def test_early_stopping_of_trees_does_not_see_other_views(monkeypatch: pytest.MonkeyPatch) -> None:
    (X, y, groups), (U, v) = near_copies(240, 6)
    seen: list[tuple[Any, Any]] = []
    boost = LightGBMHead._boost

    def spy(self: Any, reduced: Any, codes: Any, weights: Any, *rows: Any) -> Any:
        seen.append(rows[:2])
        return boost(self, reduced, codes, weights, *rows)

    monkeypatch.setattr(LightGBMHead, "_boost", spy)
    head = LightGBMHead(n_estimators=150, learning_rate=0.3, reg_lambda=0)
    ignored, respected = clone(head).fit(X, y), clone(head).fit(X, y, groups=groups)
    train, stop_early = seen[1]
    assert len(stop_early) == 144
    assert not set(groups[train]) & set(groups[stop_early])
    assert respected.best_iteration_ < ignored.best_iteration_ / 2
    losses = [log_loss_at(h, h.temperature_, U, v) for h in (ignored, respected)]
    assert losses[1] < losses[0] - 0.1
    # 24 photos are too few for the temperature, which three more trainings then determine.
    assert len(seen) == 5
    assert not set(groups[seen[2][0]]) >= set(groups)


def test_early_stopping_of_a_network_does_not_see_other_views() -> None:
    (X, y, groups), (U, v) = near_copies(240, 6)
    head = DenseHead(units=32, epochs=25, learning_rate=0.01, patience=4, validation_fraction=0.3)
    ignored, respected = clone(head).fit(X, y), clone(head).fit(X, y, groups=groups)
    codes = group_codes(groups, len(y))
    train, held_out = respected._parts(y, codes)
    assert not set(groups[train]) & set(groups[held_out])
    assert len(held_out) == 432
    true_loss = log_loss_at(respected, 1, U, v)
    assert min(ignored.history_["val_loss"]) < true_loss / 2
    assert min(respected.history_["val_loss"]) > true_loss / 1.4
    assert len(respected.history_["loss"]) < len(ignored.history_["loss"])


def test_held_out_rows_of_few_groups_do_not_determine_a_temperature() -> None:
    codes, groups = np.repeat([0, 1], 120), np.repeat(np.arange(24), 10)
    logits = np.random.default_rng(0).normal(size=(240, 2)) + np.eye(2)[codes]
    scored: list[Any] = []

    def scores_of(train: Any, rows: Any) -> Any:
        assert not set(groups[train]) & set(groups[rows])
        scored.append(rows)
        return logits[rows]

    def choose(groups: Any) -> float:
        return choose_temperature(
            codes, np.arange(0, 240, 4), lambda rows: logits[rows], scores_of, groups=groups
        )

    choose(groups)
    assert sorted(np.concatenate(scored).tolist()) == list(range(240))
    scored.clear()
    choose(None)
    assert not scored


def test_the_gain_of_another_c_counts_groups_not_rows() -> None:
    groups = np.repeat(np.arange(12), 30)
    gains = np.tile([1.3, -0.7], 6)[groups]

    def trial(losses: Any, groups: Any) -> Any:
        held_out = HeldOutScores(np.zeros((360, 2), np.float32), groups, None, groups)
        return _Trial(1.0, held_out, losses, np.zeros(1, np.float32))

    other = np.ones(360)
    independent = [trial(losses, np.arange(360)) for losses in (other - gains, other)]
    grouped = [trial(losses, groups) for losses in (other - gains, other)]
    assert _is_better(*independent)
    assert not _is_better(*grouped)


class TestFeatures:
    @pytest.fixture
    def features(self, photos: Path, tiny_model: Any) -> Any:
        return extract(tiny_model, photos, views=3, augmentation=POLICY)

    @pytest.mark.parametrize("name", list(HEADS))
    def test_they_are_their_rows_codes_and_image_ids(self, features: Any, name: str) -> None:
        head = make_head(name, **SMALL.get(name, {}))
        X = np.asarray(features.X)
        by_features = clone(head).fit(features)
        by_arrays = clone(head).fit(X, features.y, groups=features.ids)
        assert by_features.classes_.tolist() == [0, 1]
        assert np.array_equal(by_features.predict_proba(X), by_arrays.predict_proba(X))
        assert by_features.score(features) == by_arrays.score(X, features.y)
        assert by_arrays.score(features) == by_features.score(features)
        by_labels = clone(head).fit(features, features.labels)
        assert by_labels.classes_.tolist() == ["cat", "dog"]
        assert by_labels.score(features, features.labels) == by_features.score(features)

    def test_all_views_of_a_photo_are_held_out_together(
        self, features: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = record_folds(monkeypatch)
        LogisticHead().fit(features)
        groups, parts = seen[0]
        assert len(set(groups)) == 12
        assert [len(part) for part in parts] == [12, 12, 12]
        LogisticHead().fit(features, groups=range(len(features)))
        assert seen[1][0] is None

    def test_a_search_holds_them_out_together_in_every_fit(
        self, features: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = record_folds(monkeypatch)
        found = search("logistic", features, param_grid={"C": ["auto"]}, cv=3, n_jobs=1)
        assert [len(set(groups)) for groups, _ in seen] == [8, 8, 8, 12]
        assert found.best_estimator_ is not None
        assert found.best_estimator_.score(features) == LogisticHead().fit(features).score(features)

    def test_unlabelled_rows_are_left_out_with_their_groups(
        self, features: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = record_folds(monkeypatch)
        known = features.positions != 3
        some = replace(features, y=np.where(known, features.y.astype(float), np.nan))
        head, clean = LogisticHead().fit(some), LogisticHead().fit(features[known])
        assert np.array_equal(head.coef_, clean.coef_)
        assert head.temperature_ == clean.temperature_
        assert head.score(some) == clean.score(features[known])
        search("logistic", some, param_grid={"C": ["auto"]}, cv=3, n_jobs=1)
        assert all(len(set(groups)) <= 11 for groups, _ in seen)
        assert len(set(seen[-1][0])) == 11

    def test_codes_of_other_classes_have_no_score(self, features: Any) -> None:
        other = replace(features, classes=["dog", "pug"])
        with pytest.raises(
            InvalidRequest,
            match=r"of the classes 'dog', 'pug', but the head was trained on 'cat', 'dog'\. Train",
        ):
            LogisticHead().fit(features).score(other)
        with pytest.raises(InvalidRequest, match="but the head was trained on 'cat', 'dog'"):
            LogisticHead().fit(features, features.labels).score(features)
        years = LogisticHead().fit(features.X, features.y + 2019, groups=features.ids)
        with pytest.raises(InvalidRequest, match="but the head was trained on 2019, 2020"):
            years.score(features)

    def test_without_labels_they_are_refused(self, photos: Path, tiny_model: Any) -> None:
        bare = extract(tiny_model, photos / "cat")
        with pytest.raises(InvalidRequest, match="y is None: give one label per row"):
            LogisticHead().fit(bare)


def record_folds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Record the groups and the folds of each fit of a linear head."""
    seen: list[tuple[Any, Any]] = []

    def spy(codes: Any, folds: int, random_state: int = 0, groups: Any = None) -> Any:
        parts = held_out_folds(codes, folds, random_state, groups)
        seen.append((groups, parts))
        return parts

    monkeypatch.setattr("heads.linear.held_out_folds", spy)
    return seen
