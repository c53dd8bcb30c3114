"""Layers of Keras that join tensors, or change their shape, as nodes of ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .writer import GraphWriter, Shape, Value, refusal, spread

_ARITHMETIC = {
    "Add": "Add", "Subtract": "Sub", "Multiply": "Mul", "Maximum": "Max", "Minimum": "Min",
    "Divide": "Div", "TrueDivide": "Div",
}  # fmt: skip
_TO_PLANES = {1: 2, 2: 3, 3: 1}


def same(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer that changes nothing outside of training: nothing."""
    return value


def reshape(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `Flatten` or `Reshape`; 0 keeps the number of images."""
    sides = [0, *(int(side or 0) for side in shape[1:])]
    return Value(writer.add("Reshape", writer.last(value), writer.integers(sides)), shape)


def permute(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `Permute`."""
    return Value(writer.add("Transpose", writer.last(value), perm=(0, *layer.dims)), shape)


def average_tokens(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `GlobalAveragePooling1D`."""
    return _reduce_tokens(writer, layer, value, shape, "ReduceMean")


def max_tokens(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `GlobalMaxPooling1D`."""
    return _reduce_tokens(writer, layer, value, shape, "ReduceMax")


def _reduce_tokens(
    writer: GraphWriter, layer: Any, value: Value, shape: Shape, operator: str
) -> Value:
    axis = 1 if layer.data_format == "channels_last" else 2
    x = writer.add(operator, value.name, axes=[axis], keepdims=int(layer.keepdims))
    return Value(x, shape)


def concatenate(writer: GraphWriter, layer: Any, values: Sequence[Value], shape: Shape) -> Value:
    """Write a layer `Concatenate`."""
    names, planes = writer.alike(values)
    axis = layer.axis % len(shape)
    x = writer.add("Concat", *names, axis=_TO_PLANES[axis] if planes else axis)
    return Value(x, shape, planes)


def arithmetic(writer: GraphWriter, layer: Any, values: Sequence[Any], shape: Shape) -> Value:
    """Write a layer or operation that joins tensors, and numbers, number by number."""
    tensors = [value for value in values if isinstance(value, Value)]
    others = [np.shape(value) for value in values if not isinstance(value, Value)]
    if len({value.rank for value in tensors}) > 1 or any(len(shape) > 1 for shape in others):
        shapes = [*(value.shape for value in tensors), *others]
        raise refusal(layer, f"its inputs have different numbers of axes, {shapes}")
    names, planes = writer.alike(tensors)
    waiting = iter(names)
    all_names = [
        next(waiting) if isinstance(value, Value) else spread(writer, value, planes)
        for value in values
    ]
    operator = _ARITHMETIC[type(layer).__name__]
    x = all_names[0]
    for other in all_names[1:]:
        x = writer.add(operator, x, other)
    return Value(x, shape, planes)


def average(writer: GraphWriter, layer: Any, values: Sequence[Value], shape: Shape) -> Value:
    """Write a layer `Average`."""
    names, planes = writer.alike(values)
    return Value(writer.add("Mean", *names), shape, planes)


def scaled_sum(writer: GraphWriter, layer: Any, values: Sequence[Value], shape: Shape) -> Value:
    """Write a layer `CustomScaleLayer` of Inception-ResNet: the first plus the scaled second."""
    (first, second), planes = writer.alike(values)
    scaled = writer.add("Mul", second, writer.constant(float(layer.scale)))
    return Value(writer.add("Add", first, scaled), shape, planes)


def first_token(writer: GraphWriter, layer: Any, values: Sequence[Any], shape: Shape) -> Value:
    """Write the operation ``x[:, 0]`` on tokens."""
    value, key = values
    if key != (slice(None), 0) or value.rank != 3:
        raise refusal(layer, f"of the indices of tensors only [:, 0] of tokens is known, not {key}")
    return Value(writer.add("Gather", value.name, writer.integers(0), axis=1), shape)
