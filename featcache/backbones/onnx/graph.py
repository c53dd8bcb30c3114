"""The graph of an ONNX network: its tensors, and the part of it that a layer depends on."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..._io.wording import format_values
from ...errors import InvalidRequest, UnknownLayer
from ..graph import OUTPUT
from .file import OnnxFile, refusal
from .library import import_onnx
from .nodes import Node, Refused, constant_of, read_node, read_opset

_OPEN, _DONE = 1, 2
_SCORES = {"LogSoftmax", "Sigmoid", "Softmax"}
_LINEAR = {"Gemm", "MatMul"}
# Of characters of a name that becomes part of a spec or a message.
_MAX_NAME = 1000
_MAX_COMPARED = 20_000


@dataclass(frozen=True)
class Graph:
    """The nodes and tensors of a file, by name; nodes are not checked before they are used.

    Attributes
    ----------
    file : OnnxFile
    opset : int
        Version of the operators.
    inputs : mapping of str to ValueInfoProto
        Without those that have a value in the file.
    outputs : tuple of str
    nodes : tuple of NodeProto
    producers : mapping of str to int
        Tensor, and the position of the node that gives it.
    weights : mapping of str to TensorProto
    """

    file: OnnxFile
    opset: int
    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]
    nodes: tuple[Any, ...]
    producers: Mapping[str, int]
    weights: Mapping[str, Any]
    _origins: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def tensor(self, layer: str | int | None) -> tuple[str, str]:
        """Return the tensor of a layer, and the name of the layer in a spec.

        A layer is the name of a tensor or of a node, whose first output it is then. None and
        ``"output"`` are the output of the graph, if it has one output.

        Raises
        ------
        UnknownLayer
            With the nearest names.
        InvalidRequest
            If the layer is an index, or has to be named.
        """
        if isinstance(layer, int):
            raise InvalidRequest(
                f"The layers of an ONNX network have no numbers, so layer={layer} names none; give "
                "the name of an output, or of a tensor or node of the graph.",
                received=layer,
            )
        if layer is None or (layer == OUTPUT and layer not in self.producers):
            return self._only_output(), OUTPUT
        found = layer if layer in self.producers else self._first_output(layer)
        if found is None:
            raise self._unknown(layer)
        if (found,) == self.outputs:
            return found, OUTPUT
        if len(found) > _MAX_NAME:
            raise InvalidRequest(
                f"The tensor of layer {layer[:40]!r} has a name of {len(found):,} characters; the "
                f"limit is {_MAX_NAME:,}.",
                received=layer,
            )
        if found == OUTPUT and found not in self.outputs:
            raise InvalidRequest(
                "layer='output' means the output of the network, but a tensor before its end is "
                "called 'output' too; name the node that gives it.",
                received=layer,
            )
        return found, found

    def order(self, tensor: str) -> list[Node]:
        """Return the nodes that a tensor depends on, each after those that feed it.

        Their order follows from the graph alone, not from that in the file. Nodes that hold a
        constant, or pass on what they are given, are left out.

        Raises
        ------
        ModelRefused
            If a node is not accepted, or the graph is not one.
        """
        state: dict[int, int] = {}
        ordered: list[Node] = []
        try:
            stack = list(self._visit(self.origin(tensor), state))
            while stack:
                node, feeding = stack[-1]
                for name in feeding:
                    below = list(self._visit(self.origin(name), state))
                    if below:
                        stack += below
                        break
                else:
                    state[self.producers[next(filter(None, node.outputs))]] = _DONE
                    ordered.append(node)
                    stack.pop()
        except Refused as error:
            raise refusal(self.file.path, str(error)) from error
        return ordered

    def _visit(self, tensor: str, state: dict[int, int]) -> Iterator[tuple[Node, Iterator[str]]]:
        """Yield the node that gives a tensor, unless it was visited, is no node or a constant."""
        at = self.producers.get(tensor)
        if at is None or state.get(at) == _DONE or self.nodes[at].op_type == "Constant":
            return
        if state.get(at) == _OPEN:
            raise Refused(f"its graph has a cycle, at {tensor!r}")
        state[at] = _OPEN
        node = read_node(self.nodes[at], self.opset)
        yield node, iter([name for name in node.inputs if name])

    def origin(self, tensor: str) -> str:
        """Return the tensor that a tensor is equal to, past nodes that change nothing."""
        passed: list[str] = []
        while tensor not in self._origins and (at := self.producers.get(tensor)) is not None:
            node = self.nodes[at]
            if node.op_type != "Identity" or len(node.input) != 1:
                break
            read_node(node, self.opset)  # it may be another operator of that name
            passed.append(tensor)
            self._origins[tensor] = tensor  # until it is known; a cycle ends here
            tensor = str(node.input[0])
        tensor = self._origins.get(tensor, tensor)
        self._origins.update(dict.fromkeys(passed, tensor))
        return tensor

    def constant(self, tensor: str) -> Any | None:
        """Return the value of a tensor as a TensorProto, if it has one in the file."""
        if tensor in self.weights:
            return self.weights[tensor]
        at = self.producers.get(tensor)
        return None if at is None else constant_of(self.nodes[at], self.opset)

    def feeding(self, nodes: Sequence[Node]) -> str | None:
        """Return the tensor that feeds the linear layer in which nodes end; None for another end.

        Such a layer, with or without softmax or sigmoid, may compute class scores.
        """
        by_output = {name: node for node in nodes for name in node.outputs}
        last: Node | None = nodes[-1] if nodes else None
        while last is not None and last.operator in _SCORES:
            last = by_output.get(self.origin(last.inputs[0]))
        if last is not None and last.operator == "Add":
            added = [name for name in last.inputs if not self._is_constant(name)]
            last = by_output.get(self.origin(added[0])) if len(added) == 1 else None
        if last is None or last.operator not in _LINEAR or not self._is_constant(last.inputs[1]):
            return None
        return None if self._is_constant(last.inputs[0]) else self.origin(last.inputs[0])

    def _is_constant(self, tensor: str) -> bool:
        return self.constant(self.origin(tensor)) is not None

    def _only_output(self) -> str:
        if len(self.outputs) == 1:
            return self.outputs[0]
        names = format_values(self.outputs, str)
        raise InvalidRequest(
            f"The network has {len(self.outputs)} outputs; name one with layer=: {names}.",
            received=list(self.outputs),
        )

    def _first_output(self, name: str) -> str | None:
        if name in self.outputs:  # an output that is an input
            return None
        found = [node for node in self.nodes if node.name == name and name]
        return str(found[0].output[0]) if len(found) == 1 and len(found[0].output) else None

    def _unknown(self, layer: str) -> UnknownLayer:
        names = list(dict.fromkeys([*self.producers, *(n.name for n in self.nodes if n.name)]))
        short = [name for name in names if len(name) <= _MAX_NAME // 4][:_MAX_COMPARED]
        near = difflib.get_close_matches(layer[:_MAX_NAME], short, n=5, cutoff=0.4)
        given = [name for name in list(self.producers)[-8:] if len(name) <= _MAX_NAME // 4]
        last = [name for name in given if name not in near]
        return UnknownLayer(
            f"{self.file.name} has no tensor or node {layer[:_MAX_NAME]!r}. "
            + (f"Near it: {', '.join(near)}. " if near else "")
            + f"Its last tensors are {', '.join(last)}.",
            received=layer,
            layers=names,
        )


def read_graph(file: OnnxFile) -> Graph:
    """Return the graph of a file, whose names are checked.

    Raises
    ------
    ModelRefused
        If the graph is malformed, or has functions of its own.
    """
    model, graph = file.model, file.model.graph
    try:
        _check_names(graph)
        opset = read_opset(model, import_onnx())
        if len(model.functions):
            raise Refused(
                "it has functions of its own; replace them by what they do with "
                "onnx.inliner.inline_local_functions"
            )
        if len(graph.sparse_initializer):
            raise Refused("it has sparse weights, which are not supported")
        producers = _producers(graph)
        weights = {tensor.name: tensor for tensor in graph.initializer}
        inputs = {one.name: one for one in graph.input if one.name not in weights}
        if len(weights) != len(graph.initializer) or weights.keys() & producers.keys():
            raise Refused("two of its weights, or a weight and another tensor, have one name")
        if inputs.keys() & producers.keys():
            raise Refused("a node gives a tensor that is an input")
    except Refused as error:
        raise refusal(file.path, str(error)) from error
    outputs = tuple(dict.fromkeys(one.name for one in graph.output))
    return Graph(file, opset, inputs, outputs, tuple(graph.node), producers, weights)


def _check_names(graph: Any) -> None:
    """Raise `Refused` for names that are not text, which the parser returns as bytes."""
    for node in graph.node:
        names = [node.op_type, node.domain, node.name, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
        if not all(isinstance(name, str) for name in names):
            raise Refused("a name in it is not text")
    for one in (*graph.initializer, *graph.input, *graph.output):
        if not isinstance(one.name, str):
            raise Refused("a name in it is not text")


def _producers(graph: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for at, node in enumerate(graph.node):
        for name in node.output:
            if name in found:
                raise Refused(f"two nodes give the tensor {name!r}")
            if name:
                found[name] = at
    return found
