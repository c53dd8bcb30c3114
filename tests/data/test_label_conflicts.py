"""One photo under two labels is reported, refused or accepted, as the caller chooses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from featcache import extract, load_dataset
from featcache.cli.main import main
from featcache.errors import ConflictingLabels, DatasetError, InvalidRequest


@pytest.fixture
def files(photos: Path) -> list[str]:
    return load_dataset(photos).paths


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
