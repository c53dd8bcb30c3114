"""The graph that is run: pixels (b, h, w, 3) to a vector per image, with the network within."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import InvalidRequest
from ..spec import Pooling
from .library import import_onnx
from .network import OnnxNetwork
from .nodes import Node

PIXELS, EMBEDDING = "pixels", "embedding"
_FLOATS = ("FLOAT", "FLOAT16", "DOUBLE")
# Reductions take their axes as an input since these versions.
_AXES_AS_INPUT = 18
# A version of the format, not of the operators, that all runtimes of recent years read.
FORMAT_VERSION = 8
_SPATIAL = {"nchw": (2, 3), "nhwc": (1, 2)}


def rebuild(
    network: OnnxNetwork,
    image_size: tuple[int, int],
    pooling: tuple[str, Sequence[int]] | None,
    *,
    one_by_one: bool,
) -> bytes:
    """Return an encoded model that holds the network, and nothing else of its file.

    Parameters
    ----------
    network : OnnxNetwork
    image_size : (int, int)
        Height and width.
    pooling : (str, sequence of int) or None
        As `find_pooling` returns it; None for the layer's output as it is, of its own type.
    one_by_one : bool
        Whether the model takes one image at a time, and not a batch.
    """
    onnx = import_onnx()
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = [onnx.numpy_helper.from_array(v, name) for name, v in network.weights.items()]
    nodes = [*_before(network, helper, kinds), *(_encode(node, onnx) for node in network.nodes)]
    output = network.output
    if pooling is not None:
        nodes.append(helper.make_node("Cast", [output], ["values"], to=kinds.FLOAT))
        nodes += _pool(*pooling, network.opset, onnx, weights)
        output = EMBEDDING
    batch = 1 if one_by_one else "b"
    pixels = helper.make_tensor_value_info(PIXELS, kinds.FLOAT, [batch, *image_size, 3])
    # The type of another output is left to the runtime.
    kind = helper.make_tensor_type_proto(kinds.FLOAT, None)
    value = helper.make_value_info(output, kind) if pooling else onnx.ValueInfoProto(name=output)
    graph = helper.make_graph(nodes, "network", [pixels], [value], weights)
    opset = [helper.make_opsetid("", network.opset)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=FORMAT_VERSION)
    encoded: bytes = model.SerializeToString(deterministic=True)
    return encoded


def find_pooling(
    network: OnnxNetwork, shape: Sequence[int], pooling: Pooling | None
) -> tuple[str, Sequence[int]]:
    """Return the pooling of a layer's output, as in a spec, and the axes that it goes over.

    Parameters
    ----------
    network : OnnxNetwork
    shape : sequence of int
        Of the output for one image.
    pooling : {"avg", "max", "flat", "cls"} or None
        As requested.
    """
    rank = len(shape)
    if rank == 2:
        if pooling in ("avg", "max", "cls"):
            raise InvalidRequest(
                f"pooling={pooling!r} needs a spatial layer or tokens, but {network.layer!r} gives "
                "one vector an image. Leave pooling out, or name a layer before it is pooled.",
                received=pooling,
            )
        return "none", ()
    pooling = pooling or "avg"
    if rank not in (3, 4) or (pooling == "cls" and rank != 3):
        expected = "(b, n, d)" if pooling == "cls" else "(b, d), (b, n, d) or (b, c, h, w)"
        raise InvalidRequest(
            f"pooling={pooling!r} takes arrays {expected}, but {network.layer!r} gives arrays of "
            f"rank {rank}.",
            received=rank,
        )
    if rank == 3 or pooling == "flat":
        return pooling, (1,)
    ones = tuple(axis for axis in (1, 2, 3) if shape[axis] == 1)
    axes = _SPATIAL[network.layout] if network.layout else ones
    if len(axes) != 2:
        raise InvalidRequest(
            f"Which axes of {network.layer!r}, which gives arrays {tuple(shape)}, are height and "
            "width does not follow from the graph; use pooling='flat', or name another layer.",
            received=pooling,
        )
    return pooling, axes


def _before(network: OnnxNetwork, helper: Any, kinds: Any) -> list[Any]:
    """Return the nodes that make the network's input of the pixels."""
    nodes, name = [], PIXELS
    if network.input.layout == "nchw":
        nodes.append(helper.make_node("Transpose", [name], ["planes"], perm=[0, 3, 1, 2]))
        name = "planes"
    to = kinds.DataType.Value(network.input.kind)
    return [*nodes, helper.make_node("Cast", [name], ["x"], to=to)]


def _encode(node: Node, onnx: Any) -> Any:
    encoded = onnx.NodeProto(op_type=node.operator, input=node.inputs, output=node.outputs)
    for name, (kind, value) in sorted(node.attributes.items()):
        one = encoded.attribute.add(name=name, type=onnx.AttributeProto.AttributeType.Value(kind))
        if kind == "TENSOR":
            one.t.CopyFrom(onnx.numpy_helper.from_array(value))
        elif kind in ("FLOAT", "INT", "STRING"):
            setattr(one, kind[0].lower(), value)
        else:
            getattr(one, kind.lower()).extend(value)
    return encoded


def _pool(
    pooling: str, axes: Sequence[int], opset: int, onnx: Any, weights: list[Any]
) -> list[Any]:
    """Return the nodes that make an embedding of the values of the layer."""
    make = onnx.helper.make_node
    if pooling == "none":
        return [make("Identity", ["values"], [EMBEDDING])]
    if pooling == "flat":
        return [make("Flatten", ["values"], [EMBEDDING], axis=1)]
    if pooling == "cls":
        weights.append(onnx.numpy_helper.from_array(np.array(0, np.int64), "first"))
        return [make("Gather", ["values", "first"], [EMBEDDING], axis=1)]
    operator = "ReduceMean" if pooling == "avg" else "ReduceMax"
    if opset < _AXES_AS_INPUT:
        return [make(operator, ["values"], [EMBEDDING], axes=list(axes), keepdims=0)]
    weights.append(onnx.numpy_helper.from_array(np.array(axes, np.int64), "axes"))
    return [make(operator, ["values", "axes"], [EMBEDDING], keepdims=0)]
