"""Small model files that would cost much time or memory, and honest ones that must be taken."""

from __future__ import annotations

import json
import os
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import featcache
from featcache.backbones.model_file import _base_of_variables, limited_weights
from featcache.errors import BundleError, ModelRefused


def write(path: Path, model: Any, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Save a model and change its configuration."""
    whole = path.with_name("whole.keras")
    model.save(whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config["config"])
                data = json.dumps(config).encode()
            new.writestr(name, data)
    return path


def one_layer(layer: Any, shape: tuple[Any, ...] = (8, 8, 3)) -> Any:
    import keras

    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


def last(config: dict[str, Any]) -> dict[str, Any]:
    found = config["layers"][-1]
    assert isinstance(found, dict)
    return found


def calls_on_constants(config: dict[str, Any]) -> None:
    """Keras computes a layer at once when no input of it is symbolic."""
    value = {"class_name": "__numpy__", "config": {"value": [[[[1.0]]]], "dtype": "float32"}}
    last(config)["inbound_nodes"].append({"args": [value], "kwargs": {}})


def nested() -> Any:
    import keras

    inner: Any = keras.layers.ReLU()
    for _ in range(6):
        inputs = keras.Input((4,))
        x = inputs
        for _ in range(2):
            x = inner(x)
        inner = keras.Model(inputs, x)
    return inner


def calls_often(config: dict[str, Any]) -> None:
    while config["layers"][-1]["class_name"] == "Functional":
        nodes = last(config)["inbound_nodes"]
        nodes.extend(nodes[-1:] * 8)
        config = last(config)["config"]


def shared(config: dict[str, Any]) -> None:
    """A number stands for an object that is written elsewhere."""
    calls_often(config)
    outer = last(config)
    outer["shared_object_id"] = 1
    again = {**outer, "config": {"layers": []}, "name": "again"}
    config["layers"].append(again)


def backwards(config: dict[str, Any]) -> None:
    config["layers"].reverse()


def chain() -> Any:
    import keras

    x = inputs = keras.Input((1,))
    for _ in range(40):
        x = keras.layers.ReLU()(x)
    return keras.Model(inputs, x)


def costly() -> dict[str, tuple[Any, Callable[[dict[str, Any]], Any], str]]:
    import keras
    from keras import layers

    def repeated(layer: Any) -> Any:
        inputs = keras.Input((2,))
        x = layers.RepeatVector(3)(inputs)
        return keras.Model(inputs, layer(x) if layer is not None else x)

    def many(config: dict[str, Any]) -> None:
        config["layers"][1]["config"]["n"] = 200_000

    def size(**values: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda config: last(config)["config"].update(values)

    tokens = keras.Input((2,))
    x = layers.RepeatVector(3)(tokens)
    heads = keras.Model(tokens, layers.MultiHeadAttention(2, 2)(x, x))
    plain = keras.Model(tokens, layers.Attention()([x, x]))
    additive = keras.Model(tokens, layers.AdditiveAttention()([x, x]))
    image = keras.Input((8, 8, 3))
    outer = keras.Model(image, keras.ops.add(image, keras.ops.ones((1, 8, 8, 3))))

    def broad(config: dict[str, Any]) -> None:
        constant = last(config)["inbound_nodes"][0]["args"][1]
        constant["config"]["value"] = [[[[1.0]]]] * 10_000
        config["layers"][0]["config"]["batch_shape"] = [None, 512, 512, 3]

    def in_one(config: dict[str, Any]) -> None:
        config["layers"][0]["config"]["batch_shape"][0] = 1

    def stateful(config: dict[str, Any]) -> None:
        """Each layer keeps a state as large as its input, which no weights in the file show."""
        in_one(config)
        size(stateful=True)(config)

    frames = (1, 64, 64, 3)
    split = keras.Model(image, keras.ops.split(image, 2, axis=1))
    return {
        "constants": (one_layer(layers.UpSampling2D(2)), calls_on_constants, "constants"),
        "an operation": (outer, broad, "values for an image"),
        "parts": (split, size(indices_or_sections=10**6), "the limit is"),
        "dilation": (one_layer(layers.Conv2D(2, 3, dilation_rate=2, padding="same")),
                     size(dilation_rate=[10**5, 10**5]), "the limit is"),
        "networks in networks": (nested(), calls_often, "calls more than"),
        "shared networks": (nested(), shared, "calls more than"),
        "steps": (repeated(layers.TimeDistributed(layers.ReLU())), many, "loops"),
        "unrolled": (repeated(layers.LSTM(2, unroll=True)), many, "loops"),
        "unrolled both ways": (repeated(layers.Bidirectional(layers.GRU(2, unroll=True))), many,
                               "loops"),
        "state": (one_layer(layers.ConvLSTM2D(1, 1), frames), size(stateful=True), "stateful"),
        "large state": (one_layer(layers.ConvLSTM2D(1, 1), frames), stateful, "batches of"),
        "state both ways": (one_layer(layers.Bidirectional(layers.GRU(2)), (4, 8)),
                            lambda config: last(config)["config"]["layer"]["config"].update(
                                stateful=True), "stateful"),
        "one image at a time": (one_layer(layers.Conv2D(2, 3)), in_one, "batches of 1 images"),
        "heads": (heads, many, "compares"),
        "attention": (plain, many, "compares"),
        "additive": (additive, many, "compares"),
    }  # fmt: skip


def test_small_files_that_ask_for_much_are_refused(tmp_path: Path) -> None:
    for kind, (model, change, reason) in costly().items():
        print(kind)  # shown if it is not refused
        path = write(tmp_path / "costly.keras", model, change)
        with pytest.raises(ModelRefused) as caught:
            featcache.load_model(path)
        assert reason in str(caught.value), kind


def test_layers_in_the_wrong_order_do_not_keep_keras_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "backwards.keras", chain(), backwards)
    featcache.load_model(path)  # a few may be
    monkeypatch.setattr("featcache.backbones.model_config.MAX_REQUEUED", 1000)
    with pytest.raises(ModelRefused, match="order"):
        featcache.load_model(path)


def honest() -> dict[str, Any]:
    import keras
    from keras import layers

    image = keras.Input((8, 8, 3), name="a")
    other = keras.Input((8, 8, 3), name="b")
    part = one_layer(layers.Conv2D(2, 3))
    part.compile("adam", keras.losses.MeanSquaredError(), metrics=["mae"])
    x = keras.ops.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    augmented = image
    for layer in (
        layers.RandomCrop(6, 6), layers.RandomErasing(), layers.RandomHue(0.1),
        layers.RandomGrayscale(), layers.RandomInvert(),
        layers.RandomSaturation(0.1), layers.RandomSharpness(0.1), layers.RandomPerspective(),
        layers.RandomGaussianBlur(), layers.RandomColorJitter(), layers.RandomPosterization(4),
        layers.RandAugment(), layers.AugMix(), layers.AutoContrast(), layers.Solarization(),
        layers.RandomElasticTransform(), layers.RandomColorDegeneration(0.1),
    ):  # fmt: skip
        augmented = layer(augmented)
    return {
        "named inputs": keras.Model({"a": image, "b": other}, {"sum": image + other}),
        "a compiled part": keras.Model(image, part(image)),
        "padding": keras.Model(image, keras.ops.repeat(keras.ops.tile(x, (1, 1, 2, 1)), 2, axis=1)),
        "augmentation": keras.Model(image, augmented),
        "adaptive": one_layer(layers.AdaptiveAveragePooling2D(2)),
        "frames": one_layer(layers.TimeDistributed(layers.Conv2D(2, 3)), (16, 8, 8, 3)),
        "frames in time": one_layer(layers.ConvLSTM1D(2, 3), (4, 8, 3)),
    }


def test_honest_models_are_taken(tmp_path: Path) -> None:
    for kind, model in honest().items():
        path = write(tmp_path / "honest.keras", model, lambda _: None)
        loaded = featcache.load_model(path)
        assert loaded.count_params() == model.count_params(), kind


def test_loads_side_by_side_leave_keras_as_it_was(tiny_model: Any, tmp_path: Path) -> None:
    import keras

    base = _base_of_variables(keras)
    before = base.__init__
    first = limited_weights(keras, 10)
    first.__enter__()
    waiting = threading.Event()

    def second() -> None:
        limited = limited_weights(keras, 10)
        waiting.set()
        with limited:
            pass

    thread = threading.Thread(target=second)
    thread.start()
    waiting.wait()
    thread.join(0.3)  # it waits for the first
    first.__exit__(None, None, None)
    thread.join()
    assert base.__init__ is before


def test_variables_that_are_no_weights_count_too() -> None:
    import keras

    states = [keras.layers.LSTM(100, stateful=True), keras.layers.Dense(100)]
    built = [(50, 4, 3), (50, 100)]
    for layer, shape in zip(states, built, strict=True):
        with (
            pytest.raises(ValueError, match="more than 9,000 weights"),
            limited_weights(keras, 9000),
        ):
            layer.build(shape)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    for name in ("pipe.keras", "pipe.bundle"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(ModelRefused, match="not a regular file"):
        featcache.load_model(tmp_path / "pipe.keras")
    with pytest.raises(BundleError, match="not a regular file"):
        featcache.load_bundle(tmp_path / "pipe.bundle")
