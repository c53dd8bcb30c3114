"""Labels and columns keep their type, missing ones are no class, contradictions are reported."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import heads
from bench.analysis.summary import summarise
from bench.evaluation.evaluate import evaluate
from bench.report.report import write_report
from bench.splits import load_split, make_split
from featcache import Dataset, Features, extract, load_bundle, load_dataset, make_bundle
from featcache.cli.main import main
from featcache.data.columns import column_array, label_values, text_column, text_of
from featcache.errors import ConflictingLabels, DatasetError, InvalidRequest


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
        ([pd.Timestamp(0), pd.Timestamp(1)], "row 1 is Timestamp"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels: list[Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        Dataset(["a", "b"], labels)


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


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, "", " "], ids=repr)
def test_a_missing_path_names_its_row(files: list[str], missing: Any) -> None:
    with pytest.raises(DatasetError, match="the path of row 2 is empty"):
        load_dataset(pd.DataFrame({"path": [files[0], missing]}))
    with pytest.raises(DatasetError, match="the path of row 2 is empty"):
        load_dataset([files[0], missing])


def test_a_path_that_is_a_number_is_refused(files: list[str]) -> None:
    with pytest.raises(DatasetError, match="row 2 is 7, which is no path"):
        load_dataset([files[0], 7])


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


def test_one_photo_under_two_labels_is_reported(
    photos: Path, tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(photos / "cat" / "00.png", photos / "dog" / "copy.png")
    features = extract(tiny_model, photos)
    (conflict,) = features.summary.conflicts
    assert conflict["labels"] == ["cat", "dog"]
    assert [Path(p).name for p in conflict["paths"]] == ["00.png", "copy.png"]
    assert "1 image occurs under several labels" in caplog.text
    caplog.clear()
    assert len(extract(tiny_model, photos, on_conflict="keep").summary.conflicts) == 1
    assert "several labels" not in caplog.text.replace("under several labels)", "")
    with pytest.raises(ConflictingLabels, match=r"'cat' and .*'dog'") as caught:
        extract(tiny_model, photos, on_conflict="error")
    assert caught.value.conflicts == [conflict]
    with pytest.raises(InvalidRequest, match="on_conflict='drop' is not known"):
        extract(tiny_model, photos, on_conflict="drop")  # type: ignore[arg-type]


def test_a_conflict_stops_before_anything_is_computed(photos: Path, tiny_model: Any) -> None:
    from featcache import explain

    shutil.copy(photos / "cat" / "00.png", photos / "dog" / "copy.png")
    with pytest.raises(DatasetError):
        extract(tiny_model, photos, on_conflict="error")
    assert not explain(tiny_model, photos).exists


def test_two_boxes_and_unlabelled_copies_are_no_conflict(files: list[str], tiny_model: Any) -> None:
    edges = {"left": [0, 5], "top": [0, 0], "right": [5, 15], "bottom": [9, 9]}
    table = pd.DataFrame({"path": [files[0]] * 2, "label": ["a", "b"], **edges})
    assert not extract(tiny_model, table, crop="box").summary.conflicts
    assert not extract(tiny_model, [files[0]] * 2, labels=["a", None]).summary.conflicts


def test_the_command_line_lists_conflicts_and_takes_the_choice(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(photos / "cat" / "00.png", photos / "dog" / "copy.png")
    command = ["extract", "mobilenet", str(photos), "--weights", "random", "--image-size", "32"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["conflicts"][0]["labels"] == ["cat", "dog"]
    assert main([*command, "--on-conflict", "error"]) == 2


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["0", "10", "9"], [0, 10, 9]),
        (["007", "1"], ["007", "1"]),
        (["1.10", "1.1"], ["1.10", "1.1"]),
        (["0.5", "1.0"], [0.5, 1.0]),
        (["True", "False"], [True, False]),
        (["true", "FALSE", "True", ""], [True, False, True, None]),
        (["0.5", "1"], [0.5, 1.0]),
        (["1.0", "2.0", ""], [1, 2, None]),
        (["1.0", "2.0"], [1, 2]),
        (["0.5", "1", "1.0"], ["0.5", "1", "1.0"]),
        (["1234567890123456780", "18446744073709551615"], [1234567890123456780, 2**64 - 1]),
        (["1", "NA", ""], [1, None, None]),
        (["a", " ", "b"], ["a", None, "b"]),
        (["1", "a"], ["1", "a"]),
        (["1" * 30, "2"], ["1" * 30, "2"]),
        (["-0", "1"], ["-0", "1"]),
    ],
)
def test_labels_of_a_csv_file_become_numbers_only_if_none_is_lost(
    cells: list[str], labels: list[Any]
) -> None:
    found = label_values(cells)
    assert found == labels
    assert [type(v) for v in found] == [type(v) for v in labels]


@pytest.mark.parametrize(
    "cells",
    [
        ["1", "2"], ["1", ""], ["0.5", "1e3"], ["-1.5", "NaN"], ["True", "False"],
        ["true", "FALSE"], ["a", "b"], ["a", ""], ["", ""], ["1", "x"], ["True", ""],
        ["12345678901234567"], ["1234567890123456780", "1234567890123456781"],
        ["18446744073709551615", "1"], ["true", ""], ["+1", "2"],
    ],
)  # fmt: skip
def test_columns_of_a_csv_file_have_the_type_that_pandas_gives_them(
    tmp_path: Path, cells: list[str]
) -> None:
    with open(tmp_path / "t.csv", "w", newline="") as file:
        csv.writer(file).writerows([["c", "d"], *([cell, "x"] for cell in cells)])
    expected = pd.read_csv(tmp_path / "t.csv")["c"]
    found = text_column(cells)
    if expected.dtype.kind in "iufb":
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected.to_numpy(), equal_nan=expected.dtype.kind == "f")
    else:
        assert found.dtype == object
        assert [v is None for v in found] == expected.isna().tolist()


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1234567890123456780", "1234567890123456781", ""],
         [1234567890123456780, 1234567890123456781, None]),
        (["18446744073709551615", "-1"], [2**64 - 1, -1]),
        (["True", "", "FALSE"], [True, None, False]),
        (["36893488147419103233", "1"], ["36893488147419103233", "1"]),
        (["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),
        (["1" * 5000], ["1" * 5000]),
    ],
)  # fmt: skip
def test_columns_of_a_csv_file_that_no_numeric_type_holds_keep_their_values(
    cells: list[str], values: list[Any]
) -> None:
    found = text_column(cells)
    assert found.dtype == object
    assert found.tolist() == values
    assert [type(v) for v in found] == [type(v) for v in values]


def test_whole_numbers_of_a_data_frame_are_exact() -> None:
    large = [2**53, 2**53 + 1]
    assert column_array(pd.array([*large, None], "Int64")).tolist() == [*large, None]
    assert column_array(pd.array(large, "Int64")).dtype == np.int64
    assert column_array([2**64 - 1, 1]).dtype == np.uint64
    assert column_array([2**64, 1]).tolist() == [2**64, 1]
    assert column_array([2**53 + 1, 0.5]).tolist() == [2**53 + 1, 0.5]
    assert column_array([10**400, None]).tolist() == [10**400, None]


def test_numbers_with_leading_zeros_are_names() -> None:
    assert text_column(["007", "010"]).tolist() == ["007", "010"]


@pytest.mark.parametrize("form", ["frame", "csv"])
def test_columns_keep_their_dtype_up_to_the_features(
    files: list[str], tiny_model: Any, tmp_path: Path, form: str
) -> None:
    table = frame(
        files, label=["a", "b"] * 6, fold=np.arange(12) % 4, age=[0.5, np.nan] * 6,
        held_out=[True, False] * 6, camera=["x", None] * 6,
    )  # fmt: skip
    if form == "csv":
        table.to_csv(tmp_path / "t.csv", index=False)
        features = extract(tiny_model, tmp_path / "t.csv")
    else:
        features = extract(tiny_model, table)
    kinds = {name: values.dtype.kind for name, values in features.attributes.items()}
    assert kinds == {"fold": "i", "age": "f", "held_out": "b", "camera": "O"}
    train = features[features.attributes["fold"] != 0]
    assert len(train) == 9  # as text, every row would differ from the number
    assert 0 not in train.attributes["fold"]
    assert features.to_frame()["fold"].dtype == np.int64


def test_columns_of_objects_get_the_type_of_what_they_hold() -> None:
    assert column_array(pd.array([1, None], "Int64")).dtype == np.float64
    assert column_array([True, None]).tolist() == [True, None]
    assert column_array([1, "1"]).tolist() == [1, "1"]
    assert column_array([(1, 2), (3, 4)]).shape == (2,)
    assert column_array(pd.Series(pd.to_datetime(["2020-01-01"]))).dtype.kind == "M"
    assert text_of(np.array(["a", None], object)) == ["a", ""]


def test_boxes_are_read_from_numbers_and_from_text(files: list[str]) -> None:
    edges = {"left": [1.4, 0.0], "top": [0, 0], "right": [9, 9], "bottom": [9, 9]}
    table = pd.DataFrame({"path": files[:2], **edges})
    assert load_dataset(table, crop="box").boxes == [(1, 0, 9, 9), (0, 0, 9, 9)]
    assert load_dataset(table.astype(str), crop="box").boxes == [(1, 0, 9, 9), (0, 0, 9, 9)]
    table.loc[1, "right"] = np.nan
    with pytest.raises(DatasetError, match=r"Row 2 .* is no box"):
        load_dataset(table, crop="box")


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


@pytest.mark.parametrize("rows", [[0, 3], np.arange(12) < 5, slice(2, 4), 7, pd.Series([1, 2]), []])
def test_features_are_chosen_by_index_as_arrays_are(
    files: list[str], tiny_model: Any, rows: Any
) -> None:
    features = extract(tiny_model, files, labels=list(range(12)))
    chosen = features[rows]
    expected = np.atleast_1d(np.arange(12)[rows if len(np.shape(rows)) != 1 or len(rows) else []])
    if isinstance(rows, pd.Series):
        expected = rows.to_numpy()
    assert isinstance(chosen, Features)
    assert chosen.labels == expected.astype(int).tolist()
    with pytest.raises(IndexError):
        features[np.ones(5, bool)]


def test_stored_rows_take_part_in_arithmetic_and_numpys_functions(
    files: list[str], tiny_model: Any
) -> None:
    X = extract(tiny_model, files).X
    whole = np.asarray(X)
    for got, expected in (
        (X.mean(axis=0), whole.mean(axis=0)), (X - X.mean(0), whole - whole.mean(0)),
        (2 * X, 2 * whole), (np.sqrt(X * X), np.abs(whole)), (np.mean(X, axis=1), whole.mean(1)),
        (np.linalg.norm(X, axis=1), np.linalg.norm(whole, axis=1)), (X.T, whole.T),
        (np.concatenate([X, X]), np.concatenate([whole, whole])), (X @ X.T, whole @ whole.T),
        (X > 0.5, whole > 0.5), (np.maximum(0, X), np.maximum(0, whole)), (X.std(), whole.std()),
        (pd.DataFrame(X).to_numpy(), whole), (np.add.reduce(X), whole.sum(0)), (-X, -whole),
    ):  # fmt: skip
        assert np.allclose(got, expected)
    assert X.size == whole.size
    with pytest.raises(AttributeError):
        X.sort()
    with pytest.raises(TypeError, match="cannot be written"):
        np.add(X, 1, out=X)


def test_representations_are_short_and_escaped(files: list[str], tiny_model: Any) -> None:
    labels = [f"<b>{i}</b>" * 200 for i in range(12)]
    dataset = load_dataset(frame(files, label=labels, note=["x"] * 12))
    features = extract(tiny_model, dataset)
    for shown in (repr(dataset), dataset._repr_html_(), features._repr_html_()):
        assert len(shown) < 2000
        assert "12" in shown
    for html in (dataset._repr_html_(), features._repr_html_()):
        assert "<b>" not in html
        assert html.startswith("<table>")
    assert "note (object)" in repr(dataset)


def test_unlabelled_rows_and_contradictions_are_in_the_log(
    files: list[str], tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    extract(tiny_model, files, labels=["a"] * 11 + [None])
    assert any(
        r.levelno == logging.WARNING and "1 unlabelled" in r.getMessage() for r in caplog.records
    )
