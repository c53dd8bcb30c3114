"""The key of one's own model: two models that compute differently never share it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import photo
from featcache import extract
from featcache.backbones.architecture import architecture_hash, layer_names
from featcache.backbones.graph import resolve_layer
from featcache.backbones.own_code import own_code
from featcache.errors import InvalidRequest

PINNED = "688a166fdf7f74cb"
Build = Callable[[str], Any]


def network(*layers: Any, name: str | None = None) -> Any:
    import keras

    x = inputs = keras.Input((8, 8, 3), name="in")
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x, name=name)


def _named_by_activation(word: str) -> Any:
    import keras

    return network(keras.layers.Activation(word, name=word))


def _model_named_by_activation(word: str) -> Any:
    import keras

    return network(keras.layers.Conv2D(2, 3, activation=word, name="c"), name=word)


def _named_by_padding(word: str) -> Any:
    import keras

    padding = {"relu": "same", "tanh": "valid"}[word]
    return network(keras.layers.Conv2D(2, 3, padding=padding, name=padding))


def _named_by_dtype(word: str) -> Any:
    import keras

    dtype = {"relu": "float32", "tanh": "bfloat16"}[word]
    return network(keras.layers.Conv2D(2, 3, dtype=dtype, name=dtype))


def _nested(word: str) -> Any:
    inner = _named_by_activation(word)
    inner.name = "inner"
    return network(inner)


def _nested_named_by_activation(word: str) -> Any:
    return network(_model_named_by_activation(word))


def _sequential(word: str) -> Any:
    import keras

    return keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Activation(word, name=word)])


def _wrapped(word: str) -> Any:
    import keras

    dense = keras.layers.Dense(2, activation=word, name="inner")
    return network(keras.layers.TimeDistributed(dense, name=word))


def _argument(word: str) -> Any:
    import keras

    method = {"relu": "bilinear", "tanh": "nearest"}[word]
    inputs = keras.Input((8, 8, 3), name="in")
    x = keras.layers.Conv2D(2, 3, name=method)(inputs)
    return keras.Model(inputs, keras.ops.image.resize(x, (4, 4), interpolation=method))


@pytest.mark.parametrize(
    "build",
    [
        _named_by_activation, _model_named_by_activation, _named_by_padding, _named_by_dtype,
        _nested, _nested_named_by_activation, _sequential, _wrapped, _argument,
    ],
)  # fmt: skip
def test_a_setting_that_equals_a_name_is_part_of_the_key(build: Build) -> None:
    import keras

    hashes = []
    for word in ("relu", "tanh"):
        keras.utils.clear_session()
        hashes.append(architecture_hash(build(word)))
    assert hashes[0] != hashes[1]


def _shared(*names: str | None) -> Any:
    import keras

    kinds = keras.layers.Dense, keras.layers.Softmax, keras.Sequential, keras.layers.Add
    dense, softmax, inner, add = (
        kind(*given, name=name)
        for kind, given, name in zip(
            kinds, [(3,), (), ([keras.layers.Dense(3)],), ()], names, strict=True
        )
    )
    inputs = keras.Input((8, 8, 3))
    x = softmax(dense(dense(inputs)))
    return keras.Model(inputs, add([inner(x), x]))


def test_names_of_layers_are_no_part_of_the_key() -> None:
    automatic = architecture_hash(_shared(None, None, None, None))
    assert architecture_hash(_shared(None, None, None, None)) == automatic
    assert architecture_hash(_shared("softmax_1", "dense", "layer1", "softmax")) == automatic


def test_the_keys_of_networks_with_automatic_names_are_pinned() -> None:
    """They are in the keys of stores, whatever else a session has built before."""
    import keras

    def build() -> str:
        return architecture_hash(
            keras.applications.MobileNetV3Small(weights=None, input_shape=(32, 32, 3))
        )

    keras.utils.clear_session()
    assert build()[:16] == build()[:16] == PINNED


_SCALE = 1.0


class _Scaled:
    """Mixed into layers below, so that their code is in a base that is no layer."""

    factor = 1.0

    def call(self, x: Any) -> Any:
        return x * self.factor * _SCALE

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def _layer_class(**attributes: Any) -> Any:
    import keras

    return type("Own", (_Scaled, keras.layers.Layer), attributes)


def _activation(scale: float) -> Any:
    import keras

    return network(keras.layers.Dense(2, activation=_multiply(scale)))


def _multiply(scale: float) -> Any:
    def own(x: Any) -> Any:
        return x * scale

    return own


def _lambda_with_closure(scale: float) -> Any:
    import keras

    return network(keras.layers.Lambda(_multiply(scale)))


def _lambda_with_global(scale: float) -> Any:
    import keras

    globals()["_SCALE"] = scale
    return network(keras.layers.Lambda(lambda x: x * _SCALE))


def _layer_with_global(scale: float) -> Any:
    globals()["_SCALE"] = scale
    return network(_layer_class()())


def _base_class(scale: float) -> Any:
    return network(type("Child", (_layer_class(factor=scale),), {})())


def _later_attribute(scale: float) -> Any:
    layer = _layer_class()()
    layer.factor = scale
    return network(layer)


def _in_a_wrapper(scale: float) -> Any:
    import keras

    return network(keras.layers.TimeDistributed(_layer_class(factor=scale)()))


def _in_a_list(scale: float) -> Any:
    layer = _layer_class(call=lambda self, x: self.parts[1](x))()
    layer.parts = [3, _multiply(scale)]
    return network(layer)


def _called_with_a_function(scale: float) -> Any:
    import keras

    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.ops.vectorized_map(_multiply(scale), inputs))


def _call_replaced(scale: float) -> Any:
    import keras

    layer = keras.layers.ReLU()
    layer.call = _multiply(scale)
    return network(layer)


def _untracked_variable(scale: float) -> Any:
    import keras

    class Holder:
        value = keras.Variable(scale)

    return network(keras.layers.Lambda(lambda x: x * Holder.value))


def _setting_that_keras_knows(scale: float) -> Any:
    layer = _layer_class(get_config=lambda self: {"seed": self.seed})()
    layer.seed = scale
    return network(layer)


def _order_of_classes(scale: float) -> Any:
    one, two = (_layer_class(factor=factor) for factor in (scale, 4 - scale))
    return network(one(), two())


OWN = [
    _activation, _lambda_with_closure, _lambda_with_global, _layer_with_global, _base_class,
    _later_attribute, _in_a_wrapper, _in_a_list, _called_with_a_function, _call_replaced,
    _untracked_variable, _setting_that_keras_knows, _order_of_classes,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build", OWN)
def test_code_of_ones_own_is_part_of_the_key(
    build: Callable[[float], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    monkeypatch.setitem(globals(), "_SCALE", 1.0)
    hashes = []
    for scale in (1.0, 3.0, 1.0):
        keras.utils.clear_session()
        hashes.append(architecture_hash(build(scale)))
    assert hashes[0] != hashes[1]
    assert hashes[0] == hashes[2]


@pytest.mark.filterwarnings("ignore")
def test_code_of_ones_own_gives_the_same_key_whatever_was_built_before() -> None:
    import keras

    def build() -> str:
        inner = _layer_class(
            __init__=lambda self: (
                keras.layers.Layer.__init__(self),
                setattr(self, "inner", keras.layers.Dense(2)),
                setattr(self, "random", keras.random.SeedGenerator(1)),
                setattr(self, "start", keras.initializers.Zeros()),
            )[0]
        )()
        return architecture_hash(network(inner, keras.layers.Dense(2, activation=_multiply(2))))

    assert build() == build()


def test_objects_that_cannot_be_read_are_refused() -> None:
    layer = _layer_class()()
    layer.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"'own.*type _thread.lock.*cannot be read"):
        architecture_hash(network(layer))


def test_a_model_whose_configuration_cannot_be_read_is_refused_with_the_reason() -> None:
    def fails(_: Any) -> Any:
        raise NotImplementedError("no configuration")

    with pytest.raises(ValueError, match=r"get_config\(\) failed: no configuration"):
        architecture_hash(network(_layer_class(get_config=fails)()))


def test_extracting_with_such_a_model_says_what_to_do(photos: Path) -> None:
    layer = _layer_class()()
    layer.lock = threading.Lock()
    with pytest.raises(InvalidRequest, match="make other objects inside call"):
        extract(network(layer), photos, preprocessing="unit")


def test_keras_own_layers_around_ones_own_have_no_code() -> None:
    import keras

    model = network(keras.layers.Dense(2), _layer_class()(), keras.layers.Dense(2))
    assert [place for place, _ in own_code(model)] == ["2"]
    assert own_code(network(keras.layers.Dense(2, activation=keras.activations.relu))) == []


def _names_that_clash() -> Any:
    import keras

    make = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = make.Conv2D(4, 3, name="conv")(inputs)
    x = make.ReLU(name="activation")(x)
    x = make.Activation("tanh")(x)
    x = make.Conv2D(5, 3, name="activation_2")(x)
    x = make.Activation("sigmoid")(x)
    return keras.Model(inputs, make.GlobalAveragePooling2D()(x))


def test_a_given_name_that_a_fresh_session_would_give_takes_no_layers_place() -> None:
    import keras

    make = keras.layers.Activation
    found = []
    for built_before in (3, 5):
        keras.utils.clear_session()
        for _ in range(built_before):
            make("relu")
        model = _names_that_clash()
        names = layer_names(model)
        assert list(names.values()) == model.layers
        assert names["activation"] is model.layers[2]
        assert names["activation_2"] is model.layers[4]
        found.append(list(names))
        for index in range(-len(model.layers), len(model.layers)):
            assert names[resolve_layer(model, index, "m")] is model.layers[index]
    assert found[0] == found[1]


def test_an_index_gives_the_rows_of_the_layer_of_that_index(tmp_path: Path) -> None:
    import keras

    keras.utils.clear_session()
    for _ in range(3):
        keras.layers.Activation("relu")
    model = _names_that_clash()
    paths = [photo(tmp_path / f"{seed}.png", seed, (8, 8)) for seed in range(4)]
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    for index in (2, 3, -2, -3):
        features = extract(model, paths, layer=index, preprocessing="unit", engine="keras")
        cut = keras.Model(model.inputs, model.layers[index].output)
        expected = cut.predict(pixels / np.float32(255), verbose=0).mean(axis=(1, 2))
        assert np.allclose(features.X, expected, atol=1e-5)
