"""Shared fixtures: a cache of its own for each test, tiny models, small photo folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s3_server import s3_files as s3_files  # fixtures
from s3_server import s3_server as s3_server


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real photos and weights; tests that need it skip without it."""
    folder = os.environ.get("FEATCACHE_TEST_DATA")
    if not folder or not (Path(folder) / "caltech24" / "split.csv").is_file():
        pytest.skip("FEATCACHE_TEST_DATA does not name the folder of real photos and weights")
    return Path(folder).resolve()


def make_tiny_model(seed: int = 0, side: int = 16, width: int = 8, activation: str = "relu") -> Any:
    """A convolutional network of a few hundred weights, equal for equal arguments."""
    import keras

    inputs = keras.Input((side, side, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(width, 3, strides=2, activation=activation, name="conv")(x)
    outputs = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, outputs)
    generator = np.random.default_rng(seed)
    model.set_weights([generator.normal(size=w.shape).astype("float32") for w in model.weights])
    return model


@pytest.fixture(scope="session")
def tiny_model() -> Any:
    return make_tiny_model()


def photo(path: Path, seed: int, size: tuple[int, int] = (24, 20), **options: Any) -> Path:
    """Write a photo of noise whose pixels depend on the seed alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two class folders with six photos each."""
    root = tmp_path / "photos"
    for i in range(12):
        photo(root / ("cat" if i < 6 else "dog") / f"{i:02d}.png", i)
    return root


@pytest.fixture
def easy_images(tmp_path: Path) -> Any:
    """Forty dark and bright photos under names that tell nothing."""
    from bench import Images
    from featcache.images.image_file import content_id

    codes = np.arange(40) // 2 % 2
    paths = []
    for i, code in enumerate(codes):
        generator = np.random.default_rng(i)
        pixels = generator.integers(0, 90, (20, 20, 3), np.uint8) + np.uint8(150 * code)
        path = tmp_path / "easy" / f"{i:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    return Images(tuple(map(str, paths)), tuple(content_id(p.read_bytes()) for p in paths)), codes


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; tests that need it skip without it."""
    selenium = pytest.importorskip("selenium", reason="selenium is not installed")
    del selenium
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("there is no Chromium with its driver; `make test-browser` installs them")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(driver))
    yield window
    window.quit()
