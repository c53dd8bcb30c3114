"""predictions.csv: every test image of every contender, safe for a spreadsheet."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.contenders.base import ContenderInfo
from bench.evaluation.predictions import file_name, prediction_records, top_classes
from bench.evaluation.results import Result, digest_of_test_ids
from bench.splits import Split
from made_up import TRUTH, small_results


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_test_image_has_a_row_that_agrees_with_the_metrics(tmp_path: Path) -> None:
    found = small_results()
    found.save(tmp_path)
    rows = rows_of(tmp_path)
    assert [row["file"] for row in rows] == ["cat/1.jpg", "ox/2.jpg", "'=dog/3.jpg", "cat/4.jpg"]
    correct = [row["correct"] == "True" for row in rows]
    assert np.mean(correct) == found.results[0].metrics["top1"]
    assert [float(row["truth_probability"]) for row in rows] == [0.7, 0.2, 0.6, 0.1]
    assert rows[1]["prediction_1"] == "cat"
    assert rows[1]["prediction_3"] == "ox"
    assert "prediction_4" not in rows[1]


def test_a_spreadsheet_runs_no_class_and_no_file_name(tmp_path: Path) -> None:
    small_results(first="=1+1.jpg").save(tmp_path)
    cells = [cell for row in rows_of(tmp_path) for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert "'=dog" in cells


def test_boxes_and_names_of_bytes_are_written(tmp_path: Path) -> None:
    box = (1, 2, 30, 40)
    small_results(first="caf\udce9.jpg", boxes=[None, box, box, None, box, box]).save(tmp_path)
    rows = rows_of(tmp_path)
    assert rows[0]["file"] == r"caf\xe9.jpg"
    assert [row["box"] for row in rows] == ["1 2 30 40", "", "1 2 30 40", "1 2 30 40"]


def test_a_file_outside_of_the_folder_keeps_its_path() -> None:
    dataset: Any = SimpleNamespace(paths=["/photos-2/a.jpg", "/photos/b.jpg"], root="/photos")
    assert [file_name(dataset, i) for i in range(2)] == ["/photos-2/a.jpg", "b.jpg"]


def test_the_first_of_equal_classes_is_the_prediction() -> None:
    proba = np.full((1, 7), 1 / 7)
    assert top_classes(proba).tolist() == [[0, 1, 2, 3, 4]]


def test_five_of_many_classes_are_written() -> None:
    found = small_results()
    proba = np.tile(np.arange(9.0) / 36, (4, 1))
    wide = Result("c", TRUTH, proba, np.arange(2, 6), found.results[0].cost, ContenderInfo())
    many: Any = SimpleNamespace(
        classes=list("abcdefghi"), dataset=found.split.dataset, example_ids=found.split.example_ids
    )
    record = next(prediction_records(wide, many))
    assert [record[f"prediction_{i}"] for i in range(1, 6)] == list("ihgfe")
    assert "prediction_6" not in record
    assert record["probability_1"] == pytest.approx(8 / 36, abs=1e-6)


def test_the_digest_of_the_test_part_depends_on_its_images_alone() -> None:
    split = small_results().split
    other = Split(split.dataset, split.ids, split.train, split.test[::-1].copy(), "reversed")
    fewer = Split(split.dataset, split.ids, split.train, split.test[1:], "fewer")
    assert digest_of_test_ids(split) == digest_of_test_ids(other)
    assert digest_of_test_ids(split) != digest_of_test_ids(fewer)
