"""A bundle that could not be read again is not written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import featcache
from conftest import make_tiny_model, photo
from featcache import Classifier, ClassifierStep, extract, load_bundle, make_bundle
from featcache.errors import BundleError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> featcache.Bundle:
    photos = [photo(tmp_path_factory.mktemp("photos") / "one.png", 7)]
    features = extract(make_tiny_model(), photos)
    width = features.X.shape[1]
    weights = np.zeros((width, 2), np.float32)
    step = ClassifierStep("linear", {"weights": weights, "bias": weights[0]})
    return make_bundle(features, Classifier([step], ["cat", "dog"], width))


def with_image_size(bundle: featcache.Bundle, height: int, width: int) -> featcache.Bundle:
    return replace(bundle, arguments={**bundle.arguments, "image_size": [height, width]})


def test_images_of_more_pixels_than_loading_accepts(
    bundle: featcache.Bundle, tmp_path: Path
) -> None:
    with_image_size(bundle, 2048, 2048).save(tmp_path / "largest")
    assert load_bundle(tmp_path / "largest").arguments["image_size"] == [2048, 2048]
    with pytest.raises(BundleError, match=r"not written.*2,049 x 2,048.*4,194,304 pixels"):
        with_image_size(bundle, 2049, 2048).save(tmp_path / "larger")
    assert not (tmp_path / "larger").exists()


def test_an_existing_file_is_kept(bundle: featcache.Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "b")
    before = (tmp_path / "b").read_bytes()
    with pytest.raises(BundleError):
        replace(bundle, arguments={**bundle.arguments, "backbone": "x" * 5000}).save(tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == before
