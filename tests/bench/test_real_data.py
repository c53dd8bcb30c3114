"""Real photos and real weights: the figures that a newcomer may expect."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import featcache
from bench import CachedHead, evaluate, make_split
from featcache import load_dataset
from featcache.backbones.model import Backbone

WEIGHTS = "weights/mobilenet_v2_imagenet.weights.h5"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real-cache")


@pytest.fixture
def options(test_data: Path, cache: Path) -> dict[str, Any]:
    return {"weights": test_data / WEIGHTS, "cache_dir": cache}


def test_heads_reach_the_reference_accuracy_and_a_second_run_computes_nothing(
    test_data: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_split(load_dataset(test_data / "caltech24" / "split.csv"))
    assert (len(split.train), len(split.test)) == (707, 232)
    names = ("logistic", "svm", "lightgbm")
    results = evaluate({n: CachedHead("mobilenet_v2", n, **options) for n in names}, split)
    top1 = {result.name: result.metrics["top1"] for result in results}
    assert top1["logistic"] >= 0.93
    assert top1["svm"] >= 0.91
    assert top1["lightgbm"] >= 0.88
    monkeypatch.setattr(Backbone, "embed", lambda *_: pytest.fail("a stored image was computed"))
    again = evaluate({"logistic": CachedHead("mobilenet_v2", "logistic", **options)}, split)
    assert np.array_equal(again["logistic"].proba, results["logistic"].proba)


def test_rows_equal_keras_on_real_photos_and_weights(
    test_data: Path, options: dict[str, Any]
) -> None:
    import keras

    files = sorted((test_data / "caltech24").glob("*/image_0001.jpg"))
    features = featcache.extract("mobilenet_v2", files, **options)
    model = keras.applications.MobileNetV2(weights=None)
    model.load_weights(test_data / WEIGHTS)
    cut = keras.Model(model.input, model.layers[-2].output)
    pixels = [
        Image.open(f).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR) for f in files
    ]
    batch = np.stack([np.asarray(p, np.float32) for p in pixels])
    expected = cut.predict(keras.applications.mobilenet_v2.preprocess_input(batch), verbose=0)
    error = np.abs(np.asarray(features.X) - expected).max() / np.abs(expected).max()
    assert error < 1e-4


def test_ten_new_photos_compute_ten_and_a_renamed_folder_none(
    test_data: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(test_data / "caltech24", tmp_path / "a")
    features = featcache.extract("mobilenet_v2", tmp_path / "a", **options)
    assert len(features) == 939
    for i in range(10):
        noise = np.random.default_rng(i).integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "a" / "emu" / f"new{i}.png")
    more = featcache.extract("mobilenet_v2", tmp_path / "a", **options)
    assert (more.summary.computed, len(more)) == (10, 949)
    (tmp_path / "a").rename(tmp_path / "b")
    assert featcache.extract("mobilenet_v2", tmp_path / "b", **options).summary.computed == 0


def test_a_colour_histogram_does_not_tell_drawn_breeds_apart() -> None:
    from heads import LogisticHead

    dataset = featcache.datasets.drawn_dogs(20, 40, image_size=96)
    rows = []
    for path in dataset.paths:
        with Image.open(path) as image:
            levels = np.asarray(image.convert("RGB")).astype(int) // 32
        codes = levels @ np.array([64, 8, 1])
        rows.append(np.sqrt(np.bincount(codes.ravel(), minlength=512) / codes.size))
    X, y = np.array(rows, np.float32), np.array(dataset.labels)
    test = np.arange(len(y)) % 4 == 0
    accuracy = np.mean(LogisticHead().fit(X[~test], y[~test]).predict(X[test]) == y[test])
    assert accuracy < 0.6
