"""The key of one's own model: two models that compute differently never share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from featcache.backbones.architecture import architecture_hash

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
