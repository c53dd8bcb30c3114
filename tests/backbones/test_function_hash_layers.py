"""Functions of a user's own in layers of Keras count as such, whatever names they bear."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from featcache.backbones.architecture import architecture_hash
from featcache.backbones.function_hash import function_hash
from featcache.errors import InvalidRequest

Function = Callable[[Any], Any]


def _key_or_refusal(hash_of: Callable[[Any], str], value: Any) -> str | None:
    try:
        return hash_of(value)
    except ValueError:
        return None


def _share_a_key(hash_of: Callable[[Any], str], values: list[Any]) -> bool:
    keys = {_key_or_refusal(hash_of, value) for value in values}
    return len(keys) == 1 and None not in keys


def _model(middle: Function) -> Any:
    import keras

    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.GlobalAveragePooling2D(name="pool")(middle(inputs))
    return keras.Model(inputs, outputs)


def _with_the_names_of_one_of_keras(factor: float) -> Function:
    import keras

    @functools.wraps(keras.activations.relu)
    def times(x: Any) -> Any:
        return x * factor

    return times


def _from_text(factor: float) -> Function:
    namespace: dict[str, Any] = {}
    exec(f"def times(x): return x * {factor}", namespace)
    return namespace["times"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [_with_the_names_of_one_of_keras, _from_text])
@pytest.mark.parametrize("use", ["Activation", "Lambda", "map"])
def test_a_users_function_in_a_layer_of_keras_is_part_of_the_key(
    make: Callable[[float], Function], use: str
) -> None:
    import keras

    def middle(function: Function) -> Function:
        if use == "map":
            return lambda x: keras.ops.map(function, x)
        return getattr(keras.layers, use)(function)  # type: ignore[no-any-return]

    models = [_model(middle(make(factor))) for factor in (1.0, 2.0)]
    assert not _share_a_key(architecture_hash, models)


def test_a_class_that_calls_itself_one_of_keras_is_looked_into() -> None:
    import keras

    def of(factor: float) -> Any:
        class Times(keras.layers.Layer):  # type: ignore[misc]
            def __init__(self, factor: float, **options: Any) -> None:
                super().__init__(**options)
                self.factor = factor

            def call(self, x: Any) -> Any:
                return x * self.factor

            def get_config(self) -> dict[str, Any]:
                return super().get_config()  # type: ignore[no-any-return]

        Times.__module__ = "keras.layers"
        return _model(Times(factor, name="times"))

    assert not _share_a_key(architecture_hash, [of(1.0), of(2.0)])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: f,
        lambda f: functools.partial(f),
        lambda f: pytest.importorskip("tensorflow").function(f),
    ],
    ids=["plain", "partial", "tensorflow"],
)
@pytest.mark.parametrize("make", [_with_the_names_of_one_of_keras, _from_text])
def test_a_preprocessing_layer_with_ones_own_function_is_refused(
    make: Callable[[float], Function], wrap: Callable[[Function], Any]
) -> None:
    import keras

    with pytest.raises(InvalidRequest, match="code of your own"):
        function_hash(keras.layers.Activation(wrap(make(2.0))))


def test_preprocessing_layers_of_keras_alone_have_keys() -> None:
    import keras

    layers = keras.layers
    made = [
        layers.Rescaling(2.0), layers.Resizing(8, 8), layers.CenterCrop(8, 8),
        layers.Activation("relu"), layers.Normalization(mean=0.5, variance=1.0),
        layers.Conv2D(3, 3, activation="gelu"),
        keras.Sequential([layers.Rescaling(2.0), layers.Activation("tanh")]),
    ]  # fmt: skip
    assert len({function_hash(layer) for layer in made}) == len(made)
