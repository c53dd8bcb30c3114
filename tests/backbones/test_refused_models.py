"""Own models that cannot serve are refused in a sentence; what the sentence advises works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_models import body, dense_softmax, expected

from conftest import photo
from featcache import extract
from featcache._io.cache_dirs import cache_folder
from featcache.bundle.make import make_bundle
from featcache.errors import FeatcacheError, InvalidRequest
from heads import make_head


@pytest.fixture
def classifier() -> Any:
    import keras

    inputs, x = body(keras)
    return keras.Model(inputs, dense_softmax(keras, x))


def several_inputs(keras: Any) -> Any:
    inputs, x = body(keras)
    other = keras.Input((3,), name="age")
    return keras.Model([inputs, other], keras.layers.Concatenate()([x, other]))


def one_channel(keras: Any) -> Any:
    return keras.Model(*body(keras, channels=1))


def channels_first(keras: Any) -> Any:
    inputs = keras.Input((3, 16, 16))
    return keras.Model(inputs, keras.layers.Flatten()(inputs))


def unbuilt(keras: Any) -> Any:
    return keras.Sequential([keras.layers.Rescaling(1.0), keras.layers.Flatten()])


def several_outputs(keras: Any) -> Any:
    inputs, x = body(keras)
    make = keras.layers
    return keras.Model(inputs, [make.Dense(2, name="age")(x), make.Dense(3, name="breed")(x)])


def subclassed(keras: Any) -> Any:
    class Own(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.pool = keras.layers.GlobalAveragePooling2D()

        def call(self, x: Any) -> Any:
            return self.pool(x)

    model = Own()
    model(np.zeros((1, 16, 16, 3), np.float32))
    return model


REFUSED = [
    (several_inputs, {}, r"takes 2 inputs \(.*age.* \(None, 3\)\); a backbone takes one"),
    (one_channel, {}, r"\(None, 16, 16, 1\) of 1 channel; a backbone takes RGB images"),
    (channels_first, {}, r"16, 16\), channels first; a backbone takes RGB images"),
    (several_outputs, {"image_size": 0}, r"image_size=0 is out of range; give .* 1 to 4096"),
    (several_outputs, {"image_size": (9, 4097)}, r"4097\) is out of range"),
    (several_outputs, {"image_size": "big"}, r"image_size='big' is not a size"),
    (unbuilt, {}, r"Sequential is not built"),
    (several_outputs, {}, r"has 2 outputs; name one with layer=: age, breed"),
    (several_outputs, {"layer": "output"}, r"has 2 outputs; name one with layer=: age, breed"),
    (subclassed, {}, r"subclassed model, which has no graph .* keras.Model\(inputs, model\(inputs"),
    (several_outputs, {"layer": []}, r"layer=\[\] names no layer"),
    (several_outputs, {"layer": 1.5}, r"layer=1.5 is a float; give a layer's name, or its index"),
    (several_outputs, {"layer": [[-2]]}, r"layer=\[-2\] is a list, but .* once per layer"),
    (several_outputs, {"layer": ["age", None]}, r"layer=None .* in a list of layers"),
    (several_outputs, {"layer": np.bool_(True)}, r"layer=.*True.* is a bool"),
    (several_outputs, {"layer": True}, r"layer=True is a bool; give a layer's name, or its index"),
]


@pytest.mark.parametrize(
    ("make", "options", "message"), REFUSED, ids=lambda v: getattr(v, "__name__", None)
)
def test_a_model_that_cannot_serve_is_refused_in_a_sentence_and_leaves_nothing_behind(
    make: Callable[[Any], Any], options: dict[str, Any], message: str, photos: Path
) -> None:
    import keras

    with pytest.raises(InvalidRequest, match=message) as raised:
        extract(make(keras), photos, **{"preprocessing": "none", "image_size": 16, **options})
    assert "\n" not in str(raised.value)
    assert not cache_folder().exists()


def test_a_saved_model_that_cannot_serve_leaves_nothing_behind(
    photos: Path, tmp_path: Path
) -> None:
    import keras

    for make in (several_inputs, one_channel, several_outputs):
        make(keras).save(tmp_path / "own.keras")
        with pytest.raises(FeatcacheError, match=r"a backbone takes|name one with layer="):
            extract(tmp_path / "own.keras", photos, preprocessing="none", image_size=16)
        assert not cache_folder().exists()


def test_a_size_that_a_model_cannot_take_is_refused_and_leaves_nothing_behind(
    photos: Path, classifier: Any, tmp_path: Path
) -> None:
    import keras

    classifier.save(tmp_path / "own.keras")
    for model in (classifier, tmp_path / "own.keras"):
        with pytest.raises(InvalidRequest, match="images of 16 x 16 pixels, not 32 x 32"):
            extract(model, photos, image_size=32)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(3, 9)(keras.layers.MaxPooling2D(4)(inputs))
    with pytest.raises(InvalidRequest, match="cannot take images of 16 x 16 pixels"):
        extract(keras.Model(inputs, x), photos, preprocessing="none", image_size=16)
    assert not cache_folder().exists()


def test_one_of_several_outputs_serves_by_its_layers_name(photos: Path) -> None:
    import keras

    model = several_outputs(keras)
    features = extract(model, photos, layer="breed")
    breed = keras.Model(model.inputs, model.outputs[1])
    rows = np.asarray(features.X)[:6]
    assert np.allclose(rows, expected(breed, photos / "cat"), atol=1e-5)


def test_a_subclassed_model_serves_as_the_message_says(tmp_path: Path) -> None:
    import keras

    photo(tmp_path / "p" / "0.png", 0)
    model = subclassed(keras)
    inputs = keras.Input((16, 16, 3))
    functional = keras.Model(inputs, model(inputs))
    features = extract(functional, tmp_path / "p", preprocessing="none")
    assert np.allclose(np.asarray(features.X), expected(model, tmp_path / "p"), atol=1e-3)


def test_a_bundle_that_left_the_layer_to_an_earlier_default_predicts_on_that_layer(
    photos: Path, classifier: Any
) -> None:
    features = extract(classifier, photos, layer="output")
    head = make_head("logistic").fit(features.X, features.labels)
    bundle = make_bundle(features, head.to_classifier())
    older = replace(bundle, arguments={**bundle.arguments, "layer": None})
    found = older.predict(photos / "cat", backbone=classifier)
    expected = [p.top_classes for p in bundle.predict(photos / "cat", backbone=classifier)]
    assert [p.top_classes for p in found] == expected


def recurrent(keras: Any, inputs: Any, **options: Any) -> Any:
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.layers.GRU(4, **options)(keras.layers.RepeatVector(2)(x))


def test_models_whose_rows_would_depend_on_other_images_are_refused(photos: Path) -> None:
    import keras

    one = keras.Input((16, 16, 3), batch_size=1)
    fixed = keras.Model(one, recurrent(keras, one))
    with pytest.raises(InvalidRequest, match="only batches of 1 images"):
        extract(fixed, photos, preprocessing="unit")
    stateful = keras.Model(one, recurrent(keras, one, stateful=True, name="memory"))
    inputs = keras.Input((16, 16, 3))
    for model in (stateful, keras.Model(inputs, stateful(inputs))):
        with pytest.raises(InvalidRequest, match=r"only batches|stateful=True"):
            extract(model, photos, preprocessing="unit")
    plain = keras.Model(inputs, recurrent(keras, inputs))
    assert extract(plain, photos, preprocessing="unit").X.shape == (12, 4)
