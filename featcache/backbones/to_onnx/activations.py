"""Activations of Keras as nodes of ONNX."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .writer import GraphWriter, Refused, Value

Activation = Callable[[GraphWriter, str], str]


def activate(writer: GraphWriter, layer: Any, value: Value, function: Any) -> Value:
    """Apply an activation function of Keras.

    Parameters
    ----------
    writer : GraphWriter
    layer : keras.Layer
        For messages.
    value : Value
    function : callable or None
        As `keras.activations.get` returns it.
    """
    name = getattr(function, "__name__", None) or type(function).__name__
    if function is None or name == "linear":
        return value
    if name in ("softmax", "log_softmax"):
        return softmax(writer, value, "Softmax" if name == "softmax" else "LogSoftmax", -1)
    known = getattr(function, "__module__", "").startswith("keras.")
    if name not in FUNCTIONS or not known:
        written: Value = writer.write_function(writer, layer, function, value)
        return written
    return Value(FUNCTIONS[name](writer, value.name), value.shape, value.planes)


def softmax(writer: GraphWriter, value: Value, operator: str, axis: int) -> Value:
    """Apply a softmax over an axis of a value as Keras has it."""
    return Value(writer.add(operator, writer.last(value), axis=axis), value.shape)


def _simple(operator: str, **attributes: Any) -> Activation:
    return lambda writer, x: writer.add(operator, x, **attributes)


def clipped(writer: GraphWriter, x: str, low: float | None, high: float) -> str:
    """Return a tensor with its values limited."""
    smallest = "" if low is None else writer.constant(low)
    return writer.add("Clip", x, smallest, writer.constant(high))


def _silu(writer: GraphWriter, x: str) -> str:
    return writer.add("Mul", x, writer.add("Sigmoid", x))


def _gelu(writer: GraphWriter, x: str) -> str:
    """Return x * (1 + erf(x / sqrt(2))) / 2, as a form that ONNX Runtime makes one operator of."""
    scaled = writer.add("Div", x, writer.constant(math.sqrt(2)))
    raised = writer.add("Add", writer.add("Erf", scaled), writer.constant(1))
    return writer.add("Mul", writer.add("Mul", x, raised), writer.constant(0.5))


def _mish(writer: GraphWriter, x: str) -> str:
    return writer.add("Mul", x, writer.add("Tanh", writer.add("Softplus", x)))


FUNCTIONS: dict[str, Activation] = {
    "elu": _simple("Elu"),
    "exponential": _simple("Exp"),
    "gelu": _gelu,
    "hard_sigmoid": _simple("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hard_silu": _simple("HardSwish"),
    "leaky_relu": _simple("LeakyRelu", alpha=0.2),
    "mish": _mish,
    "relu": _simple("Relu"),
    "relu6": lambda writer, x: clipped(writer, x, 0, 6),
    "selu": _simple("Selu"),
    "sigmoid": _simple("Sigmoid"),
    "silu": _silu,
    "softplus": _simple("Softplus"),
    "softsign": _simple("Softsign"),
    "tanh": _simple("Tanh"),
}


def activation_layer(writer: GraphWriter, layer: Any, value: Value) -> Value:
    """Write a layer `Activation`."""
    return activate(writer, layer, value, layer.activation)


def relu(writer: GraphWriter, layer: Any, value: Value) -> Value:
    """Write a layer `ReLU`, which may have a slope below zero and a maximum."""
    if layer.threshold:
        raise Refused(layer, f"its threshold {layer.threshold} is not 0")
    x, slope, highest = value.name, float(layer.negative_slope or 0), layer.max_value
    if slope:
        x = writer.add("LeakyRelu", x, alpha=slope)
        x = x if highest is None else clipped(writer, x, None, float(highest))
    elif highest is None:
        x = writer.add("Relu", x)
    else:
        x = clipped(writer, x, 0, float(highest))
    return Value(x, value.shape, value.planes)


def leaky_relu(writer: GraphWriter, layer: Any, value: Value) -> Value:
    """Write a layer `LeakyReLU`."""
    x = writer.add("LeakyRelu", value.name, alpha=float(layer.negative_slope))
    return Value(x, value.shape, value.planes)


def elu(writer: GraphWriter, layer: Any, value: Value) -> Value:
    """Write a layer `ELU`."""
    return Value(writer.add("Elu", value.name, alpha=float(layer.alpha)), value.shape, value.planes)


def prelu(writer: GraphWriter, layer: Any, value: Value) -> Value:
    """Write a layer `PReLU`, whose slopes are trained."""
    slopes = writer.constant(np.asarray(layer.alpha))
    return Value(writer.add("PRelu", writer.last(value), slopes), value.shape)


def softmax_layer(writer: GraphWriter, layer: Any, value: Value) -> Value:
    """Write a layer `Softmax`."""
    if not isinstance(layer.axis, int):
        raise Refused(layer, f"its axis {layer.axis!r} is not a single one")
    return softmax(writer, value, "Softmax", layer.axis)
