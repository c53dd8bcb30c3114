"""A Keras model as part of an ONNX graph, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._io.wording import first_line
from ...errors import NotExportable
from ..installed import top_package
from ..keras_backend import import_keras
from . import activations, convolutions, shapes, tokens, vectors
from .writer import GraphWriter, Refused, Shape, Value

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
    "EinsumDense": tokens.einsum_dense,
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
_ARITHMETIC: dict[str, _Joining] = dict.fromkeys(
    ("Add", "Divide", "Maximum", "Minimum", "Multiply", "Subtract", "TrueDivide"),
    shapes.arithmetic,
)
_JOINING: dict[str, _Joining] = {
    **_ARITHMETIC,
    "Average": shapes.average,
    "Concatenate": shapes.concatenate,
    "CustomScaleLayer": shapes.scaled_sum,
}
# Functions of keras.ops that layers call.
_OPERATIONS: dict[str, _Joining] = {
    **_ARITHMETIC,
    "Concatenate": shapes.concatenate,
    "DotProductAttention": tokens.attention,
    "Gelu": tokens.gelu,
    "GetItem": shapes.get_item,
    "Mean": tokens.mean,
    "Reshape": shapes.reshape_operation,
    "Matmul": tokens.product,
    "Sigmoid": tokens.sigmoid,
    "Softmax": tokens.softmax_operation,
    "Transpose": tokens.transpose,
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
    Refused
        If a layer is not one that can be written.
    """
    graph = getattr(model, "_functional", None) or model
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise Refused(model, "it has several inputs or outputs")
    return _write_graph(writer, graph, {id(graph.inputs[0]): value})[0]


def write_function(
    writer: GraphWriter, owner: Any, function: Callable[[Any], Any], value: Value
) -> Value:
    """Write a function of one tensor, such as an activation, by what it does with a symbolic one.

    Raises
    ------
    Refused
        If it does not consist of functions of Keras that can be written.
    """
    keras = import_keras()
    given = keras.Input(batch_shape=(1, *value.shape[1:]))
    graph = _traced(owner, [given], lambda: function(given))
    return _write_graph(writer, graph, {id(given): value})[0]


def _write_graph(writer: GraphWriter, graph: Any, found: dict[int, Value]) -> list[Value]:
    """Write a graph of calls whose inputs are known; return its outputs."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.is_input:
                outputs = _write_checked(writer, node, found)
                found.update(zip(map(id, node.outputs), outputs, strict=True))
    return [found[id(output)] for output in graph.outputs]


def _write_checked(writer: GraphWriter, node: Any, found: dict[int, Value]) -> list[Value]:
    """Write one call; refuse one of a form that the functions for layers do not expect."""
    try:
        return _write(writer, node, found)
    except (Refused, NotExportable):
        raise
    except Exception as error:
        reason = f"how it is called is not known ({first_line(error, 200)})"
        raise Refused(node.operation, reason) from error


def _write(writer: GraphWriter, node: Any, found: dict[int, Value]) -> list[Value]:
    """Write one call of a layer, an operation or a model; return its outputs."""
    operation, kind = node.operation, type(node.operation).__name__
    values = _values(node, found)
    if hasattr(operation, "_nodes_by_depth") or getattr(operation, "_functional", None):
        return [write_keras_model(writer, operation, values[0])]
    is_layer = hasattr(operation, "trainable_weights")
    known = top_package(type(operation)) == "keras" and len(node.outputs) == 1
    if not is_layer:
        if not known or kind not in _OPERATIONS:
            names = ", ".join(sorted(_OPERATIONS))
            raise Refused(operation, f"it is not one of the functions {names} of keras.ops")
        return [_OPERATIONS[kind](writer, operation, values, _output_shape(node, found))]
    several = sum(isinstance(value, Value) for value in values) > 1
    if several and known and (kind in _ACTIVATIONS or kind in _LAYERS):
        raise Refused(operation, "it is called with several tensors, such as a mask")
    if known and kind in _ACTIVATIONS:
        return [_ACTIVATIONS[kind](writer, operation, values[0])]
    if known and kind in _LAYERS:
        return [_LAYERS[kind](writer, operation, values[0], _output_shape(node, found))]
    if known and kind in _JOINING:
        return [_JOINING[kind](writer, operation, values, _output_shape(node, found))]
    return _write_parts(writer, node, found)


def _values(node: Any, found: dict[int, Value]) -> list[Any]:
    """Return the arguments of a call that are not options: tensors, arrays, numbers."""
    args, kwargs = node.arguments.fill_in(found)
    given = [*args, *kwargs.values()]
    several = given[0] if isinstance(given[0], (list, tuple)) else given
    if isinstance(given[0], dict):
        several = list(given[0].values())
    return [value for value in several if value is not None and value is not False]


def _write_parts(writer: GraphWriter, node: Any, found: dict[int, Value]) -> list[Value]:
    """Write a layer that consists of others, by what it does with a symbolic image."""
    keras, layer = import_keras(), node.operation
    inputs = {
        id(tensor): keras.Input(batch_shape=(1, *found[id(tensor)].shape[1:]), dtype=tensor.dtype)
        for tensor in node.input_tensors
    }
    args, kwargs = node.arguments.fill_in(inputs)
    if not getattr(layer, "_call_has_training_arg", True):
        kwargs.pop("training", None)
    graph = _traced(layer, list(inputs.values()), lambda: layer.call(*args, **kwargs))
    if len(graph.outputs) != len(node.outputs):
        raise Refused(layer, "its outputs are not known")
    try:
        return _write_graph(writer, graph, {id(given): found[key] for key, given in inputs.items()})
    except Refused as error:
        part = f"its part {error.layer.name!r} of class {type(error.layer).__name__}"
        raise Refused(layer, f"{part} cannot, {error}") from error


def _traced(owner: Any, inputs: list[Any], call: Callable[[], Any]) -> Any:
    """Return the graph of what is computed of symbolic tensors."""
    try:
        return import_keras().Function(inputs, call())
    except Exception as error:  # code of a layer
        raise Refused(owner, f"what it does is not known ({first_line(error, 200)})") from error


def _output_shape(node: Any, found: dict[int, Value]) -> Shape:
    """Return the shape of a call's output for images of a known size."""
    output = node.outputs[0]
    # Some layers declare another shape than they give.
    declared = all(found[id(one)].shape[1:] == tuple(one.shape[1:]) for one in node.input_tensors)
    if declared and None not in output.shape[1:]:
        return tuple(output.shape)
    kind = type(output)  # a symbolic tensor
    known = {
        id(tensor): kind(found[id(tensor)].shape, tensor.dtype) for tensor in node.input_tensors
    }
    args, kwargs = node.arguments.fill_in(known)
    return tuple(node.operation.compute_output_spec(*args, **kwargs).shape)
