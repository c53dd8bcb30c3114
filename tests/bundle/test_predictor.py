"""A predictor says what the bundle says, of one photo at a time, and writes nothing."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bundles import write_dogs
from PIL import Image

import featcache
from conftest import make_tiny_model
from featcache import Predictor, extract, make_bundle
from featcache.backbones.preprocessing import fingerprint
from featcache.backbones.request import BackboneOptions, make_request
from featcache.errors import BundleMismatch, InvalidRequest, WeightsUnavailable
from heads import make_head


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs(tmp_path_factory.mktemp("dogs"))


@pytest.fixture(scope="module")
def features(dogs: Path, tmp_path_factory: pytest.TempPathFactory) -> featcache.Features:
    return extract("pocket", dogs, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def bundle(features: featcache.Features) -> featcache.Bundle:
    return make_bundle(features, make_head("logistic").fit(features.X, features.labels))


@pytest.fixture(scope="module")
def predictor(bundle: featcache.Bundle) -> Predictor:
    return Predictor(bundle)


def assert_alike(told: list[Any], other: list[Any]) -> None:
    """Compare predictions up to rounding, which depends on the number of images in a batch."""
    assert [(one.path, one.reason) for one in told] == [(one.path, one.reason) for one in other]
    for one, two in zip(told, other, strict=True):
        assert [name for name, _ in one.top_classes] == [name for name, _ in two.top_classes]
        assert dict(one.top_classes) == pytest.approx(dict(two.top_classes), abs=1e-6)


def files_below(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_it_says_what_the_bundle_says_whatever_form_a_photo_has(
    bundle: featcache.Bundle, predictor: Predictor, dogs: Path
) -> None:
    paths = sorted(map(str, dogs.rglob("*.png")))[::15]
    expected = bundle.predict(paths, top=3)
    images = [Image.open(path) for path in paths]
    forms: list[list[Any]] = [
        paths,
        [Path(path) for path in paths],
        [Path(path).read_bytes() for path in paths],
        [memoryview(Path(path).read_bytes()) for path in paths],
        images,
        [np.asarray(image) for image in images],
    ]
    for form in forms:
        for told, other in zip(predictor.predict(form), expected, strict=True):
            assert dict(told.top_classes) == pytest.approx(dict(other.top_classes), abs=1e-4)
            assert told.reason is None
    stacked = np.stack([np.asarray(image) for image in images])
    proba = predictor.predict_proba(stacked)
    assert proba.shape == (4, 3)
    assert np.abs(proba - predictor.predict_proba(paths)).max() == 0
    assert_alike(predictor.predict(paths[0], top=1), predictor.predict(paths, top=1)[:1])
    assert predictor.predict(paths[0])[0].path == paths[0]
    assert predictor.predict([images[0], paths[1]])[0].path == "image 0"


def test_rotated_grey_and_transparent_images_are_those_of_their_files(
    predictor: Predictor, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    for mode in ("L", "RGBA", "P", "I;16", "CMYK"):
        if mode == "I;16":
            image = Image.fromarray(generator.integers(0, 65536, (30, 20), np.uint16))
        else:
            noise = Image.fromarray(generator.integers(0, 256, (30, 20, 4), np.uint8))
            image = noise.convert(mode)
        exif = Image.Exif()
        exif[0x0112] = 6
        path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
        image.save(path, exif=exif)
        opened = Image.open(path)
        assert np.array_equal(predictor.predict_proba(opened), predictor.predict_proba(path)), mode


def test_a_bad_image_has_a_reason_and_changes_no_other(
    predictor: Predictor, dogs: Path, tmp_path: Path
) -> None:
    good = str(next(dogs.rglob("*.png")))
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(good).read_bytes()[:200])
    closed = Image.open(good)
    closed.close()
    bad: list[Any] = [
        str(tmp_path / "missing.png"), str(cut), b"", b"not an image", str(tmp_path),
        "https://example.org/dog.jpg", np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), None, 5,
        Image.new("F", (4, 4)), closed, Image.open(io.BytesIO(cut.read_bytes())),
        "a\0b.png",
    ]  # fmt: skip
    told = predictor.predict([good, *bad, good])
    assert [one.reason is None for one in told] == [True, *(False for _ in bad), True]
    assert told[0] == told[-1]
    assert_alike(told[:1], predictor.predict(good))
    assert all(one.top_classes == [] and one.reason for one in told[1:-1])
    assert "expected RGB pixels of uint8" in str(told[7].reason)
    proba = predictor.predict_proba([good, *bad, good])
    assert np.isnan(proba[1:-1]).all()
    assert np.isfinite(proba[[0, -1]]).all()


def test_grey_pixels_are_those_of_a_grey_image(predictor: Predictor) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (30, 20), np.uint8)
    expected = predictor.predict_proba(Image.fromarray(grey))
    for pixels in (grey, grey[..., None], np.stack([grey] * 3, axis=-1)):
        assert np.array_equal(predictor.predict_proba(pixels), expected)


def test_bytes_beyond_the_limit_of_files_are_refused(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.images.image_file.MAX_BYTES", 10)
    (told,) = predictor.predict(bytes(11))
    assert "the limit is 10" in str(told.reason)


def test_an_image_beyond_the_limit_is_refused(predictor: Predictor) -> None:
    huge = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (20_000, 20_000, 3))
    bands = Image.new("1", (20_000, 20_000))
    assert ["the limit is" in str(one.reason) for one in predictor.predict([huge, bands])] == [
        True, True
    ]  # fmt: skip


def test_nothing_is_written(
    bundle: featcache.Bundle, dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.save(tmp_path / "b.featcache")
    cache = tmp_path / "no-cache"
    monkeypatch.setenv("FEATCACHE_CACHE", str(cache))
    before = files_below(tmp_path)
    with Predictor(tmp_path / "b.featcache") as predictor:
        assert predictor.predict(sorted(dogs.rglob("*.png"))[:2], top=1)[1].reason is None
    assert files_below(tmp_path) == before
    assert not cache.exists()


def test_threads_may_share_it(predictor: Predictor, dogs: Path) -> None:
    paths = sorted(dogs.rglob("*.png"))[:24]
    expected = predictor.predict(paths)
    with ThreadPoolExecutor(8) as pool:
        found = [one[0] for one in pool.map(predictor.predict, paths)]
    for one, other in zip(found, expected, strict=True):
        assert one.path == other.path
        assert dict(one.top_classes) == pytest.approx(dict(other.top_classes), abs=1e-6)


def test_it_is_compiled_once(predictor: Predictor, dogs: Path) -> None:
    paths = sorted(dogs.rglob("*.png"))
    for count in (1, 2, 7):
        predictor.predict(paths[:count])
    backbone: Any = predictor._backbones[0]._backbone
    function = backbone.model.predict_function
    compiled = getattr(function, "experimental_get_tracing_count", lambda: 1)
    assert compiled() == 1


def test_a_closed_one_says_so(bundle: featcache.Bundle, dogs: Path) -> None:
    with Predictor(bundle) as predictor:
        assert "Predictor of <Bundle of 3 classes on pocket" in repr(predictor)
    predictor.close()
    assert repr(predictor).startswith("<closed Predictor")
    with pytest.raises(InvalidRequest, match="closed"):
        predictor.predict(next(dogs.rglob("*.png")))


@pytest.mark.parametrize("top", [0, -1, True, 1.5, None])
def test_the_number_of_classes_is_a_whole_number(predictor: Predictor, top: Any) -> None:
    with pytest.raises(InvalidRequest, match="top="):
        predictor.predict([], top=top)


@pytest.mark.parametrize("images", [None, 5, io.BytesIO(b"a photo"), {"image": b"a photo"}])
def test_what_holds_no_image_is_refused(predictor: Predictor, images: Any) -> None:
    with pytest.raises(InvalidRequest, match="An image is"):
        predictor.predict(images)


def test_no_images_give_no_predictions(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    assert predictor.predict_proba(iter(())).shape == (0, 3)


def test_a_model_of_ones_own_has_to_be_passed_and_to_be_the_same(dogs: Path) -> None:
    features = extract(make_tiny_model(), dogs)
    bundle = make_bundle(features, make_head("logistic").fit(features.X, features.labels))
    with pytest.raises(BundleMismatch, match="user-defined model"):
        Predictor(bundle)
    with pytest.raises(BundleMismatch, match="differ"):
        Predictor(bundle, backbone=make_tiny_model(seed=1))
    found = Predictor(bundle, backbone=make_tiny_model()).predict_proba(features.paths)
    assert np.abs(found - bundle.predict_proba(features)).max() < 1e-4


def test_rows_are_rounded_as_in_training(dogs: Path) -> None:
    model = make_tiny_model()
    features = extract(model, dogs, row_dtype="float16")
    bundle = make_bundle(features, make_head("logistic").fit(features.X, features.labels))
    found = Predictor(bundle, backbone=model).predict_proba(features.paths)
    assert np.abs(found - bundle.predict_proba(features)).max() < 1e-12


def test_missing_weights_are_a_clear_error(
    bundle: featcache.Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = make_request("mobilenet", BackboneOptions(weights="imagenet"))
    spec = replace(
        bundle.spec, backbone="mobilenet", image_size=request.image_size,
        preprocessing=fingerprint(request.preprocessing), layer="avg_pool",
    )  # fmt: skip
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    elsewhere = replace(bundle, spec=spec, arguments=request.arguments())
    with pytest.raises(WeightsUnavailable, match="put it into") as caught:
        Predictor(elsewhere)
    assert str(tmp_path / "keras") in str(caught.value)
