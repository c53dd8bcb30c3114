"""Parity: stored rows are what Keras itself gives for the same pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import table_from_keras as keras_says
from conftest import photo
from featcache import extract
from featcache.backbones import preprocessing
from featcache.backbones.architecture import architecture_hash, layer_names
from featcache.backbones.spec import BackboneEntry, backbone_entries
from featcache.images.decode import decode, resize
from reference_models import reference_model

# In the quick run the backbones that people ask for most, of several families;
# all of them in `make test-slow`, about 20 seconds each on two slow cores.
QUICK = {
    "mobilenet", "mobilenet_v2", "mobilenet_v3_small",
    "pocket", "resnet50",
}  # fmt: skip
ALL = [
    pytest.param(entry, id=name, marks=() if name in QUICK else pytest.mark.slow)
    for name, entry in backbone_entries().items()
]
SMALL = {"inception_resnet_v2": 75, "inception_v3": 75, "xception": 71, "vgg16": 224, "vgg19": 224}


def relative_error(got: Any, expected: Any) -> float:
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("entry", ALL)
def test_rows_equal_keras_own_preprocessing_and_prediction(
    entry: BackboneEntry, tmp_path: Path
) -> None:
    import keras

    side = SMALL.get(entry.name, 64)
    model = reference_model(entry, side)
    names = layer_names(model)
    assert names[entry.layer].output.shape[-1] == entry.width
    assert model.count_params() == entry.parameters
    model.save_weights(tmp_path / "w.weights.h5")
    files = [photo(tmp_path / "p" / f"{i}.png", i, (90, 70)) for i in range(3)]
    pixels = np.stack([resize(decode(f.read_bytes()), (side, side)) for f in files])
    prepare = keras_says.preprocess_input(entry)
    cut = keras.Model(model.input, names[entry.layer].output)
    expected = cut.predict(prepare(pixels.astype("float32")), verbose=0).reshape(3, -1)
    features = extract(
        entry.name,
        tmp_path / "p",
        weights=tmp_path / "w.weights.h5",
        image_size=side,
        batch_size=2,
    )
    assert features.X.shape == (3, entry.width)
    error = relative_error(np.asarray(features.X), expected)
    assert error < 1e-4
    # The images do differ, by far more than the error.
    assert np.ptp(expected, axis=0).max() / np.abs(expected).max() > max(1e-3, 100 * error)
    keras.backend.clear_session()


def test_the_table_lists_every_classifier_of_this_keras() -> None:
    theirs = sorted(r.constructor for r in backbone_entries().values() if not r.packaged)
    assert theirs == keras_says.constructors()


@pytest.mark.parametrize("entry", ALL)
def test_the_table_says_what_keras_says(entry: BackboneEntry) -> None:
    if entry.packaged:
        assert vars(entry) == keras_says.pocket_row()
        return
    assert keras_says.public_name(entry.constructor) == entry.name
    assert keras_says.preprocessing_mode(entry.constructor) == entry.preprocessing
    said = keras_says.weights_file(entry.constructor)
    assert (entry.file, entry.url, entry.hash) == (said["file"], said["url"], said["hash"])


def test_preprocessing_differs_between_families_where_keras_does() -> None:
    by_module = {
        r.module: preprocessing.fingerprint(r.preprocessing) for r in backbone_entries().values()
    }
    assert by_module["resnet"] == by_module["vgg19"]
    different = [by_module[m] for m in ("resnet", "resnet_v2", "densenet", "efficientnet")]
    assert len(set(different)) == 4


@pytest.mark.slow
def test_efficientnets_imagenet_file_gets_the_scaling_that_keras_gives_it(
    tmp_path: Path, photos: Path
) -> None:
    import keras
    from keras.src.utils import file_utils

    entry = backbone_entries()["efficientnet_b0"]
    reference_model(entry, 224).save_weights(tmp_path / "file.weights.h5")
    # Keras' own constructor, handed our file where it would download one.
    file = str(tmp_path / "file.weights.h5")
    with mock.patch.object(file_utils, "get_file", return_value=file):
        theirs = keras.applications.EfficientNetB0(weights="imagenet")
    cut = keras.Model(theirs.input, theirs.get_layer("avg_pool").output)
    files = sorted((photos / "cat").iterdir())
    pixels = np.stack([resize(decode(f.read_bytes()), (224, 224)) for f in files])
    expected = cut.predict(pixels.astype("float32"), verbose=0)

    from featcache.backbones.model import Backbone
    from featcache.backbones.request import BackboneOptions, make_request
    from featcache.backbones.weights import Weights

    request = make_request("efficientnet_b0", BackboneOptions(weights="random"))
    for kind, same in (("imagenet", True), ("file", False)):
        object.__setattr__(request, "weights", Weights(kind, tmp_path / "file.weights.h5"))
        got = Backbone(request).embed(pixels)
        assert (relative_error(got, expected) < 1e-4) == same


def test_layer_names_are_those_of_a_fresh_session() -> None:
    import keras

    def names() -> list[str]:
        return list(
            layer_names(keras.applications.MobileNetV3Small(weights=None, input_shape=(32, 32, 3)))
        )

    first = names()
    assert names() == first
    assert "activation" in first


def test_the_architecture_hash_sees_settings_and_connections_but_not_names() -> None:
    import keras

    def build(name: str | None = None, units: int = 4, skip: bool = False) -> str:
        inputs = keras.Input((4,))
        one = keras.layers.Dense(4, name=name)(inputs)
        two = keras.layers.Dense(units)(inputs if skip else one)
        return architecture_hash(keras.Model(inputs, two))

    assert build() == build() == build(name="other")
    with_policy = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    other_policy = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, dtype="bfloat16")])
    assert architecture_hash(with_policy) != architecture_hash(other_policy)
    assert len({build(), build(units=5), build(skip=True)}) == 3


def test_random_weights_are_the_same_in_every_session(photos: Path) -> None:
    # The value is pinned: on another machine or backend it must be the same.
    spec = extract("mobilenet", photos / "cat", weights="random", image_size=32).spec
    assert spec.weights.startswith("422ecce1a0497abf")
