"""Differences to an earlier run: what is shown, what is warned of, which files are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.earlier import (
    comparison_record,
    describe_differences,
    differences,
    mismatches,
    read_earlier_run,
)
from featcache.errors import InvalidRequest
from made_up import small_results


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    small_results().save(tmp_path)
    return tmp_path / "results.json"


def changed(file: Path, **fields: Any) -> Path:
    record = json.loads(file.read_text())
    record.update(fields)
    record = {name: value for name, value in record.items() if value is not ...}
    file.write_text(json.dumps(record))
    return file


def test_a_run_does_not_differ_from_itself(saved: Path) -> None:
    now, earlier = small_results(), read_earlier_run(saved)
    assert mismatches(now, earlier) == []
    found = differences(now, earlier)
    assert len(found) == len(now.results[0].metrics)
    assert all(d.difference == 0 for d in found)


def test_the_difference_is_now_minus_earlier(saved: Path) -> None:
    record = json.loads(saved.read_text())
    record["contenders"][0]["top1"] = 0.25
    record["contenders"].append({**record["contenders"][0], "contender": "gone"})
    saved.write_text(json.dumps(record))
    now, earlier = small_results(), read_earlier_run(saved)
    top1 = next(d for d in differences(now, earlier) if d.metric == "top1")
    assert (top1.now, top1.earlier, top1.difference) == (0.5, 0.25, 0.25)
    assert comparison_record(now, earlier)["missing"] == ["gone"]
    assert "c: +0.2500, was 0.2500" in describe_differences(now, earlier)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dataset": "cats"}, "the data set 'cats'"),
        ({"classes": ["a"]}, "had 1 class."),
        ({"test_ids_sha256": "0" * 64}, "other test images"),
        ({"test_ids_sha256": ..., "split": "random 0.2, seed 0"}, "the split 'random 0.2, seed 0'"),
        ({"contenders": [{"contender": "c", "top1": 0.5}]}, "lacks calibration_error, log_loss"),
        ({"contenders": [{"contender": "d"}]}, "no contender of the same name"),
    ],
)
def test_what_is_not_the_same_is_said(saved: Path, fields: dict[str, Any], words: str) -> None:
    found = mismatches(small_results(), read_earlier_run(changed(saved, **fields)))
    assert words in " ".join(found)


def test_an_earlier_file_without_a_digest_is_compared_by_its_split(saved: Path) -> None:
    assert mismatches(small_results(), read_earlier_run(changed(saved, test_ids_sha256=...))) == []


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{}", "[" * 100_000, '{"contenders": []}', "\xff", "1" * 5000,
        '{"contenders": [{"contender": "c", "top1": NaN}]}',
        '{"contenders": [{"contender": "c", "top1": "0.5"}]}',
        '{"contenders": [{"contender": "c", "top1": true}]}',
        '{"contenders": [{"contender": "c", "top1": 1' + "0" * 400 + "}]}",
        '{"contenders": [{"contender": "c"}, {"contender": "c"}]}',
        '{"contenders": [{"contender": 5}]}', '{"contenders": [5]}',
        '{"contenders": [{"contender": "' + "c" * 2000 + '"}]}',
        '{"contenders": [{"contender": "c"}], "dataset": "x", "split": "s", "test_images": 4}',
        '{"contenders": [{"contender": "c"}], "dataset": "x", "split": "s", "test_images": true}',
    ],
)  # fmt: skip
def test_another_file_is_refused_in_one_sentence_of_reason(tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.json"
    file.write_bytes(text.encode("latin-1"))
    message = r"is not the result of an earlier run: .* Give the results.json"
    with pytest.raises(InvalidRequest, match=message):
        read_earlier_run(file)


def test_a_file_that_is_missing_large_or_no_file_is_refused(
    tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing.json", "", "pipe"):
        with pytest.raises(InvalidRequest, match="not a regular file"):
            read_earlier_run(tmp_path / name)
    monkeypatch.setattr("bench.analysis.earlier.MOST_BYTES", 2**20)
    with open(saved, "ab") as file:
        file.write(b" " * 2**20)
    with pytest.raises(InvalidRequest, match="larger than 1 MiB"):
        read_earlier_run(saved)


def test_hostile_names_of_the_earlier_run_cannot_control_a_terminal(saved: Path) -> None:
    earlier = read_earlier_run(changed(saved, dataset="\x1b[31m", split="\x07"))
    text = describe_differences(small_results(), earlier)
    assert "\x1b" not in text
    assert "\x07" not in text
