"""A missing label is no class: its image is kept, and no head is trained or scored on it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import heads
from bench.splits import load_split, make_split
from featcache import Dataset, extract, load_dataset
from featcache.errors import DatasetError


@pytest.fixture
def files(photos: Path) -> list[str]:
    return load_dataset(photos).paths


def frame(files: list[str], **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"path": files, **columns})


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT, "", " "], ids=repr)
def test_a_missing_label_is_no_class_and_its_image_is_kept(
    files: list[str], tiny_model: Any, missing: Any
) -> None:
    features = extract(tiny_model, files, labels=["a", "b"] * 5 + [missing, "a"])
    assert features.classes == ["a", "b"]
    assert len(features) == 12
    assert features.labels is not None
    assert features.labels[10] is None
    assert features.y is not None
    assert np.flatnonzero(np.isnan(features.y)).tolist() == [10]
    assert features.summary.unlabelled == 1
    assert "1 unlabelled" in str(features.summary)
    assert features[features.is_labelled].y.dtype == np.int64  # type: ignore[union-attr]


def test_whole_numbers_beside_missing_ones_stay_whole(files: list[str]) -> None:
    column = pd.Series([3, 11] * 5 + [None, 3])
    assert column.dtype == float
    assert load_dataset(frame(files, label=column)).classes == [3, 11]
    assert load_dataset(frame(files, label=column.astype("Int64"))).classes == [3, 11]


@pytest.mark.parametrize("missing", [[], [None]])
def test_the_type_of_labels_does_not_depend_on_missing_ones(
    tmp_path: Path, missing: list[None]
) -> None:
    def types(labels: Any) -> set[type]:
        dataset = Dataset(["a.png"] * len(labels), labels)
        return {type(label) for label in dataset.labels or []} - {type(None)}

    for values, of_column in (([0.0, 1.0], int), ([0.5, 1.0], float)):
        labels = [*values, *missing]
        assert types(labels) == {float}
        assert types(pd.Series(labels)) == types(pd.Series(labels, dtype="Float64")) == {of_column}
        assert types(np.array(labels, float)) == {of_column}
        assert types(pd.Categorical(labels)) == {of_column}
        pd.DataFrame({"path": "a.png", "label": labels}).to_csv(tmp_path / "t.csv", index=False)
        assert types(load_dataset(tmp_path / "t.csv").labels) == {of_column}


def test_floats_stay_floats_in_a_part_of_a_data_set() -> None:
    dataset = Dataset(["a", "b", "c"], np.array([0.5, 1.0, np.nan]))
    assert [type(v) for v in dataset.take([1, 2]).labels or []] == [float, type(None)]
    sizes = pd.Categorical([1.0, 1.0], categories=[0.5, 1.0])
    assert Dataset(["a", "b"], sizes).classes == [0.5, 1.0]


def test_labels_of_blanks_are_missing_everywhere(files: list[str], tmp_path: Path) -> None:
    labels = ["a", " ", "\t", "b"] * 3
    assert load_dataset(files, labels=labels).unlabelled == 6
    assert load_dataset(frame(files, label=labels)).unlabelled == 6
    frame(files, label=labels).to_csv(tmp_path / "t.csv", index=False)
    assert load_dataset(tmp_path / "t.csv").unlabelled == 6


@pytest.mark.parametrize("missing", [None, "", " ", np.nan, pd.NA], ids=repr)
def test_heads_know_what_a_missing_label_is(missing: Any) -> None:
    X = np.random.default_rng(0).normal(size=(12, 4))
    labels = ["a", "b"] * 5 + [missing] * 2
    for y in (labels, np.array(labels, object), pd.Series(labels)):
        assert heads.make_head("logistic").fit(X, y).classes_.tolist() == ["a", "b"]
    if isinstance(missing, str):
        assert heads.make_head("logistic").fit(X, np.array(labels)).classes_.tolist() == ["a", "b"]


def test_a_table_without_any_label_has_none(files: list[str], tiny_model: Any) -> None:
    dataset = load_dataset(frame(files, label=[None] * 12))
    assert (dataset.labels, dataset.classes) == (None, None)


@pytest.mark.parametrize("head", ["logistic", "svm"])
def test_heads_leave_unlabelled_rows_out_and_say_so(
    files: list[str], tiny_model: Any, head: str, caplog: pytest.LogCaptureFixture
) -> None:
    features = extract(tiny_model, files, labels=[4, 7] * 5 + [None, None])
    for y, classes in ((features.y, [0, 1]), (features.labels, [4, 7])):
        caplog.clear()
        trained = heads.make_head(head).fit(features.X, y)
        assert trained.classes_.tolist() == classes
        assert "Unlabelled rows are left out: 2 of 12" in caplog.text
    clean = heads.make_head(head).fit(features[:10].X, features[:10].y)
    again = heads.make_head(head).fit(features.X, features.y)
    assert np.allclose(clean.predict_proba(features.X), again.predict_proba(features.X))


def test_a_scikit_learn_estimator_never_trains_on_a_missing_label(
    files: list[str], tiny_model: Any
) -> None:
    from sklearn.linear_model import LogisticRegression

    features = extract(tiny_model, files, labels=["a", "b"] * 5 + [None, "a"])
    with pytest.raises(ValueError, match="NaN"):
        LogisticRegression().fit(features.X, features.y)


def test_a_search_leaves_unlabelled_rows_out(
    files: list[str], tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    features = extract(tiny_model, files, labels=["a", "b"] * 5 + [None, None])
    found = heads.search("logistic", features, param_grid={"C": [0.1]}, cv=2)
    assert "Unlabelled rows are left out: 2 of 12" in caplog.text
    assert "nan" not in str(vars(found)).lower()


def test_a_split_leaves_unlabelled_rows_out_of_both_parts(
    files: list[str], tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    features = extract(tiny_model, files, labels=["a", "b"] * 5 + [None, None])
    train, test = features.split(0.3)
    assert sorted([*train.paths, *test.paths]) == sorted(files[:10])
    assert "2 unlabelled images are left out of both parts" in caplog.text


def test_a_benchmark_scores_labelled_images_alone(
    files: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = load_dataset(files, labels=[0, 1] * 5 + [None, None])
    split = make_split(dataset, 0.3)
    assert sorted([*split.train, *split.test]) == list(range(10))
    assert "2 unlabelled images" in caplog.text
    assert split.codes(split.test).dtype == np.int64
    split.save(tmp_path / "split.json")
    assert load_split(tmp_path / "split.json", dataset).test.tolist() == split.test.tolist()
    fewer = load_dataset(files, labels=[None, *dataset.labels[1:]])  # type: ignore[index]
    with pytest.raises(DatasetError, match="1 of its images"):
        load_split(tmp_path / "split.json", fewer)


def test_unlabelled_rows_and_contradictions_are_in_the_log(
    files: list[str], tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    extract(tiny_model, files, labels=["a"] * 11 + [None])
    assert any(
        r.levelno == logging.WARNING and "1 unlabelled" in r.getMessage() for r in caplog.records
    )
