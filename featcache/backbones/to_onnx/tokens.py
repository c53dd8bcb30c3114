"""What transformers of Keras consist of, as nodes of ONNX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activations import FUNCTIONS, activate, softmax
from .writer import GraphWriter, Refused, Shape, Value


def einsum_dense(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `EinsumDense` that is a matrix product over the last axes of its input."""
    taken, kernel_axes, given = layer.equation.replace("->", ",").split(",")
    count = sum(axis in kernel_axes for axis in taken)
    kept = taken[: len(taken) - count]
    fits = taken == kept + kernel_axes[:count] and given == kept + kernel_axes[count:]
    if not fits or "." in taken:
        raise Refused(layer, f"its equation {layer.equation!r} is not a matrix product")
    kernel: NDArray[Any] = np.asarray(layer.kernel)
    before, after = value.shape[: len(kept)], kernel.shape[count:]
    x = writer.last(value)
    if count > 1:
        x = _reshaped(writer, x, (*before[1:], math.prod(kernel.shape[:count])))
    x = writer.add("MatMul", x, writer.constant(kernel.reshape(-1, math.prod(after))))
    if len(after) > 1:
        x = _reshaped(writer, x, (*before[1:], *after))
    if layer.bias is not None:
        x = writer.add("Add", x, writer.constant(np.asarray(layer.bias)))
    return activate(writer, layer, Value(x, (*before, *after)), layer.activation)


def attention(writer: GraphWriter, layer: Any, values: Sequence[Any], shape: Shape) -> Value:
    """Write the operation `keras.ops.dot_product_attention` without a mask."""
    query, key, value = (_as_value(writer, one) for one in values[:3])
    scale: Any = values[3] if len(values) > 3 else 1 / math.sqrt(query.shape[-1] or 1)
    capped = getattr(layer, "attn_logits_soft_cap", None)
    if len(values) > 4 or layer.is_causal or capped or query.shape[2] != key.shape[2]:
        raise Refused(layer, "it has a bias, a mask, a cap, or fewer heads of keys than of queries")
    by_head = (0, 2, 1, 3)
    queries = writer.add("Transpose", query.name, perm=by_head)
    keys = writer.add("Transpose", key.name, perm=(0, 2, 3, 1))
    scaled = writer.add("Mul", queries, writer.constant(float(scale)))
    weights = writer.add("Softmax", writer.add("MatMul", scaled, keys), axis=-1)
    mixed = writer.add("MatMul", weights, writer.add("Transpose", value.name, perm=by_head))
    return Value(writer.add("Transpose", mixed, perm=by_head), shape)


def gelu(writer: GraphWriter, layer: Any, values: Sequence[Any], shape: Shape) -> Value:
    """Write the operation `keras.ops.gelu`, exact or approximate."""
    (value,) = values[:1]
    if not layer.approximate:
        return Value(FUNCTIONS["gelu"](writer, value.name), shape, value.planes)
    x = value.name
    cube = writer.add("Mul", writer.add("Mul", x, x), x)
    inner = writer.add("Add", x, writer.add("Mul", cube, writer.constant(0.044715)))
    tanh = writer.add("Tanh", writer.add("Mul", inner, writer.constant(math.sqrt(2 / math.pi))))
    raised = writer.add("Add", tanh, writer.constant(1))
    x = writer.add("Mul", writer.add("Mul", x, raised), writer.constant(0.5))
    return Value(x, shape, value.planes)


def mean(writer: GraphWriter, layer: Any, values: Sequence[Any], shape: Shape) -> Value:
    """Write the operation `keras.ops.mean` over axes that are not that of the images."""
    (value,) = values
    given = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    axes = [value.rank if axis is None else axis % value.rank for axis in given]
    if not set(axes) <= set(range(1, value.rank)):
        raise Refused(layer, f"its axis {layer.axis} takes in other images")
    x = writer.add("ReduceMean", writer.last(value), axes=axes, keepdims=int(layer.keepdims))
    return Value(x, shape)


def sigmoid(writer: GraphWriter, layer: Any, values: Sequence[Any], shape: Shape) -> Value:
    """Write the operation `keras.ops.sigmoid`."""
    return Value(writer.add("Sigmoid", values[0].name), shape, values[0].planes)


def product(writer: GraphWriter, layer: Any, values: Sequence[Any], shape: Shape) -> Value:
    """Write the operation `keras.ops.matmul` on tensors."""
    names = [writer.last(_as_value(writer, value)) for value in values]
    return Value(writer.add("MatMul", *names), shape)


def softmax_operation(
    writer: GraphWriter, layer: Any, values: Sequence[Any], shape: Shape
) -> Value:
    """Write the operation `keras.ops.softmax`."""
    return softmax(writer, values[0], "Softmax", int(layer.axis))


def transpose(writer: GraphWriter, layer: Any, values: Sequence[Any], shape: Shape) -> Value:
    """Write the operation `keras.ops.transpose` that keeps the images apart."""
    axes = tuple(layer.axes or reversed(range(len(shape))))
    if axes[0] != 0:
        raise Refused(layer, f"its axes {axes} do not begin with that of the images")
    return Value(writer.add("Transpose", writer.last(values[0]), perm=axes), shape)


def _as_value(writer: GraphWriter, value: Any) -> Value:
    """Return a tensor, or an array, such as a trained query, which is the same for all images."""
    if isinstance(value, Value):
        return value
    return Value(writer.constant(np.asarray(value)), tuple(value.shape))


def _reshaped(writer: GraphWriter, x: str, sides: Sequence[int | None]) -> str:
    """Return a tensor of other axes for each image."""
    return writer.add("Reshape", x, writer.integers([0, *(int(side or 0) for side in sides)]))
