"""The reference task by name: what it takes, both splits, resumable, with its caution."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import archives
from bench.__main__ import main
from bench.estimate import Estimate, describe
from bench.evaluation.results import OVERLAP
from bench.presets import COMPARISONS, PRESETS, find_preset
from featcache.backbones.spec import find_backbone
from featcache.datasets import fetch
from featcache.errors import InvalidRequest


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    source = archives.write(tmp_path / "archives", archives.stanford_files(10))
    return fetch("stanford-dogs", source=source, any_hash=True)


def test_the_reference_task_is_the_one_of_the_article() -> None:
    preset = find_preset("stanford-dogs", COMPARISONS)
    assert preset.backbones == ("vgg19", "resnet50", "inception_resnet_v2")
    assert preset.heads == ("logistic", "svm", "lightgbm", "dense", "knn")
    assert preset.finetune == ("resnet50-40", "inception_resnet_v2-80")
    assert preset.splits == {"official": None, "90-10": 0.1}
    assert all(find_backbone(name) for p in COMPARISONS.values() for name in p.backbones)
    assert all(name in PRESETS for p in COMPARISONS.values() for name in p.finetune)
    with pytest.raises(InvalidRequest, match="oxford-pets"):
        find_preset("cats", COMPARISONS)


def test_a_preset_needs_its_data(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--preset", "stanford-dogs", "--out", str(tmp_path / "out")]) == 2
    assert "featcache fetch stanford-dogs" in capsys.readouterr().err


def test_a_preset_runs_on_both_splits_and_goes_on_where_it_was(
    dogs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--preset", "stanford-dogs", "--backbones", "mobilenet", "--heads", "logistic",
        "--finetune", "mobilenet:0.3", "--epochs", "1", "--image-size", "32", "--weights",
        "random", "--report", str(tmp_path / "out"), "--quiet",
    ]  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "Estimates, from a measured batch" in out
    assert "features of 33 images by mobilenet" in out
    assert "1 epoch of mobilenet from 0.3: at most" in out
    assert ", 2 times" in out
    assert "split official" in out
    assert "split random 0.1, seed 0" in out
    # Those of the head, and the outputs of the frozen part for the views of the training photos.
    computed = [int(n) for n in re.findall(r"(\d+) embeddings were computed now", out)]
    assert computed[0] > 33
    assert OVERLAP not in out  # random weights have seen no photo
    for split in ("official", "90-10"):
        page = (tmp_path / "out" / split / "report.html").read_text("utf-8")
        assert "Standard poodle" in page
    assert main(command) == 0
    again = capsys.readouterr().out
    assert "features of 0 images" in again
    assert again.count("No embedding was computed") == 2


@pytest.mark.slow
def test_trained_weights_bring_the_caution_into_table_and_report(
    dogs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras

    model = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3))
    model.save_weights(tmp_path / "mine.weights.h5")
    command = [
        "--preset", "stanford-dogs", "--backbones", "mobilenet", "--heads", "logistic",
        "--image-size", "32", "--weights", str(tmp_path / "mine.weights.h5"), "--test-size", "0.3",
        "--report", str(tmp_path / "out"), "--quiet",
    ]  # fmt: skip
    arguments = [*command, "--finetune", "mobilenet:0.1", "--epochs", "1"]
    assert main(arguments) == 0
    assert f"Caution: {OVERLAP}" in capsys.readouterr().out
    assert OVERLAP in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_an_estimate_alone_computes_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--data", str(photos), "--backbones", "mobilenet", "--heads", "logistic,svm", "--weights",
        "random", "--image-size", "32", "--out", str(tmp_path / "out"), "--quiet", "--estimate",
    ]  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.count("features of 12 images by mobilenet") == 1  # two heads share them
    assert not list((tmp_path / "out").iterdir())


def test_too_little_room_is_said_loudly(tmp_path: Path) -> None:
    text = describe([Estimate("all there is", 1.0, 10**18)], tmp_path / "not" / "yet")
    assert "NOT ENOUGH DISK SPACE" in text
    assert "NOT ENOUGH DISK SPACE" not in describe([Estimate("little", 1.0, 10)], tmp_path)
