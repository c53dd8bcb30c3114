"""Weights without the classification top: the same store, the right layer, clear errors."""

from __future__ import annotations

import gc
import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pytest

import table_from_keras as keras_says
from featcache import explain, extract
from featcache.backbones.model import Backbone
from featcache.backbones.request import BackboneOptions, make_request
from featcache.backbones.spec import BackboneEntry, backbone_entries
from featcache.backbones.weights import Weights, keras_models_folder
from featcache.errors import DownloadFailed, WeightsMismatch, WeightsUnavailable
from reference_models import reference_model

# Of others the quick run has tests of their own below; all of them in `make test-slow`.
QUICK = {"mobilenet", "mobilenet_v3_small"}
SMALLEST = {"inception_resnet_v2": 75, "inception_v3": 75, "xception": 71}
ALL = [
    pytest.param(entry, id=name, marks=() if name in QUICK else pytest.mark.slow)
    for name, entry in backbone_entries().items()
    if not entry.packaged
]


def save_old(model: Any, path: Path) -> Path:
    """Write weights in the format in which Keras publishes them."""
    from keras.src.legacy.saving import legacy_h5_format

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return path


def without_top(entry: BackboneEntry, whole: Any, side: int) -> Any:
    """Keras' own network without the top, with the weights of one that has it."""
    import keras

    constructor = getattr(keras.applications, entry.constructor)
    body = constructor(weights=None, include_top=False, input_shape=(side, side, 3))
    by_name = {layer.name: layer for layer in whole.layers}
    weighted = [[layer for layer in model.layers if layer.weights] for model in (body, whole)]
    for layer, position in zip(*weighted, strict=False):
        # By name where it is the same in both; Keras numbers the others.
        layer.set_weights(by_name.get(layer.name, position).get_weights())
    return body


def spec_of(name: str, path: Path, side: int, **options: Any) -> Any:
    request = make_request(name, BackboneOptions(weights=path, image_size=side, **options))
    backbone = Backbone(request)
    return backbone.layer, backbone.pooling, backbone.weights_hash


@pytest.mark.parametrize("entry", ALL)
def test_files_with_and_without_the_top_share_a_store(entry: BackboneEntry, tmp_path: Path) -> None:
    import keras

    side = SMALLEST.get(entry.name, 32)
    whole = reference_model(entry, side)
    body = without_top(entry, whole, side)
    whole.save_weights(tmp_path / "whole.weights.h5")
    body.save_weights(tmp_path / "body.weights.h5")
    save_old(body, tmp_path / "body_notop.h5")
    del whole, body
    layer = None if entry.notop_layer == entry.layer else entry.notop_layer
    found = [
        spec_of(entry.name, tmp_path / "whole.weights.h5", side, layer=layer),
        spec_of(entry.name, tmp_path / "body.weights.h5", side),
        spec_of(entry.name, tmp_path / "body_notop.h5", side),
    ]
    assert found[0] == found[1] == found[2]
    assert found[0][0] == entry.notop_layer
    keras.backend.clear_session()
    gc.collect()


@pytest.mark.parametrize("entry", ALL)
def test_the_table_says_what_keras_says_of_files_without_the_top(entry: BackboneEntry) -> None:
    said = keras_says.without_top(entry.constructor, entry.layer)
    assert {name: getattr(entry, name) for name in said} == said


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MobileNet's weights: whole, and without the top in both formats."""
    return _saved("mobilenet", tmp_path_factory.mktemp("mobilenet"))


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved("vgg16", tmp_path_factory.mktemp("vgg16"), whole=False)


def _saved(name: str, folder: Path, *, whole: bool = True) -> Path:
    entry = backbone_entries()[name]
    model = reference_model(entry, 32)
    body = without_top(entry, model, 32)
    if whole:
        model.save_weights(folder / "whole.weights.h5")
    body.save_weights(folder / "body.weights.h5")
    save_old(body, folder / str(entry.notop_file))
    return folder


def test_rows_under_one_file_are_hits_under_the_other(photos: Path, mobilenet: Path) -> None:
    options: dict[str, Any] = {"image_size": 32}
    first = extract("mobilenet", photos, weights=mobilenet / "whole.weights.h5", **options)
    for name in ("body.weights.h5", "mobilenet_1_0_224_tf_no_top.h5"):
        again = extract("mobilenet", photos, weights=mobilenet / name, **options)
        assert (again.spec, again.summary.computed) == (first.spec, 0)
        assert np.array_equal(np.asarray(again.X), np.asarray(first.X))


