"""What a comparison will take is printed before it begins, with what is stored already."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.__main__ import main
from bench.contenders.measure import Estimate
from bench.estimate import describe
from conftest import make_tiny_model, photo


@pytest.fixture
def many(tmp_path: Path) -> Path:
    root = tmp_path / "many"
    for i in range(104):
        photo(root / ("cat" if i % 2 else "dog") / f"{i:03d}.png", i)
    return root


@pytest.fixture
def own(tmp_path: Path) -> str:
    make_tiny_model().save(tmp_path / "own.keras")
    return str(tmp_path / "own.keras")


def test_an_estimate_comes_before_the_work_and_tells_what_is_stored(
    many: Path, own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--data", str(many), "--backbones", own, "--backbones", f"{own}@layer=conv", "--heads",
        "logistic,svm", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.startswith("Estimates, from a measured batch of each kind of work:")
    assert out.index("Total: about") < out.index("top-1")
    assert out.count("features of 104 images by own: about") == 2
    assert "\n    for own + logistic, own + svm\n" in out
    assert "\n    for own@layer=conv + logistic, own@layer=conv + svm\n" in out
    photo(many / "cat" / "new.png", 500)
    assert main([*command, "--estimate"]) == 0
    assert "features of 1 image by own: about" in (out := capsys.readouterr().out)
    assert "GB (104 stored already)" in out
    assert main(command) == 0
    capsys.readouterr()
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "features of 0 images by own: about 0 s, 0.00 GB (105 stored already)" in out
    assert "Total: nothing to compute: all is stored" in out


def test_little_work_and_quiet_commands_have_no_estimate(
    many: Path, photos: Path, own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--backbones", own, "--heads", "logistic", "--out", str(tmp_path / "out")]
    assert main([*command, "--data", str(photos)]) == 0
    assert main([*command, "--data", str(many), "--quiet"]) == 0
    assert "Estimates" not in capsys.readouterr().out


def test_an_estimate_counts_the_runs_that_were_trained_before(
    photos: Path, own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--data", str(photos), "--backbones", own, "--heads", "logistic", "--finetune",
        f"{own}:conv@epochs=2", "--out", str(tmp_path / "out"), "--quiet",
    ]  # fmt: skip
    assert main([*command, "--seeds", "3", "--estimate"]) == 0
    out = capsys.readouterr().out
    assert "2 epochs of own from conv: at most" in out
    assert ", 3 times, " in out
    assert "    for own:conv@epochs=2 fine-tuned" in out
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--seeds", "3", "--estimate"]) == 0
    out = capsys.readouterr().out
    assert ", 2 times, " in out
    assert "(1 other run trained already)" in out
    assert main([*command, "--estimate"]) == 0
    assert "training: done in an earlier run\n    for own:conv@epochs=2 fine" in (
        capsys.readouterr().out
    )
    assert main([*command, "--seed", "7", "--estimate"]) == 0
    assert "2 epochs of own from conv: at most" in capsys.readouterr().out


def test_only_training_is_repeated(tmp_path: Path) -> None:
    features = Estimate("features", 60.0, 10, contenders=("a", "b"), times=3)
    training = Estimate("training", 60.0, 10, at_most=True, times=3, trained=1)
    text = describe([features, training], tmp_path)
    assert "  features: about 60 s, 0.00 GB\n    for a, b\n" in text
    assert "  training: at most 60 s, 3 times, 0.00 GB (1 other run trained already)\n" in text
    assert "Total: about 4 min" in text


def test_work_that_contenders_share_in_part_is_counted_once(
    photos: Path, own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--data", str(photos), "--backbones", own, "--backbones", f"{own}@layer=conv",
        "--backbones", f"{own}+{own}@layer=conv", "--heads", "logistic", "--tta", "--views", "3",
        "--finetune", f"{own}:conv@epochs=2,views=2", "--test-size", "0.25", "--out",
        str(tmp_path / "out"), "--quiet", "--estimate", "--seeds", "2",
    ]  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr().out
    # Of two backbones: the images, the views of 8 training images, 4 test images mirrored; and
    # of the boundary of the fine-tune, which reads no mirror images.
    assert out.count("features of 12 images by own: about") == 3
    assert out.count("features of 16 augmented views by own: about") == 2
    assert out.count("features of 4 mirror images by own: about") == 2
    assert out.count("features of 8 augmented views by own: about") == 1
    assert out.count("2 epochs of own from conv: at most") == 1
    assert out.count("features of") == 8
