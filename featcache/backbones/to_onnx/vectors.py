"""Layers of Keras that work along the last axis, or on each number, as nodes of ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from .activations import activate
from .writer import GraphWriter, Refused, Shape, Value, spread


def dense(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `Dense`."""
    x = writer.add("MatMul", writer.last(value), writer.constant(np.asarray(layer.kernel)))
    if layer.bias is not None:
        x = writer.add("Add", x, writer.constant(np.asarray(layer.bias)))
    return activate(writer, layer, Value(x, shape), layer.activation)


def layer_normalization(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `LayerNormalization` over the last axis."""
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if [axis % value.rank for axis in axes] != [value.rank - 1]:
        raise Refused(layer, f"its axis {layer.axis} is not the last one")
    if getattr(layer, "rms_scaling", False):
        raise Refused(layer, "it has rms_scaling=True")
    width = int(value.shape[-1] or 0)
    scale = np.ones(width) if layer.gamma is None else np.asarray(layer.gamma)
    weights = [writer.constant(scale)]
    if layer.beta is not None:
        weights.append(writer.constant(np.asarray(layer.beta)))
    x = writer.add(
        "LayerNormalization", writer.last(value), *weights, axis=-1, epsilon=float(layer.epsilon)
    )
    return Value(x, shape)


def rescaling(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `Rescaling`."""
    x, planes = value.name, value.planes
    x = writer.add("Mul", x, spread(writer, layer.scale, planes))
    return Value(writer.add("Add", x, spread(writer, layer.offset, planes)), shape, planes)


def normalization(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `Normalization`, whose mean and variance are known."""
    if layer.invert:
        raise Refused(layer, "it has invert=True")
    scale = np.maximum(np.sqrt(np.asarray(layer.variance, np.float32)), np.float32(1e-7))
    x = writer.add("Sub", writer.last(value), writer.constant(np.asarray(layer.mean)))
    return Value(writer.add("Div", x, writer.constant(scale)), shape)


def layer_scale(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `LayerScale` of ConvNeXt."""
    gamma = spread(writer, np.asarray(layer.gamma), value.planes)
    return Value(writer.add("Mul", value.name, gamma), shape, value.planes)
