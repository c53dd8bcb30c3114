"""Layers on images of Keras as nodes of ONNX: convolutions, pooling, normalization per channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activations import activate
from .writer import GraphWriter, Refused, Shape, Value

_Pads = tuple[int, int, int, int]


def conv2d(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `Conv2D`."""
    kernel = np.asarray(layer.kernel).transpose(3, 2, 0, 1)
    x = _convolve(writer, layer, value, kernel, _array(layer.bias), int(layer.groups))
    return activate(writer, layer, Value(x, shape, True), layer.activation)


def depthwise(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `DepthwiseConv2D`."""
    kernel = _by_channel(layer.kernel)
    x = _convolve(writer, layer, value, kernel, _array(layer.bias), _channels(value))
    return activate(writer, layer, Value(x, shape, True), layer.activation)


def separable(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `SeparableConv2D`: a depthwise convolution, then one of 1 x 1."""
    kernel = _by_channel(layer.depthwise_kernel)
    x = _convolve(writer, layer, value, kernel, None, _channels(value))
    mixing = writer.constant(np.asarray(layer.pointwise_kernel).transpose(3, 2, 0, 1))
    bias = [] if layer.bias is None else [writer.constant(np.asarray(layer.bias))]
    x = writer.add("Conv", x, mixing, *bias, kernel_shape=(1, 1))
    return activate(writer, layer, Value(x, shape, True), layer.activation)


def max_pooling(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `MaxPooling2D`."""
    return _pool(writer, layer, value, shape, "MaxPool")


def average_pooling(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `AveragePooling2D`, which leaves out what is padded."""
    return _pool(writer, layer, value, shape, "AveragePool")


def global_average(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `GlobalAveragePooling2D`."""
    return _pool_all(writer, layer, value, shape, "GlobalAveragePool")


def global_max(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `GlobalMaxPooling2D`."""
    return _pool_all(writer, layer, value, shape, "GlobalMaxPool")


def batch_normalization(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `BatchNormalization`, with the averages of the training."""
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
    if axis not in (-1, value.rank - 1):
        raise Refused(layer, f"its axis {layer.axis} is not the last one")
    mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
    scale = np.ones_like(mean) if layer.gamma is None else np.asarray(layer.gamma)
    offset = np.zeros_like(mean) if layer.beta is None else np.asarray(layer.beta)
    if value.rank in (2, 4):
        given = [writer.constant(values) for values in (scale, offset, mean, variance)]
        x = writer.planes(value) if value.rank == 4 else value.name
        x = writer.add("BatchNormalization", x, *given, epsilon=float(layer.epsilon))
        return Value(x, shape, value.rank == 4)
    factor = scale / np.sqrt(variance + layer.epsilon)
    x = writer.add("Mul", value.name, writer.constant(factor))
    return Value(writer.add("Add", x, writer.constant(offset - mean * factor)), shape)


def zero_padding(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `ZeroPadding2D`."""
    check_layout(layer)
    (top, bottom), (left, right) = layer.padding
    pads = writer.integers([0, 0, top, left, 0, 0, bottom, right])
    return Value(writer.add("Pad", writer.planes(value), pads), shape, True)


def cropping(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `Cropping2D`."""
    check_layout(layer)
    (top, _), (left, _) = layer.cropping
    return crop(writer, value, (top, left), shape)


def center_crop(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `CenterCrop` for images that are not smaller than what is cropped."""
    check_layout(layer)
    height, width = _sides(value.shape)
    top, left = (height - layer.height) // 2, (width - layer.width) // 2
    if min(top, left) < 0:
        raise Refused(layer, f"images of {height} x {width} pixels are smaller, so it resizes them")
    return crop(writer, value, (top, left), shape)


def crop(writer: GraphWriter, value: Value, start: tuple[int, int], shape: Shape) -> Value:
    """Cut a rectangle of the size of `shape` out of a value."""
    end = [first + side for first, side in zip(start, _sides(shape), strict=True)]
    given = [writer.integers(list(numbers)) for numbers in (start, end, (2, 3))]
    return Value(writer.add("Slice", writer.planes(value), *given), shape, True)


def upsampling(writer: GraphWriter, layer: Any, value: Value, shape: Shape) -> Value:
    """Write a layer `UpSampling2D`."""
    check_layout(layer)
    modes = {
        "nearest": {"mode": "nearest", "nearest_mode": "floor"},
        "bilinear": {"mode": "linear"},
    }
    if layer.interpolation not in modes:
        raise Refused(layer, f"its interpolation {layer.interpolation!r} is not one of {[*modes]}")
    place = "asymmetric" if layer.interpolation == "nearest" else "half_pixel"
    factors = writer.constant([1, 1, *map(float, layer.size)])
    x = writer.add(
        "Resize", writer.planes(value), "", factors,
        coordinate_transformation_mode=place, **modes[layer.interpolation],
    )  # fmt: skip
    return Value(x, shape, True)


def check_layout(layer: Any) -> None:
    """Refuse a layer that takes its channels first."""
    if layer.data_format != "channels_last":
        raise Refused(layer, f"its data_format is {layer.data_format!r}, not 'channels_last'")


def _convolve(
    writer: GraphWriter, layer: Any, value: Value, kernel: NDArray[Any],
    bias: NDArray[Any] | None, groups: int,
) -> str:  # fmt: skip
    check_layout(layer)
    sides, dilations, strides = kernel.shape[2:], _pair(layer.dilation_rate), _pair(layer.strides)
    covered = [(side - 1) * step + 1 for side, step in zip(sides, dilations, strict=True)]
    weights = [kernel] if bias is None else [kernel, bias]
    return writer.add(
        "Conv", writer.planes(value), *map(writer.constant, weights),
        kernel_shape=sides, strides=strides, dilations=dilations, group=groups,
        pads=_pads(layer, value.shape, covered, strides),
    )  # fmt: skip


def _pads(layer: Any, shape: Shape, covered: Sequence[int], strides: Sequence[int]) -> _Pads:
    """Return what is padded at the top, left, bottom and right: with 'same' one more at the end."""
    if layer.padding == "valid":
        return 0, 0, 0, 0
    total = [
        max((-(-side // step) - 1) * step + size - side, 0)
        for side, size, step in zip(_sides(shape), covered, strides, strict=True)
    ]
    top, left = (number // 2 for number in total)
    return top, left, total[0] - top, total[1] - left


def _pool(writer: GraphWriter, layer: Any, value: Value, shape: Shape, operator: str) -> Value:
    check_layout(layer)
    size, strides = _pair(layer.pool_size), _pair(layer.strides)
    pads = _pads(layer, value.shape, size, strides)
    x = writer.add(operator, writer.planes(value), kernel_shape=size, strides=strides, pads=pads)
    return Value(x, shape, True)


def _pool_all(writer: GraphWriter, layer: Any, value: Value, shape: Shape, operator: str) -> Value:
    check_layout(layer)
    x = writer.add(operator, writer.planes(value))
    return Value(x, shape, True) if layer.keepdims else Value(writer.add("Flatten", x), shape)


def _by_channel(kernel: Any) -> NDArray[Any]:
    """Return the kernel (h, w, c, m) of a depthwise convolution as (c * m, 1, h, w)."""
    array: NDArray[Any] = np.asarray(kernel)
    height, width = array.shape[:2]
    return np.moveaxis(array, (2, 3), (0, 1)).reshape(-1, 1, height, width)


def _array(weight: Any) -> NDArray[Any] | None:
    return None if weight is None else np.asarray(weight)


def _channels(value: Value) -> int:
    return int(value.shape[-1] or 0)


def _sides(shape: Shape) -> tuple[int, int]:
    return int(shape[1] or 0), int(shape[2] or 0)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, (list, tuple)) else (value, value)
    return int(first), int(second)
