"""Layers of Keras that join tensors, or change their shape, as nodes of ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .writer import GraphWriter, Refused, Shape, Value, spread

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


def concatenate(writer: GraphWriter, layer: Any, values: Sequence[Any], shape: Shape) -> Value:
    """Write a layer or operation that concatenates tensors, and rows that all images share."""
    tensors = [value for value in values if isinstance(value, Value)]
    values = [
        value if isinstance(value, Value) else _for_each_image(writer, value, tensors[0])
        for value in values
    ]
    names, planes = writer.alike(values)
    axis = layer.axis % len(shape)
    x = writer.add("Concat", *names, axis=_TO_PLANES[axis] if planes else axis)
    return Value(x, shape, planes)


def _for_each_image(writer: GraphWriter, values: Any, beside: Value) -> Value:
    """Repeat an array (1, ...), such as a first token, for as many images as a tensor has."""
    array = np.asarray(values)
    images = writer.add(
        "Slice", writer.add("Shape", beside.name), *map(writer.integers, ([0], [1]))
    )
    sides = writer.add("Concat", images, writer.integers(array.shape[1:]), axis=0)
    return Value(writer.add("Expand", writer.constant(array), sides), (None, *array.shape[1:]))


def arithmetic(writer: GraphWriter, layer: Any, values: Sequence[Any], shape: Shape) -> Value:
    """Write a layer or operation that joins tensors, and numbers, number by number."""
    tensors = [value for value in values if isinstance(value, Value)]
    if len({value.rank for value in tensors}) > 1:
        shapes = [value.shape for value in tensors]
        raise Refused(layer, f"its inputs have different numbers of axes, {shapes}")
    names, planes = writer.alike(tensors)
    if planes and any(np.ndim(value) > 1 for value in values if not isinstance(value, Value)):
        names, planes = [writer.last(value) for value in tensors], False
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


def reshape_operation(
    writer: GraphWriter, layer: Any, values: Sequence[Any], shape: Shape
) -> Value:
    """Write the operation `keras.ops.reshape`, which keeps the images apart."""
    value = values[0]
    if shape[0] not in (None, 1):
        raise Refused(layer, f"it makes {shape[0]} rows of one image")
    return reshape(writer, layer, value, shape)


def get_item(writer: GraphWriter, layer: Any, values: Sequence[Any], shape: Shape) -> Value:
    """Write an operation such as ``x[:, 0]`` or ``x[:, 1:, ::2]``."""
    value, key = values
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (value.rank - len(keys) + 1)
    plain = all(isinstance(one, int) or _goes_forward(one) for one in keys)
    if not plain or keys[0] != slice(None):
        raise Refused(layer, f"the indices {key} are not known")
    x = writer.last(value)
    dropped = []
    for axis, (one, side) in enumerate(zip(keys, value.shape, strict=False)):
        if one == slice(None):
            continue
        if isinstance(one, int):
            dropped.append(axis)
            one = slice(one, None if one == -1 else one + 1)
        bounds = one.indices(int(side or 0))
        given = [writer.integers([number]) for number in (*bounds[:2], axis, bounds[2])]
        x = writer.add("Slice", x, *given)
    if dropped:
        x = writer.add("Squeeze", x, writer.integers(dropped))
    return Value(x, shape)


def _goes_forward(key: Any) -> bool:
    """Return whether an index is a slice that does not reverse the order."""
    return isinstance(key, slice) and (key.step is None or key.step > 0)
