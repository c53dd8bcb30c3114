"""The package's own backbone: real transfer to breeds that it never saw, without a network."""

from __future__ import annotations

import hashlib
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import CachedHead, evaluate, make_split
from bench.contenders.colour_histogram import ColourHistogram
from bench.finetune.training import Run
from bench.tools import train_pocket, traits
from featcache import extract, import_keras
from featcache.backbones import pocket
from featcache.backbones.spec import find_backbone
from featcache.datasets import drawn_dogs
from featcache.datasets.drawn.breeds import make_breeds
from featcache.errors import InvalidRequest, WeightsMismatch
from heads.schedule import Schedule


def accuracies(breeds: int, images: int, test_size: float) -> dict[str, float]:
    """Top-1 on drawn breeds of seed 0, none of which pocket was trained on."""
    contenders = {
        "pocket": CachedHead("pocket", "logistic"),
        "random": CachedHead("pocket", "logistic", weights="random"),
        "colours": ColourHistogram(),
    }
    split = make_split(drawn_dogs(breeds, images), test_size)
    return {result.name: result.metrics["top1"] for result in evaluate(contenders, split)}


def test_its_features_beat_random_weights_and_colours_on_breeds_it_never_saw() -> None:
    found = accuracies(10, 20, 0.25)
    assert found["pocket"] > max(found["random"], found["colours"]) + 0.2


@pytest.mark.slow
def test_the_lead_holds_on_twenty_breeds_of_forty_pictures() -> None:
    found = accuracies(20, 40, 0.25)
    assert found["pocket"] > max(found["random"], found["colours"]) + 0.2


def test_no_breed_of_the_sample_was_trained_on() -> None:
    trained = {astuple(breed)[1:] for breed in make_breeds(1500, train_pocket.SEED)}
    assert not trained & {astuple(breed)[1:] for breed in make_breeds(1500, 0)}


def test_the_file_is_the_one_of_the_table_and_small() -> None:
    data = pocket.FILE.read_bytes()
    assert hashlib.sha256(data).hexdigest() == find_backbone("pocket").hash
    assert len(data) < 1.2 * 2**20


def test_it_needs_no_other_weights_and_takes_none_by_a_wrong_name(photos: Path) -> None:
    features = extract("pocket", photos)
    assert features.X.shape == (12, pocket.WIDTH)
    assert "trained on drawn dogs" in features.summary.weights
    random = extract("pocket", photos, weights="random")
    assert random.spec.weights != features.spec.weights
    with pytest.raises(InvalidRequest, match="not trained on ImageNet"):
        extract("pocket", photos, weights="imagenet")
    with pytest.raises(InvalidRequest, match="at least 32"):
        extract("pocket", photos, image_size=16)


def test_a_damaged_or_other_file_is_refused(photos: Path, tmp_path: Path) -> None:
    data = pocket.FILE.read_bytes()
    for name, content in {
        "cut.npz": data[: len(data) // 2],
        "flipped.npz": data[:5000] + bytes([data[5000] ^ 255]) + data[5001:],
        "empty.npz": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsMismatch, match="not a file of pocket's weights"):
            extract("pocket", photos, weights=tmp_path / name)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(WeightsMismatch, match="do not fit pocket"):
        extract("pocket", photos, weights=tmp_path / "other.npz")
    np.savez(tmp_path / "pickled.npz", a=np.array([{}], object))
    with pytest.raises(WeightsMismatch, match="not a file of pocket's weights"):
        extract("pocket", photos, weights=tmp_path / "pickled.npz")


def test_a_file_in_its_place_that_is_not_the_packages_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pocket.npz").write_bytes(b"replaced")
    monkeypatch.setattr("featcache.backbones.weights.POCKET_FILE", tmp_path / "pocket.npz")
    with pytest.raises(WeightsMismatch, match="Install featcache again"):
        extract("pocket", photos)


# Training


def command(tmp_path: Path, *more: str) -> list[str]:
    sizes = ["--breeds", "17", "--images", "3", "--batch-size", "16", "--epochs", "2"]
    return [*sizes, "--out", str(tmp_path / "w.npz"), "--quiet", *more]


def test_training_writes_weights_that_the_backbone_takes(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_pocket.main(command(tmp_path)) == 0
    out = capsys.readouterr().out
    digest = hashlib.sha256((tmp_path / "w.npz").read_bytes()).hexdigest()
    assert digest in out
    assert "2 epochs" in out
    assert extract("pocket", photos, weights=tmp_path / "w.npz").X.shape == (12, 256)
    # Done already: the same run is not done again.
    assert train_pocket.main(command(tmp_path)) == 0
    assert digest in capsys.readouterr().out
    assert train_pocket.main(command(tmp_path, "--seed", "0")) == 2
    assert "must not be trained on" in capsys.readouterr().err


def _run(folder: Path, epochs: int) -> Any:
    schedule = Schedule(epochs, 8, 1e-3, 9, 9, 0.5)
    body, model = train_pocket._network(3, schedule)
    generator = np.random.default_rng(0)
    pixels = generator.uniform(0, 255, (24, 96, 96, 3)).astype("float32")
    breeds = make_breeds(6, 1)
    targets = traits.targets([breed.name for breed in breeds] * 4, breeds)
    run = train_pocket._TraitsRun(model, folder, schedule, 3)
    rows = np.arange(24)
    run.train(lambda chosen, epoch: pixels[chosen], targets, rows[:16], rows[16:], show=False)
    return run, [np.asarray(w).copy() for w in body.weights]


def test_a_resumed_run_takes_up_the_moving_statistics_too(tmp_path: Path) -> None:
    # Batch normalisation moves them without a gradient, so they are no trainable weights.
    run, expected = _run(tmp_path, 1)
    body, model = train_pocket._network(3, run.schedule)
    fresh = [np.asarray(w).copy() for w in body.weights]
    resumed = Run(model, run.folder, run.schedule, 3)
    assert resumed.resumed_at == 1
    moving = [i for i, weight in enumerate(body.weights) if "moving" in weight.path]
    assert moving
    for i, weight in enumerate(body.weights):
        assert np.allclose(weight, expected[i])
    assert all(not np.allclose(fresh[i], expected[i]) for i in moving)


def test_the_losses_of_keras_and_of_arrays_agree() -> None:
    keras = import_keras()
    breeds = make_breeds(9, 2)
    truth = traits.targets([breed.name for breed in breeds], breeds)
    assert truth.shape == (9, len(traits.MEASURES) + len(traits.KINDS))
    prediction = np.random.default_rng(0).normal(size=(9, traits.WIDTH)).astype(np.float32)
    loss, accuracy = traits.loss_and_accuracy(truth, prediction)
    assert float(np.mean(traits.keras_loss(keras)(truth, prediction))) == pytest.approx(
        loss, rel=1e-4
    )
    ours = float(np.mean(np.asarray(traits.keras_accuracy(keras)(truth, prediction))))
    assert ours == pytest.approx(accuracy)
