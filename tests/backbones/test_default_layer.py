"""Own models: the layer that is cut by default, and layers by name or index."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_models import body, dense_softmax, expected

from featcache import explain, extract
from featcache.backbones.graph import default_layer
from featcache.cli import main
from featcache.errors import InvalidRequest, UnknownLayer
from featcache.extraction.recheck import verify_sample


def hidden_dropout_sigmoid(keras: Any, x: Any) -> Any:
    x = keras.layers.Dense(5, activation="relu", name="hidden")(x)
    return keras.layers.Dense(1, activation="sigmoid", name="top")(keras.layers.Dropout(0.5)(x))


def logits_then_softmax(keras: Any, x: Any) -> Any:
    x = keras.layers.Activation("softmax")(keras.layers.Dense(4, name="top")(x))
    return keras.layers.Dropout(0.1)(x)


def named_logits(keras: Any, x: Any) -> Any:
    return keras.layers.Dense(4, name="class_logits")(x)


def operation_softmax(keras: Any, x: Any) -> Any:
    return keras.ops.softmax(keras.layers.Dense(4, name="top")(x))


def convolution_softmax(keras: Any, x: Any) -> Any:
    x = keras.layers.Conv2D(4, 1, name="top")(keras.layers.Reshape((1, 1, 6))(x))
    return keras.layers.Softmax()(keras.layers.Flatten()(x))


def named_multi_label(keras: Any, x: Any) -> Any:
    return keras.layers.Activation("sigmoid")(keras.layers.Dense(4, name="predictions")(x))


def pre_logits(keras: Any, x: Any) -> Any:
    return keras.layers.Dense(4, name="pre_logits")(x)


def named_embedding(keras: Any, x: Any) -> Any:
    return keras.layers.Dense(4, name="classifier_embedding")(x)


def named_but_relu(keras: Any, x: Any) -> Any:
    return keras.layers.Dense(4, activation="relu", name="classifier")(x)


def named_with_relu_after(keras: Any, x: Any) -> Any:
    return keras.layers.ReLU()(keras.layers.Dense(4, name="classification")(x))


def hash_code(keras: Any, x: Any) -> Any:
    return keras.layers.Dense(64, activation="sigmoid", name="code")(x)


def pre_logits_softmax(keras: Any, x: Any) -> Any:
    return keras.layers.Dense(4, activation="softmax", name="pre_logits")(x)


def projection(keras: Any, x: Any) -> Any:
    return keras.layers.Dense(4, name="projection")(x)


def two_scores(keras: Any, x: Any) -> Any:
    make = keras.layers
    return make.Concatenate()(
        [make.Dense(2, activation="softmax")(x), make.Dense(2, activation="softmax")(x)]
    )


ENDS: list[tuple[Callable[[Any, Any], Any], str]] = [
    (dense_softmax, "pool"),
    (hidden_dropout_sigmoid, "hidden"),
    (logits_then_softmax, "pool"),
    (named_logits, "pool"),
    (operation_softmax, "pool"),
    (convolution_softmax, "pool"),
    (named_multi_label, "pool"),
    (pre_logits_softmax, "pool"),
    (pre_logits, "output"),
    (named_embedding, "output"),
    (named_but_relu, "output"),
    (named_with_relu_after, "output"),
    (hash_code, "output"),
    (projection, "output"),
    (two_scores, "output"),
]


@pytest.mark.parametrize(("end", "layer"), ENDS, ids=lambda v: getattr(v, "__name__", v))
def test_a_model_is_cut_before_its_classification_layer(
    end: Callable[[Any, Any], Any], layer: str
) -> None:
    import keras

    inputs, x = body(keras)
    assert default_layer(keras.Model(inputs, end(keras, x))) == layer


def test_scores_per_pixel_and_of_pixels_alone_are_outputs_to_keep() -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    per_pixel = keras.layers.Conv2D(4, 3, activation="softmax")(
        keras.layers.Conv2D(4, 3, name="conv")(inputs)
    )
    linear = keras.layers.Dense(4, activation="softmax")(keras.layers.Flatten()(inputs))
    for outputs in (per_pixel, linear):
        assert default_layer(keras.Model(inputs, outputs)) == "output"


def test_a_fully_convolutional_classifier_is_cut_before_its_class_maps() -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, name="features")(inputs)
    x = keras.layers.Conv2D(4, 1, activation="relu")(keras.layers.Dropout(0.5)(x))
    x = keras.layers.Activation("softmax")(keras.layers.GlobalAveragePooling2D()(x))
    assert default_layer(keras.Model(inputs, x)) == "features"


def test_a_flattened_map_stays_flat() -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten(name="flat")(keras.layers.Conv2D(2, 3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x))
    assert default_layer(model) == "flat"


def test_models_within_models_are_looked_into(photos: Path) -> None:
    import keras

    inputs, x = body(keras)
    classifier = keras.Model(inputs, dense_softmax(keras, x), name="classifier")
    wrapped = keras.Sequential([keras.Input((16, 16, 3)), classifier])
    assert default_layer(wrapped) == "classifier/pool"
    head = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dropout(0.5), keras.layers.Dense(4, activation="softmax")]
    )
    pooled = keras.Model(inputs, x, name="backbone")
    outer = keras.Input((16, 16, 3))
    assert default_layer(keras.Model(outer, head(pooled(outer)))) == "backbone"
    for model in (wrapped, keras.Model(outer, head(pooled(outer)))):
        features = extract(model, photos / "cat", preprocessing="none")
        assert np.allclose(np.asarray(features.X), expected(pooled, photos / "cat"), atol=1e-5)
        # What names the features names them again.
        same = extract(model, photos / "cat", preprocessing="none", layer=features.spec.layer)
        assert (same.spec, same.summary.computed) == (features.spec, 0)


@pytest.mark.parametrize(
    ("activation", "name", "told"),
    [
        (None, "last", "no activation"),
        ("sigmoid", "last", "sigmoid"),
        ("relu", "last", None),
        (None, "pre_logits", None),
        ("sigmoid", "embedding", None),
    ],
)
def test_a_last_layer_that_may_be_of_class_scores_is_kept_with_a_warning(
    photos: Path,
    caplog: pytest.LogCaptureFixture,
    activation: str | None,
    name: str,
    told: str | None,
) -> None:
    import keras

    keras.utils.set_random_seed(0)
    inputs, x = body(keras)
    model = keras.Model(inputs, keras.layers.Dense(4, activation=activation, name=name)(x))
    outer = keras.Input((16, 16, 3))
    for own, before in ((model, "'pool'"), (keras.Model(outer, model(outer)), "/pool'")):
        caplog.clear()
        assert extract(own, photos / "cat", preprocessing="none").spec.layer == "output"
        warned = [r.getMessage() for r in caplog.records if "gives better" in r.getMessage()]
        assert len(warned) == (told is not None)
        assert all(before in text and f"4 values with {told};" in text for text in warned)
        caplog.clear()
        extract(own, photos / "cat", preprocessing="none", layer="output")
        assert "gives better" not in caplog.text


def softmax_of_own(x: Any) -> Any:
    import keras

    return keras.ops.softmax(x)


def wrapped_subclass(keras: Any, x: Any) -> Any:
    class Head(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.dense = keras.layers.Dense(4, activation="softmax")

        def call(self, x: Any) -> Any:
            return self.dense(x)

    return Head()(x)


def lambda_softmax(keras: Any, x: Any) -> Any:
    return keras.layers.Lambda(softmax_of_own)(keras.layers.Dense(4)(x))


def rescaled_softmax(keras: Any, x: Any) -> Any:
    return keras.layers.Rescaling(100.0)(dense_softmax(keras, x))


def cast_softmax(keras: Any, x: Any) -> Any:
    return keras.ops.cast(dense_softmax(keras, x), "float16")


def two_averaged(keras: Any, x: Any) -> Any:
    make = keras.layers
    return make.Average()(
        [make.Dense(4, activation="softmax")(x), make.Dense(4, activation="softmax")(x)]
    )


def own_activation(keras: Any, x: Any) -> Any:
    return keras.layers.Dense(4, activation=softmax_of_own)(x)


def last_relu(keras: Any, x: Any) -> Any:
    return keras.layers.Dense(4, activation="relu", bias_initializer="ones")(x)


def one_value(keras: Any, x: Any) -> Any:
    return keras.layers.Dense(1, activation="relu", bias_initializer="ones")(x)


LIKE_PROBABILITIES: list[tuple[Callable[[Any, Any], Any], int]] = [
    (wrapped_subclass, 1),
    (lambda_softmax, 1),
    (rescaled_softmax, 1),
    (cast_softmax, 1),
    (two_averaged, 1),
    (own_activation, 1),
    (last_relu, 0),
    (one_value, 0),
]


@pytest.mark.parametrize(("end", "told"), LIKE_PROBABILITIES)
def test_features_that_look_like_class_probabilities_are_warned_of_once(
    photos: Path, caplog: pytest.LogCaptureFixture, end: Callable[[Any, Any], Any], told: int
) -> None:
    import keras

    keras.utils.set_random_seed(0)
    inputs, x = body(keras)
    model = keras.Model(inputs, end(keras, x))
    extract(model, photos, layer="output", preprocessing="unit")
    assert "look like" not in caplog.text
    features = extract(model, photos, batch_size=3)
    assert features.spec.layer == "output"
    warned = [r for r in caplog.records if "look like class probabilities" in r.getMessage()]
    assert [r.levelname for r in warned] == ["WARNING"] * told
    assert all("layer='output' keeps" in r.getMessage() for r in warned)


@pytest.fixture
def classifier() -> Any:
    import keras

    inputs, x = body(keras)
    return keras.Model(inputs, dense_softmax(keras, x))


def test_the_default_is_said_and_output_keeps_what_was_stored_under_output(
    photos: Path, classifier: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    import keras

    folder = photos / "cat"
    with caplog.at_level(logging.WARNING, "featcache"):
        features = extract(classifier, folder)
    assert "ends in a classification layer" in caplog.text
    assert "layer='output' keeps" in caplog.text
    pool = keras.Model(classifier.inputs, classifier.get_layer("pool").output)
    assert np.allclose(np.asarray(features.X), expected(pool, folder), atol=1e-5)
    assert (features.spec.layer, features.arguments["layer"]) == ("pool", "pool")
    output = extract(classifier, folder, layer="output")
    assert output.spec.layer == "output"
    assert output.X.shape == (6, 4)
    assert np.allclose(np.asarray(output.X), expected(classifier, folder), atol=1e-5)
    # Of a file as well, the first time and from memory.
    classifier.save(tmp_path / "own.keras")
    for layer, same in ((None, features), ("output", output)):
        for _ in range(2):
            caplog.clear()
            with caplog.at_level(logging.WARNING, "featcache"):
                again = extract(tmp_path / "own.keras", folder, layer=layer)
            assert (again.spec, again.summary.computed) == (same.spec, 0)
            assert ("ends in a classification layer" in caplog.text) == (layer is None)


def test_a_sample_of_a_classifiers_output_is_verified_as_its_output(
    photos: Path, classifier: Any
) -> None:
    folder = extract(classifier, photos, layer="output").summary.folder
    assert verify_sample(folder, photos, 3, backbone=classifier).differing == []


def test_an_index_counts_layers_as_python_does(photos: Path, classifier: Any) -> None:
    by_name = extract(classifier, photos, layer="pool")
    for layer in (-2, 3, "-2", np.int64(-2), np.uint8(3)):
        features = extract(classifier, photos, layer=layer)
        assert (features.spec, features.summary.computed) == (by_name.spec, 0)
    options: dict[str, Any] = {"weights": "random", "image_size": 32}
    named = explain("mobilenet", photos, layer="global_average_pooling2d", **options)
    assert explain("mobilenet", photos, layer=-5, **options).spec == named.spec
    assert explain("mobilenet", photos, layer="output", **options).spec.layer == "output"
    with pytest.raises(UnknownLayer, match=r"5 layers, so layer=-6 is out of range"):
        extract(classifier, photos, layer=-6)


def test_a_layer_whose_name_is_a_number_is_chosen_by_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras

    inputs, x = body(keras)
    model = keras.Model(inputs, dense_softmax(keras, keras.layers.Dense(5, name="1")(x)))
    model.save(tmp_path / "own.keras")
    assert extract(model, photos, layer="1").spec.layer == "1"
    command = ["extract", str(tmp_path / "own.keras"), str(photos), "-q", "--json"]
    for layer, width in (("1", 5), ("3", 6), ("-2", 5)):
        assert main([*command, f"--layer={layer}"]) == 0
        assert json.loads(capsys.readouterr().out)["width"] == width
    for layer in ("--2", "-", "9"):
        assert main([*command, f"--layer={layer}"]) == 2
        assert "own has" in capsys.readouterr().err


def test_a_layer_called_output_before_the_end_never_shares_the_outputs_key(photos: Path) -> None:
    import keras

    inputs, x = body(keras)
    x = keras.layers.Dense(4, name="output")(x)
    model = keras.Model(inputs, keras.layers.ReLU()(x))
    for layer in (None, "output", -2):
        with pytest.raises(InvalidRequest, match="is called 'output' too"):
            extract(model, photos, layer=layer)
    assert extract(model, photos, layer=-1).spec.layer != "output"
