"""A Keras model as part of an ONNX graph, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..installed import top_package
from . import activations, convolutions, shapes, vectors
from .writer import GraphWriter, Shape, Value, refusal

_Unary = Callable[[GraphWriter, Any, Value, Shape], Value]
_Joining = Callable[[GraphWriter, Any, list[Any], Shape], Value]
_Activation = Callable[[GraphWriter, Any, Value], Value]

_LAYERS: dict[str, _Unary] = {
    "AveragePooling2D": convolutions.average_pooling,
    "BatchNormalization": convolutions.batch_normalization,
    "CenterCrop": convolutions.center_crop,
    "Conv2D": convolutions.conv2d,
    "Cropping2D": convolutions.cropping,
    "Dense": vectors.dense,
    "DepthwiseConv2D": convolutions.depthwise,
    "Flatten": shapes.reshape,
    "GlobalAveragePooling1D": shapes.average_tokens,
    "GlobalAveragePooling2D": convolutions.global_average,
    "GlobalMaxPooling1D": shapes.max_tokens,
    "GlobalMaxPooling2D": convolutions.global_max,
    "LayerNormalization": vectors.layer_normalization,
    "LayerScale": vectors.layer_scale,
    "MaxPooling2D": convolutions.max_pooling,
    "Normalization": vectors.normalization,
    "Permute": shapes.permute,
    "Rescaling": vectors.rescaling,
    "Reshape": shapes.reshape,
    "SeparableConv2D": convolutions.separable,
    "UpSampling2D": convolutions.upsampling,
    "ZeroPadding2D": convolutions.zero_padding,
    **dict.fromkeys(
        (
            "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise",
            "Identity", "SpatialDropout1D", "SpatialDropout2D", "StochasticDepth",
        ),
        shapes.same,
    ),
}  # fmt: skip
_ACTIVATIONS: dict[str, _Activation] = {
    "Activation": activations.activation_layer,
    "ELU": activations.elu,
    "LeakyReLU": activations.leaky_relu,
    "PReLU": activations.prelu,
    "ReLU": activations.relu,
    "Softmax": activations.softmax_layer,
}
_JOINING: dict[str, _Joining] = {
    **dict.fromkeys(
        ("Add", "Divide", "Maximum", "Minimum", "Multiply", "Subtract", "TrueDivide"),
        shapes.arithmetic,
    ),
    "Average": shapes.average,
    "Concatenate": shapes.concatenate,
    "CustomScaleLayer": shapes.scaled_sum,
    "GetItem": shapes.first_token,
}


def write_keras_model(writer: GraphWriter, model: Any, value: Value) -> Value:
    """Write a Keras model; return its output.

    Parameters
    ----------
    writer : GraphWriter
    model : keras.Model
        Functional or sequential, with one input and one output.
    value : Value
        Its input, with the height and width of the images.

    Raises
    ------
    NotExportable
        If a layer is not one that can be written.
    """
    graph = getattr(model, "_functional", None) or model
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise refusal(model, "it has several inputs or outputs")
    found: dict[int, Value] = {id(graph.inputs[0]): value}
    for node in _nodes_of(graph):
        args, kwargs = node.arguments.fill_in(found)
        output = _write(writer, node, [*args, *kwargs.values()])
        found[id(node.outputs[0])] = output
    return found[id(graph.outputs[0])]


def _nodes_of(graph: Any) -> Iterator[Any]:
    """Yield the calls of a model, each after those that feed it."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        yield from (node for node in graph._nodes_by_depth[depth] if not node.is_input)


def _write(writer: GraphWriter, node: Any, arguments: list[Any]) -> Value:
    """Write one call of a layer, an operation or a model."""
    operation, kind = node.operation, type(node.operation).__name__
    values = arguments[0] if isinstance(arguments[0], (list, tuple)) else arguments
    values = [value for value in values if value is not None and value is not False]
    if hasattr(operation, "_nodes_by_depth") or getattr(operation, "_functional", None):
        return write_keras_model(writer, operation, values[0])
    known = kind in _LAYERS or kind in _ACTIVATIONS or kind in _JOINING
    if not known or top_package(type(operation)) != "keras" or len(node.outputs) != 1:
        names = ", ".join(sorted((*_LAYERS, *_ACTIVATIONS, *_JOINING)))
        raise refusal(operation, f"it is not one of Keras' layers {names}")
    if kind in _ACTIVATIONS:
        return _ACTIVATIONS[kind](writer, operation, values[0])
    shape = _output_shape(node, values)
    if kind in _LAYERS:
        return _LAYERS[kind](writer, operation, values[0], shape)
    return _JOINING[kind](writer, operation, list(values), shape)


def _output_shape(node: Any, values: list[Any]) -> Shape:
    """Return the shape of a call's output for images of a known size."""
    output = node.outputs[0]
    if None not in output.shape[1:]:
        return tuple(output.shape)
    kind = type(output)  # a symbolic tensor
    known = {
        id(tensor): kind(value.shape, tensor.dtype)
        for tensor, value in zip(
            node.input_tensors, (one for one in values if isinstance(one, Value)), strict=True
        )
    }
    args, kwargs = node.arguments.fill_in(known)
    return tuple(node.operation.compute_output_spec(*args, **kwargs).shape)
