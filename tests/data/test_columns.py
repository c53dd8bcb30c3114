"""Columns of tables have the type of what they hold, and no value is changed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featcache import extract, load_dataset
from featcache.data.columns import column_array, label_values, text_column, text_of
from featcache.errors import DatasetError


@pytest.fixture
def files(photos: Path) -> list[str]:
    return load_dataset(photos).paths


def frame(files: list[str], **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"path": files, **columns})


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
    with pytest.raises(DatasetError, match=r"Row 2 .* is not a box"):
        load_dataset(table, crop="box")