def test_vgg_without_its_top_gives_its_last_pooling_layer_and_says_so(
    photos: Path, vgg16: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import keras

    for _ in range(2):  # from memory the second time
        caplog.clear()
        features = extract("vgg16", photos, weights=vgg16 / "body.weights.h5", image_size=32)
        assert "no classification top, which its default layer 'fc2' belongs to" in caplog.text
        assert "layer 'block5_pool', pooled (avg)" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING
    assert (features.spec.layer, features.spec.pooling) == ("block5_pool", "avg")
    assert features.arguments["layer"] == "block5_pool"
    caplog.clear()
    named = extract(
        "vgg16", photos, weights=vgg16 / "body.weights.h5", image_size=32, layer="block5_pool"
    )
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (named.spec, named.summary.computed, warned) == (features.spec, 0, [])
    own = keras.applications.VGG16(
        weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3)
    )
    own.load_weights(vgg16 / "body.weights.h5")
    from featcache.images.decode import decode, resize

    pixels = np.stack(
        [resize(decode(Path(p).read_bytes()), (32, 32)) for p in features.paths]
    ).astype(np.float32)
    prepared = keras.applications.vgg16.preprocess_input(pixels)
    expected = own.predict(prepared, verbose=0)
    assert np.abs(np.asarray(features.X) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("layer", ["fc2", "predictions", "output", -1])
def test_a_layer_of_the_top_needs_weights_with_the_top(
    photos: Path, vgg16: Path, layer: str | int, tmp_path: Path
) -> None:
    with pytest.raises(WeightsMismatch, match=r"no classification top, and layer .* depends on it"):
        extract("vgg16", photos, weights=vgg16 / "body.weights.h5", image_size=32, layer=layer)
    assert not (tmp_path / "cache").exists()


def test_a_file_of_another_network_is_one_sentence(
    photos: Path, vgg16: Path, mobilenet: Path, tmp_path: Path
) -> None:
    import keras

    narrow = keras.applications.MobileNet(
        weights=None, include_top=False, alpha=0.5, input_shape=(32, 32, 3)
    )
    narrow.save_weights(tmp_path / "narrow.weights.h5")
    save_old(narrow, tmp_path / "narrow.h5")
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    head.save_weights(tmp_path / "head.weights.h5")
    (tmp_path / "text.h5").write_text("no weights")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["rows"] = np.zeros((3, 4), np.float32)
    expected = {
        "narrow.weights.h5": r"layer 'conv1' expects weights of shape \(3, 3, 3, 32\), and the "
        r"file has shape \(3, 3, 3, 16\)\.",
        "narrow.h5": r"layer 'conv1' expects weights of shape \(3, 3, 3, 32\), and the file has",
        "head.weights.h5": r"layer 'conv1' expects weights of shape .*, and the file has none",
        "text.h5": "HDF5 cannot open it",
        "other.h5": r"layer 'conv1' expects weights of shape .*, and the file has none",
    }
    for name, message in expected.items():
        with pytest.raises(WeightsMismatch, match=message) as raised:
            extract("mobilenet", photos, weights=tmp_path / name, image_size=32)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 500
    with pytest.raises(WeightsMismatch, match=r"layer 'conv1_conv' expects weights of shapes"):
        extract("resnet50", photos, weights=vgg16 / "body.weights.h5", image_size=32)
    # Of more weights than VGG16 has without its top; that tells nothing of which was meant.
    for file in (mobilenet / "body.weights.h5", mobilenet / "mobilenet_1_0_224_tf_no_top.h5"):
        with pytest.raises(
            WeightsMismatch, match=r"do not fit vgg16 for .* layer 'block1_conv1' expects .* 64\)"
        ) as raised:
            extract("vgg16", photos, weights=file, image_size=32)
        assert "include_top" not in str(raised.value)
    assert not (tmp_path / "cache").exists()


def test_a_weights_file_with_a_malformed_structure_is_refused(photos: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "cycle.weights.h5", "w") as file:
        layers = file.create_group("layers")
        layers.create_group("conv2d/vars")["0"] = np.zeros((3, 3, 3, 7), np.float32)
        layers["itself"] = layers
    with h5py.File(tmp_path / "missing.h5", "w") as file:
        file.attrs["layer_names"] = ["gone"]
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.attrs["layer_names"] = ["conv1"]
        file.create_group("conv1/kernel")
        file["conv1"].attrs["weight_names"] = ["kernel"]
    for name, message in {
        "cycle.weights.h5": r"the file has shape \(3, 3, 3, 7\)",
        "missing.h5": "is not a weights file of Keras",
        "group.h5": "is not a weights file of Keras",
    }.items():
        with pytest.raises(WeightsMismatch, match=message):
            extract("mobilenet", photos, weights=tmp_path / name, image_size=32)


def _offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let downloads fail; return the files that were asked for."""
    asked: list[str] = []

    def fail(url: str, known: Any, name: str, folder: Path) -> Path:
        asked.append(name)
        raise DownloadFailed("no network", url=url, reason="no network")

    monkeypatch.setattr("featcache.backbones.weights.retrieve", fail)
    return asked


def test_published_weights_without_the_top_are_found_in_kerass_cache(
    photos: Path, mobilenet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _offline(monkeypatch)
    with pytest.raises(WeightsUnavailable):
        extract("mobilenet", photos, image_size=32)
    asked.clear()
    file = backbone_entries()["mobilenet"].notop_file
    keras_models_folder().mkdir(parents=True)
    (keras_models_folder() / str(file)).symlink_to(mobilenet / str(file))
    features = extract("mobilenet", photos, image_size=32)
    assert features.summary.weights == "imagenet"
    assert asked == []
    by_path = explain("mobilenet", photos, image_size=32, weights=mobilenet / "whole.weights.h5")
    assert (by_path.spec, by_path.stored) == (features.spec, 12)


def test_vgg_prefers_its_top_and_falls_back_to_what_is_in_kerass_cache(
    photos: Path, vgg16: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = _offline(monkeypatch)
    entry = backbone_entries()["vgg16"]
    file = vgg16 / str(entry.notop_file)
    known = hashlib.md5(file.read_bytes()).hexdigest()
    table = {**backbone_entries(), "vgg16": replace(entry, notop_hash=known)}
    monkeypatch.setattr("featcache.backbones.spec.backbone_entries", lambda: table)
    keras_models_folder().mkdir(parents=True)
    (keras_models_folder() / file.name).symlink_to(file)
    features = extract("vgg16", photos, image_size=32)
    assert asked == [entry.file]
    assert features.spec.layer == "block5_pool"
    # From memory no download is tried.
    assert extract("vgg16", photos, image_size=32).summary.computed == 0
    assert asked == [entry.file]
    assert caplog.text.count("no classification top") == 2
    with pytest.raises(WeightsMismatch, match="layer 'fc1' of vgg16 depends on it"):
        extract("vgg16", photos, image_size=32, layer="fc1")
    damaged = replace(entry, notop_hash="0" * 32)
    monkeypatch.setattr(
        "featcache.backbones.spec.backbone_entries", lambda: {**table, "vgg16": damaged}
    )
    with pytest.raises(WeightsMismatch, match="not the file that Keras publishes"):
        extract("vgg16", photos, image_size=32, layer="block5_pool")
    # A wrong file is told of before a download is tried.
    asked.clear()
    with pytest.raises(WeightsMismatch, match="not the file that Keras publishes"):
        extract("vgg16", photos, image_size=32)
    assert asked == []


@pytest.mark.slow
def test_efficientnets_second_scaling_is_that_of_the_file_with_the_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras
    from keras.src.utils import file_utils

    entry = backbone_entries()["efficientnet_b0"]
    whole = reference_model(entry, 32)
    body = without_top(entry, whole, 32)
    published = save_old(body, tmp_path / "renamed.h5")
    body.save_weights(tmp_path / "plain.weights.h5")
    whole.save_weights(tmp_path / "top.weights.h5")
    # As Keras saves a network that it built with weights="imagenet".
    with mock.patch.object(file_utils, "get_file", return_value=str(published)):
        scaled_body = keras.applications.EfficientNetB0(
            weights="imagenet", include_top=False, input_shape=(32, 32, 3)
        )
    scaled_body.save_weights(tmp_path / "scaled.weights.h5")

    def weights_hash(weights: Weights) -> str:
        request = make_request("efficientnet_b0", BackboneOptions(weights="random", image_size=32))
        return Backbone(replace(request, weights=weights)).weights_hash

    scaled = weights_hash(Weights("imagenet", tmp_path / "top.weights.h5"))
    assert weights_hash(Weights("imagenet", published, top=False)) == scaled
    assert weights_hash(Weights("file", tmp_path / "plain.weights.h5")) != scaled
    # A published file is known by its hash, whatever it is called.
    known = hashlib.md5(published.read_bytes()).hexdigest()
    table = {**backbone_entries(), entry.name: replace(entry, notop_hash=known)}
    monkeypatch.setattr("featcache.backbones.spec.backbone_entries", lambda: table)
    request = make_request("efficientnet_b0", BackboneOptions(weights=published, image_size=32))
    assert request.weights == Weights("imagenet", published, top=False)
    assert Backbone(request).weights_hash == scaled
    # And one that was saved from a network with the scaling, by its layers.
    assert weights_hash(Weights("file", tmp_path / "scaled.weights.h5")) == scaled


def test_a_remembered_default_of_weights_without_the_top_is_not_taken_for_the_layer_named(
    photos: Path, vgg16: Path
) -> None:
    options: dict[str, Any] = {"weights": vgg16 / "body.weights.h5", "image_size": 32}
    assert extract("vgg16", photos, **options).spec.layer == "block5_pool"
    with pytest.raises(WeightsMismatch, match="no classification top"):
        extract("vgg16", photos, layer="fc2", **options)
