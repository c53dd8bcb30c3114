"""Code and layers that a model's configuration does not show are in the key, or refused."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.backbones.architecture import architecture_hash
from featcache.backbones.input_check import check_input
from featcache.errors import InvalidRequest

pytestmark = pytest.mark.filterwarnings("ignore")
Function = Callable[[Any], Any]


def _model(middle: Function) -> Any:
    import keras

    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.GlobalAveragePooling2D(name="pool")(middle(inputs))
    return keras.Model(inputs, outputs)


def _compiled(factor: float) -> Function:
    tf = pytest.importorskip("tensorflow")
    return tf.function(lambda x: x * factor)  # type: ignore[no-any-return]


def _method_of_an_array(factor: float) -> Function:
    return np.float32(factor).__mul__


def _vectorized(factor: float) -> Function:
    return np.vectorize(lambda x: x * factor)


def _deeply_nested(factor: float) -> Any:
    nested: Any = lambda x: x * factor  # noqa: E731
    for _ in range(20):
        nested = [nested]
    return nested


def _holding(value: Any) -> Any:
    import keras

    layer = keras.layers.Identity(name="same")
    layer.held = value
    return _model(layer)


@pytest.mark.parametrize("use", ["Activation", "Lambda", "map"])
def test_a_function_that_tensorflow_compiles_is_part_of_the_key(use: str) -> None:
    import keras

    def key(factor: float) -> str:
        function = _compiled(factor)
        if use == "map":
            return architecture_hash(_model(lambda x: keras.ops.map(function, x)))
        return architecture_hash(_model(getattr(keras.layers, use)(function)))

    assert key(1.0) == key(1.0) != key(2.0)


@pytest.mark.parametrize("make", [_method_of_an_array, _vectorized, _deeply_nested])
def test_whatever_can_be_called_is_part_of_the_key(make: Callable[[float], Any]) -> None:
    keys = [architecture_hash(_holding(make(factor))) for factor in (1.0, 1.0, 2.0)]
    assert keys[0] == keys[1] != keys[2]


def test_a_compiled_function_without_its_source_is_refused() -> None:
    tf = pytest.importorskip("tensorflow")
    concrete = _compiled(2.0).get_concrete_function(  # type: ignore[attr-defined]
        tf.TensorSpec((None, 3))
    )
    with pytest.raises(ValueError, match=r"function that was compiled is not accessible"):
        architecture_hash(_holding(concrete))


@pytest.mark.parametrize("operation", ["map", "vectorized_map"])
def test_a_layer_that_only_an_operation_calls_is_refused(operation: str) -> None:
    """Keras neither lists such a layer nor its weights."""
    import keras

    dense = keras.layers.Dense(3, name="dense")
    model = _model(lambda x: getattr(keras.ops, operation)(dense, x))
    with pytest.raises(ValueError, match=r"'dense'.*not among the model's layers.*call the layer"):
        architecture_hash(model)


def test_a_layer_that_computes_what_a_folder_says_is_refused(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    import keras

    class Doubled(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3))])  # type: ignore[untyped-decorator]
        def serve(self, x: Any) -> Any:
            return x * 2

    module = Doubled()
    tf.saved_model.save(module, str(tmp_path), signatures={"serve": module.serve})
    layer = keras.layers.TFSMLayer(str(tmp_path), call_endpoint="serve")
    with pytest.raises(ValueError, match=r"TFSMLayer.*build the network"):
        architecture_hash(_model(layer))


def test_a_function_whose_name_ends_as_those_for_weights_is_part_of_the_key() -> None:
    import keras

    def key(factor: float) -> str:
        layer = keras.layers.Activation("linear", name="act")
        layer.my_constraint = lambda x: x * factor
        layer.call = types.MethodType(lambda self, x: self.my_constraint(x), layer)
        return architecture_hash(_model(layer))

    assert key(1.0) == key(1.0) != key(2.0)


def test_a_model_whose_class_has_a_call_of_its_own_is_refused() -> None:
    """Its graph of layers, which is what is cut, does not compute what the model does."""
    import keras

    class Doubled(keras.Model):  # type: ignore[misc]
        def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
            return 2 * super().call(inputs)

    class Renamed(keras.Model):  # type: ignore[misc]
        pass

    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.GlobalAveragePooling2D()(inputs)
    check_input(Renamed(inputs, outputs))
    check_input(keras.Sequential([inputs, keras.layers.Flatten()]))
    with pytest.raises(InvalidRequest, match=r"Doubled has a call\(\) of its own.*pass keras"):
        check_input(Doubled(inputs, outputs))
