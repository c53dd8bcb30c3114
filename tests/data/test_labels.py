"""Labels keep their type and their order, from the data set to the bundle and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import heads
from bench.analysis.summary import summarise
from bench.evaluation.evaluate import evaluate
from bench.report.report import write_report
from bench.splits import make_split
from featcache import Dataset, extract, load_bundle, load_dataset, make_bundle
from featcache.errors import DatasetError, InvalidRequest


@pytest.fixture
def files(photos: Path) -> list[str]:
    return load_dataset(photos).paths


def frame(files: list[str], **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"path": files, **columns})


@pytest.mark.parametrize("form", ["frame", "list", "array", "series", "csv"])
def test_integer_labels_are_their_own_codes(
    files: list[str], tiny_model: Any, tmp_path: Path, form: str
) -> None:
    codes = np.arange(12) % 12  # as text, 10 and 11 would stand before 2
    if form == "frame":
        features = extract(tiny_model, frame(files, label=codes))
    elif form == "csv":
        frame(files, label=codes).to_csv(tmp_path / "t.csv", index=False)
        features = extract(tiny_model, tmp_path / "t.csv")
    else:
        labels = {"list": codes.tolist(), "array": codes, "series": pd.Series(codes)}[form]
        features = extract(tiny_model, files, labels=labels)
    assert features.y is not None
    assert features.y.dtype == np.int64
    assert features.y.tolist() == codes.tolist()
    assert features.classes == list(range(12))
    assert np.asarray(features.labels).dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([True, False] * 6, [False, True]),
        ([2.5, -1.0] * 6, [-1.0, 2.5]),
        ([np.int64(10), np.int64(9)] * 6, [9, 10]),
        (["10", "9"] * 6, ["10", "9"]),
        ([-1, 0, 1] * 4, [-1, 0, 1]),
    ],
)
def test_classes_are_the_labels_in_their_natural_order(
    files: list[str], labels: list[Any], classes: list[Any]
) -> None:
    dataset = load_dataset(files, labels=labels)
    assert dataset.classes == classes
    assert [type(c) for c in dataset.classes or []] == [type(c) for c in classes]


def test_a_categorical_gives_its_own_codes_unused_categories_included(
    files: list[str], tiny_model: Any
) -> None:
    sizes = pd.Categorical(["small", "large"] * 6, categories=["small", "medium", "large"])
    for data, labels in ((frame(files, label=sizes), None), (files, sizes)):
        features = extract(tiny_model, data, labels=labels)
        assert features.classes == ["small", "medium", "large"]
        assert features.y is not None
        assert features.y.tolist() == sizes.codes.tolist()
        assert features.split(0.5)[0].classes == features.classes


@pytest.mark.parametrize("missing", [[], [None]])
@pytest.mark.parametrize("values", [("small", "medium", "large"), (3, 1, 2)])
def test_a_frame_of_features_has_the_categorical_again(
    files: list[str], tiny_model: Any, values: tuple[Any, ...], missing: list[None]
) -> None:
    labels = [*missing, *[values[0], values[2]] * 6][:12]
    sizes = pd.Series(pd.Categorical(labels, categories=values))
    features = extract(tiny_model, files, labels=sizes)
    pd.testing.assert_series_equal(features.to_frame()["label"], sizes, check_names=False)
    assert features[:3].to_frame()["label"].cat.categories.tolist() == list(values)
    plain = extract(tiny_model, files, labels=labels).to_frame()["label"]
    assert not isinstance(plain.dtype, pd.CategoricalDtype)


def test_categories_stay_in_a_part_of_a_data_set(files: list[str]) -> None:
    sizes = pd.Categorical([2, 1] * 6, categories=[2, 1, 3])
    assert load_dataset(files, labels=sizes).take([1]).classes == [2, 1, 3]
    with pytest.raises(DatasetError, match="also have 'x'"):
        Dataset(["a"], ["x"], categories=["y"])
    with pytest.raises(DatasetError, match="every label, but 'y' is repeated"):
        Dataset(["a"], ["y"], categories=["y", "y"])
    with pytest.raises(DatasetError, match="but one of them is missing"):
        Dataset(["a"], ["y"], categories=["y", None])
    with pytest.raises(DatasetError, match=r"but the labels are of another type \(bool\)"):
        Dataset(["a"], [True], categories=[0, 1])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, "a"], r"several types: 1 \(int\), 'a' \(str\)"),
        ([True, 1], "several types"),
        ([np.eye(2)[0], np.eye(2)[1]], "row 1 is a ndarray.*argmax"),
        (np.eye(2), "row 1 is a list.*argmax"),
        ([pd.Timestamp(0), pd.Timestamp(1)], "row 1 is Timestamp"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: list[Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        Dataset(["a", "b"], labels)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, "", " "], ids=repr)
def test_a_missing_path_names_its_row(files: list[str], missing: Any) -> None:
    with pytest.raises(DatasetError, match="the path of row 2 is empty"):
        load_dataset(pd.DataFrame({"path": [files[0], missing]}))
    with pytest.raises(DatasetError, match="the path of row 2 is empty"):
        load_dataset([files[0], missing])


def test_a_path_that_is_a_number_is_refused(files: list[str]) -> None:
    with pytest.raises(DatasetError, match="row 2 is 7, which is not a path"):
        load_dataset([files[0], 7])


def test_a_bundle_and_a_report_keep_the_labels(
    files: list[str], tiny_model: Any, tmp_path: Path
) -> None:
    labels = [10, 9, 2] * 4
    features = extract(tiny_model, files, labels=labels)
    head = heads.make_head("logistic").fit(features.X, features.y)
    make_bundle(features, head).save(tmp_path / "b.featcache")
    bundle = load_bundle(tmp_path / "b.featcache")
    assert list(bundle.classes) == [2, 9, 10]
    predicted = [p.top_classes[0][0] for p in bundle.predict(files, backbone=tiny_model)]
    assert {type(g) for g in predicted} == {int}
    assert predicted == [features.classes[i] for i in head.predict(features.X)]  # type: ignore[index]


@pytest.mark.parametrize("classes", [["a", "b"], [1, 0], [True, False], [0.5, 1.0]], ids=repr)
def test_a_bundle_file_keeps_the_type_of_its_classes(
    files: list[str], tiny_model: Any, tmp_path: Path, classes: list[Any]
) -> None:
    features = extract(tiny_model, files, labels=["a", "b"] * 6)
    head = heads.make_head("logistic").fit(features.X, features.y)
    make_bundle(features, head, classes=classes).save(tmp_path / "b.featcache")
    read = list(load_bundle(tmp_path / "b.featcache").classes)
    assert read == classes
    assert [type(c) for c in read] == [type(c) for c in classes]
    with pytest.raises(InvalidRequest, match="has the label None"):
        make_bundle(features, head, classes=[None, "b"])


def test_results_hold_integer_classes(files: list[str], tmp_path: Path) -> None:
    from bench.contenders.colour_histogram import ColourHistogram

    split = make_split(load_dataset(files, labels=[10, 9] * 6), 0.5)
    results = evaluate({"colours": ColourHistogram()}, split)
    results.save(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["classes"] == [9, 10]
    page = write_report(summarise([results]), tmp_path).read_text("utf-8")
    assert all(f">{name}<" in page.replace(" ", "").replace("\n", "") for name in (9, 10))


def test_a_test_size_of_nothing_is_refused_by_both(files: list[str], tiny_model: Any) -> None:
    dataset = load_dataset(files, labels=["a", "b"] * 6)
    features = extract(tiny_model, dataset)
    for size in (0, 0.0, 1, True, "0.2", float("nan")):
        with pytest.raises(InvalidRequest, match="between 0 and 1"):
            features.split(size)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="between 0 and 1"):
            make_split(dataset, size)  # type: ignore[arg-type]


def test_validation_rows_in_the_training_part_are_told(
    files: list[str], tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    parts = ["train", "validation", "test", "train"] * 3
    dataset = load_dataset(frame(files, label=["a", "b"] * 6, split=parts))
    features = extract(tiny_model, dataset)
    train, _ = features.split()
    assert "the data set's validation part (3 images) is in the training part" in caplog.text
    caplog.clear()
    split = make_split(dataset)
    assert "validation" in split.name
    assert len(split.train) == len(train) == 9
    assert "validation part" in caplog.text
    validation = features[np.array(features.parts) == "validation"]
    assert len(validation) == 3


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([Path("cat"), "dog"], ["cat", "dog"]),
        ([1, 2.0, None], [1, 2, None]),
        ([1, 2.5], [1.0, 2.5]),
        ([1.0, 2.0], [1.0, 2.0]),
    ],
    ids=repr,
)
def test_paths_become_text_and_integral_floats_among_integers_become_integers(
    given: list[Any], kept: list[Any]
) -> None:
    found = list(Dataset(["a.png", "b.png", "c.png"][: len(given)], labels=given).labels or [])
    assert [(type(one), one) for one in found] == [(type(one), one) for one in kept]
