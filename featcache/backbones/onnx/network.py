"""The part of an ONNX graph that gives a layer: its hashes, and its graph as it is run.

What is hashed is what is run: the graph is written again from its nodes, without names,
documentation and metadata, and with every weight once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidRequest, WeightsMismatch
from ..spec import content_key
from .file import OnnxFile, refusal
from .graph import Graph, read_graph
from .layout import Layout, channels_of, layouts_of
from .library import import_onnx
from .nodes import Node, Refused, array_of

# Version of the rules by which a graph is hashed.
_VERSION = 1
_INPUT = "x"
_INPUT_TYPES = ("FLOAT", "FLOAT16", "DOUBLE", "UINT8")


@dataclass(frozen=True)
class Input:
    """The input of a network, a batch of images.

    Attributes
    ----------
    layout : {"nchw", "nhwc"}
        Whether the channels are the second or the last axis.
    kind : str
        Type of its numbers, such as ``"FLOAT"``.
    size : (int, int) or None
        Height and width, if they are fixed.
    one_by_one : bool
        Whether it takes one image at a time.
    """

    layout: Layout
    kind: str
    size: tuple[int, int] | None
    one_by_one: bool


@dataclass(frozen=True)
class OnnxNetwork:
    """An ONNX network up to a layer.

    Tensors are called by their place: ``x`` is the input, ``t0``, ``t1``, ... are given by nodes,
    and ``w0``, ``w1``, ... are weights.

    Attributes
    ----------
    file : OnnxFile
    layer : str
        As in a spec: ``"output"``, or the name of a tensor.
    opset : int
    input : Input
    nodes : sequence of Node
        Each after those that feed it.
    weights : mapping of str to ndarray
    output : str
    layout : {"nchw", "nhwc"} or None
        That of the output if it has four axes, as far as the graph tells.
    feeding : str or None
        The layer that feeds the last one, if that is linear and may compute class scores.
    """

    file: OnnxFile
    layer: str
    opset: int
    input: Input
    nodes: Sequence[Node] = field(repr=False)
    weights: Mapping[str, NDArray[Any]] = field(repr=False, compare=False)
    output: str
    layout: Layout | None
    feeding: str | None = None

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.file.path

    @property
    def name(self) -> str:
        """The file name without its ending."""
        return self.file.name

    def structure_hash(self) -> str:
        """Return a hash of the graph, without the values of its weights."""
        nodes = [
            [
                node.operator, node.version, list(node.inputs), list(node.outputs),
                [[name, *_plain(*node.attributes[name])] for name in sorted(node.attributes)],
            ]
            for node in self.nodes
        ]  # fmt: skip
        weights = [[value.dtype.str, list(value.shape)] for value in self.weights.values()]
        return content_key({
            "format": "onnx", "version": _VERSION, "input": [self.input.layout, self.input.kind],
            "nodes": nodes, "weights": weights, "output": self.output,
        })  # fmt: skip

    def weights_hash(self) -> str:
        """Return a hash of the values of all weights."""
        digest = hashlib.sha256()
        for value in self.weights.values():
            digest.update(f"{value.dtype.str}{value.shape}".encode())
            digest.update(_bytes_of(value))
        return digest.hexdigest()

    def depth(self) -> int:
        """Return the number of nodes with weights on the longest path."""
        longest: dict[str, int] = {}
        for node in self.nodes:
            before = max((longest.get(name, 0) for name in node.inputs), default=0)
            weighty = any(self._is_float(name) for name in node.inputs)
            longest.update(dict.fromkeys(filter(None, node.outputs), before + weighty))
        return longest.get(self.output, 0)

    def _is_float(self, name: str) -> bool:
        return name in self.weights and self.weights[name].dtype.kind == "f"

    def check_weights(self) -> None:
        """Raise `WeightsMismatch` for NaN, which some operators would turn into finite values."""
        for value in self.weights.values():
            if value.dtype.kind == "f" and np.isnan(value).any():
                raise WeightsMismatch(
                    f"{int(np.isnan(value).sum())} of {value.size} values of a weight of "
                    f"{self.path} are NaN, so its features would mean nothing; give weights "
                    "without NaN.",
                    file=self.path,
                )


def read_network(file: OnnxFile, layer: str | int | None) -> OnnxNetwork:
    """Return the network of a file up to a layer.

    Raises
    ------
    ModelRefused
        If the graph, or an operator or weight that the layer depends on, is not accepted.
    UnknownLayer, InvalidRequest
        If there is no such layer, or the network does not take a batch of RGB images.
    """
    graph = read_graph(file)
    tensor, name = graph.tensor(layer)
    nodes = graph.order(tensor)
    try:
        builder = _Renaming(graph)
        renamed = [builder.node(node) for node in nodes]
        output = builder.names.get(graph.origin(tensor), "")
    except Refused as error:
        raise refusal(file.path, str(error)) from error
    if not output or not builder.inputs:
        raise InvalidRequest(
            f"The tensor {tensor!r} of {file.name} does not depend on the image.", received=layer
        )
    read = read_input(builder.inputs, channels_of(renamed, _INPUT, builder.weights))
    layouts = layouts_of(renamed, _INPUT, read.layout, builder.weights)
    # The parsed file takes as much memory as the weights.
    return OnnxNetwork(
        replace(file, model=None), name, graph.opset, read, renamed, builder.weights, output,
        layouts.get(output), graph.feeding(nodes),
    )  # fmt: skip


class _Renaming:
    """Names tensors by their place in the graph, and keeps equal weights once."""

    def __init__(self, graph: Graph) -> None:
        self.names: dict[str, str] = {}
        self.weights: dict[str, NDArray[Any]] = {}
        self.inputs: list[Any] = []
        self._graph = graph
        self._known: dict[str, str] = {}
        self._tensors = 0

    def node(self, node: Node) -> Node:
        inputs = tuple(self._input(name) for name in node.inputs)
        return Node(
            node.operator, node.version, inputs, tuple(map(self._output, node.outputs)),
            node.attributes,
        )  # fmt: skip

    def _output(self, name: str) -> str:
        if not name:
            return ""
        self.names[name] = f"t{self._tensors}"
        self._tensors += 1
        return self.names[name]

    def _input(self, name: str) -> str:
        origin = self._graph.origin(name) if name else ""
        if origin and origin not in self.names:
            constant = self._graph.constant(origin)
            if constant is not None:
                self.names[origin] = self._weight(array_of(constant))
            elif origin in self._graph.inputs:
                self.names[origin] = _INPUT
                self.inputs.append(self._graph.inputs[origin])
            else:
                raise Refused(f"nothing gives its tensor {origin!r}")
        return self.names[origin] if origin else ""

    def _weight(self, value: NDArray[Any]) -> str:
        value = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).reshape(value.shape)
        digest = hashlib.sha256(f"{value.dtype.str}{value.shape}".encode())
        digest.update(_bytes_of(value))
        name = self._known.setdefault(digest.hexdigest(), f"w{len(self._known)}")
        self.weights.setdefault(name, value)
        return name


def read_input(inputs: Sequence[Any], by_graph: Layout | None) -> Input:
    """Return what a network takes; raise `InvalidRequest` unless that is a batch of RGB images.

    Parameters
    ----------
    inputs : sequence of ValueInfoProto
    by_graph : {"nchw", "nhwc"} or None
        The layout that the graph asks for, if the number of channels is open.
    """
    kinds = import_onnx().TensorProto.DataType
    if len(inputs) != 1:
        named = ", ".join(one.name for one in inputs)
        raise InvalidRequest(
            f"The network takes {len(inputs)} inputs ({named}); a backbone takes one, a batch of "
            "images. Name a layer that depends on the images alone.",
            received=[one.name for one in inputs],
        )
    described = inputs[0].type.tensor_type
    kind = kinds.Name(described.elem_type) if described.elem_type in kinds.values() else "?"
    shape = [_side(one) for one in described.shape.dim]
    text = ", ".join("open" if side is None else str(side) for side in shape)
    if kind not in _INPUT_TYPES:
        raise InvalidRequest(
            f"The network takes numbers of type {kind}; a backbone takes one of "
            f"{', '.join(_INPUT_TYPES)}.",
            received=kind,
        )
    layouts: list[Layout] = []
    if len(shape) == 4:
        layouts = [*["nchw"] * (shape[1] == 3), *["nhwc"] * (shape[3] == 3)]  # type: ignore[list-item]
        if by_graph and shape[1 if by_graph == "nchw" else 3] is None:
            layouts = [by_graph]
    if len(layouts) != 1:
        raise InvalidRequest(
            f"The network takes arrays ({text}); a backbone takes RGB images, (b, 3, h, w) or "
            "(b, h, w, 3). Export it with the number of channels fixed.",
            received=shape,
        )
    if shape[0] not in (None, 1):
        raise InvalidRequest(
            f"The network takes only batches of {shape[0]} images; export it for one image, or for "
            "any number of them (an open first axis).",
            received=shape,
        )
    height, width = shape[2:] if layouts[0] == "nchw" else shape[1:3]
    size = None if height is None or width is None else (height, width)
    return Input(layouts[0], kind, size, shape[0] == 1)


def _bytes_of(value: NDArray[Any]) -> memoryview:
    """Return the bytes of an array without a copy, if it is contiguous."""
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data


def _side(dimension: Any) -> int | None:
    """Return the size of an axis; None if it is open, which some exporters write as -1 or 0."""
    value = dimension.dim_value if dimension.HasField("dim_value") else 0
    return int(value) if value > 0 else None


def _plain(kind: str, value: Any) -> tuple[str, Any]:
    """Return an attribute as what a key can hold."""
    if kind == "TENSOR":
        return kind, [value.dtype.str, list(value.shape), value.tobytes().hex()]
    if kind in ("FLOAT", "FLOATS"):
        return kind, np.array(value, "<f4").tobytes().hex()
    if kind in ("STRING", "STRINGS"):
        return kind, [text.hex() for text in ((value,) if kind == "STRING" else value)]
    return kind, list(value) if kind == "INTS" else value
