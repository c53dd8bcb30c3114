"""The network of a fine-tuned model: what is trained, and its preprocessing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import featcache
from bench import FineTuned
from bench.finetune.network import (
    Top,
    _preprocessing_layers,
    build_network,
    first_free_layer,
    weight_counts,
)
from bench.finetune.own_model import copy_own_model
from conftest import make_tiny_model
from featcache.backbones.preprocessing import apply
from featcache.errors import InvalidRequest


def network(unfreeze: Any, model: Any = None, rule: str | None = None, **options: Any) -> Any:
    resolved = featcache.load_backbone(model or make_tiny_model(), preprocessing=rule)
    top = Top(options.get("units", (4,)), options.get("dropout", 0.0))
    made = build_network(resolved.backbone, 3, unfreeze, top, options.get("random_state", 0))
    return made.full, resolved.backbone


LAYERS = [("input", 0), ("conv1", 10), ("bn1", 4), ("conv5_block2_1", 30), ("conv5_block3", 56)]


@pytest.mark.parametrize(
    ("unfreeze", "first"),
    [
        (0.0, 5),
        (0.5, 4),
        (0.56, 4),
        (0.57, 3),
        (1.0, 1),
        (0, 5),
        (2, 3),
        (99, 0),
        ("conv5_block2", 3),
    ],
)
def test_the_free_part_begins_where_it_was_asked_to(unfreeze: Any, first: int) -> None:
    assert first_free_layer(LAYERS, unfreeze) == first


@pytest.mark.parametrize("unfreeze", [-0.1, 1.1, -3, True, "conv9"])
def test_a_part_that_makes_no_sense_is_refused(unfreeze: Any) -> None:
    with pytest.raises(InvalidRequest, match="unfreeze="):
        first_free_layer(LAYERS, unfreeze)


def test_the_reference_presets_free_what_the_reference_runs_freed() -> None:
    import keras

    resnet = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), include_top=False)
    layers = weight_counts(resnet)
    first = first_free_layer(layers, "conv5_block2")
    free = sum(count for _, count in layers[first:])
    assert free / 1e6 == pytest.approx(8.9, abs=0.06)
    assert FineTuned.preset("resnet50-40").unfreeze == "conv5_block2"
    assert FineTuned.preset("vgg19-frozen", epochs=3).schedule.epochs == 3
    with pytest.raises(InvalidRequest, match="no preset"):
        FineTuned.preset("alexnet")


def test_frozen_layers_do_not_change_and_free_ones_do() -> None:
    model, backbone = network(0.0)
    free, _ = network(1.0)
    assert len(model.trainable_variables) == 4  # the new top alone
    assert len(free.trainable_variables) == 6
    assert [layer.trainable for layer in backbone.model.layers[1:]] == [False] * 3


def test_batch_normalisation_stays_in_inference_mode_even_where_it_is_free() -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Rescaling(1 / 255)(inputs))
    outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
    model, _ = network(1.0, keras.Model(inputs, outputs))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    body = next(layer for layer in model.layers if hasattr(layer, "layers"))
    norm = body.get_layer("norm")
    before = [w.copy() for w in norm.get_weights()]
    pixels = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3)).astype("float32")
    for _ in range(3):
        model.train_on_batch(pixels, np.array([0, 1, 2, 0, 1, 2]))
    assert all(np.array_equal(a, b) for a, b in zip(before, norm.get_weights(), strict=True))
    assert np.allclose(model(pixels, training=True), model(pixels, training=False))


@pytest.mark.parametrize("rule", ["none", "unit", "tf", "torch", "caffe"])
def test_preprocessing_inside_the_model_is_that_of_extraction(rule: str) -> None:
    import keras

    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    x = pixels.astype("float32")
    for layer in _preprocessing_layers(keras, rule):
        x = layer(x)
    assert np.allclose(np.asarray(x), apply(rule, pixels), atol=1e-4)


def test_a_preprocessing_function_is_refused_since_it_cannot_be_saved() -> None:
    import keras

    inputs = keras.Input((4, 4, 3))
    body = keras.Model(inputs, keras.layers.Flatten()(inputs))
    resolved = featcache.load_backbone(body, preprocessing=lambda x: x / 3)
    with pytest.raises(InvalidRequest, match="named rules"):
        build_network(resolved.backbone, 2, 0.0, Top((), 0.0), 0)


def test_a_nested_model_stays_in_inference_mode() -> None:
    import keras

    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
    )
    inputs = keras.Input((8, 8, 3))
    body = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inner(inputs)))
    resolved = featcache.load_backbone(body, preprocessing="unit")
    trained = build_network(resolved.backbone, 3, 1.0, Top((), 0.0), 0).trained
    trained.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    norm = inner.layers[-1]
    before = [w.copy() for w in norm.get_weights()]
    pixels = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3)).astype("float32")
    trained.train_on_batch(pixels, np.array([0, 1, 2, 0, 1, 2]))
    assert all(np.array_equal(a, b) for a, b in zip(before, norm.get_weights(), strict=True))
    assert np.allclose(trained(pixels, training=True), trained(pixels, training=False))


def test_the_copy_of_an_own_model_has_its_normalisation() -> None:
    import keras

    pixels = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3)).astype("float32")
    norm = keras.layers.Normalization(axis=-1)
    norm.adapt(pixels)
    inputs = keras.Input((8, 8, 3))
    own = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(norm(inputs)))
    resolved = featcache.load_backbone(own, preprocessing="none")
    copy_own_model(resolved)
    copy = resolved.backbone.model
    assert copy is not own
    assert np.allclose(copy.predict_on_batch(pixels), own.predict_on_batch(pixels), atol=1e-5)
