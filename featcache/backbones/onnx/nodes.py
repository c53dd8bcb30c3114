"""Nodes of an ONNX graph, checked and without what does not change their result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .library import import_onnx
from .operators import OPERATORS, REASONS

_DOMAINS = ("", "ai.onnx")
_OLDEST_OPSET = 7
# Attributes of a node whose value is a graph, a type or a sparse tensor are refused.
_VALUES = {
    "FLOAT": "f", "INT": "i", "STRING": "s", "TENSOR": "t", "FLOATS": "floats", "INTS": "ints",
    "STRINGS": "strings",
}  # fmt: skip
_NUMBERS = (
    "FLOAT", "FLOAT16", "DOUBLE", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32",
    "UINT64", "BOOL",
)  # fmt: skip

# Sizes in pixels: some runtimes divide by one that they have cut to 32 bits, and end the process.
_SIZES = {
    "blocksize", "dilations", "group", "kernel_shape", "output_padding", "output_shape", "pads",
    "strides",
}  # fmt: skip
_MAX_SIZE = 2**20


class Refused(Exception):
    """A network is not used; the message says why, without a full stop."""


@dataclass(frozen=True)
class Node:
    """A node of the graph.

    Attributes
    ----------
    operator : str
    version : int
        Version of the set of operators since which the operator is what it is.
    inputs, outputs : tuple of str
        Names of tensors; "" for one that is left out.
    attributes : mapping of str to (str, Any)
        Kind and value, by name. Tensors are arrays.
    """

    operator: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, tuple[str, Any]]


def read_opset(model: Any, onnx: Any) -> int:
    """Return the version of the standard operators that a model imports."""
    found = {one.version for one in model.opset_import if one.domain in _DOMAINS}
    newest = onnx.defs.onnx_opset_version()
    if len(found) != 1:
        raise Refused("it does not say which version of ONNX' operators it uses")
    (version,) = found
    if not _OLDEST_OPSET <= version <= newest:
        raise Refused(
            f"it uses version {version} of ONNX' operators; {_OLDEST_OPSET} to {newest} are "
            "supported"
        )
    return int(version)


def read_node(node: Any, opset: int) -> Node:
    """Return a node; raise `Refused` unless its operator is one that only computes."""
    onnx, operator = import_onnx(), node.op_type
    _check_operator(node)
    try:
        schema = onnx.defs.get_schema(operator, opset, "")
    except Exception as error:  # of a kind of its own
        raise Refused(f"version {opset} of ONNX has no operator {operator}") from error
    if schema.deprecated:
        raise Refused(f"its operator {operator} is not part of version {opset} of ONNX any more")
    inputs = [str(name) for name in node.input]
    while inputs and not inputs[-1]:  # the same as left out
        inputs.pop()
    outputs = tuple(str(name) for name in node.output)
    if not any(outputs):
        raise Refused(f"a node {operator} has no output")
    read = Node(operator, schema.since_version, tuple(inputs), outputs, _attributes(node, onnx))
    _check_training(read)
    return read


def _check_operator(node: Any) -> None:
    operator = node.op_type
    if node.domain not in _DOMAINS or node.overload:
        raise Refused(
            f"its operator {operator!r} of the domain {node.domain!r} is not one of ONNX' own, and "
            "only these are run. Export the network with standard operators, or name a layer "
            "before that one"
        )
    if operator not in OPERATORS:
        reason = REASONS.get(operator, "it is not in the list of those that only compute")
        raise Refused(f"its operator {operator} is not accepted: {reason}")


def _attributes(node: Any, onnx: Any) -> dict[str, tuple[str, Any]]:
    found: dict[str, tuple[str, Any]] = {}
    for one in node.attribute:
        kinds = onnx.AttributeProto.AttributeType
        kind = kinds.Name(one.type) if one.type in kinds.values() else "UNDEFINED"
        if kind not in _VALUES or one.ref_attr_name or one.name in found:
            raise Refused(
                f"the attribute {one.name!r} of its operator {node.op_type} is not accepted"
            )
        value: Any = getattr(one, _VALUES[kind])
        if kind == "TENSOR":
            value = array_of(value)
        elif kind in ("FLOATS", "INTS", "STRINGS"):
            value = tuple(value)
        if one.name in _SIZES and kind in ("INT", "INTS"):
            _check_sizes(node.op_type, one.name, value if kind == "INTS" else (value,))
        found[one.name] = (kind, value)
    return found


def _check_sizes(operator: str, name: str, values: tuple[int, ...]) -> None:
    largest = max(map(abs, values), default=0)
    if largest > _MAX_SIZE:
        raise Refused(
            f"the attribute {name!r} of its operator {operator} is {largest:,}; the limit is "
            f"{_MAX_SIZE:,}"
        )


def _check_training(node: Node) -> None:
    """Refuse batch statistics, which make the row of an image depend on others."""
    trains = node.attributes.get("training_mode", ("INT", 0))[1]
    several = sum(map(bool, node.outputs)) > 1 and node.version < 14
    if node.operator == "BatchNormalization" and (trains or several):
        raise Refused("its BatchNormalization is in training mode. Export it in evaluation mode")
    if node.operator == "Dropout" and len(node.inputs) > 2:
        raise Refused("its Dropout may be in training mode. Export it in evaluation mode")


def constant_of(node: Any, opset: int) -> Any | None:
    """Return the value of a node that holds a constant, as a TensorProto; None for other nodes."""
    if node.op_type != "Constant":
        return None
    onnx = import_onnx()
    attributes = read_node(node, opset).attributes
    if len(attributes) != 1:
        raise Refused("a constant has not one value")
    ((name, (_, value)),) = attributes.items()
    if name == "value":
        return onnx.numpy_helper.from_array(value)
    kinds = {"value_float": "f4", "value_floats": "f4", "value_int": "i8", "value_ints": "i8"}
    if name not in kinds:
        raise Refused(f"a constant has a {name}, which is not a number")
    return onnx.numpy_helper.from_array(np.array(value, kinds[name]))


def array_of(tensor: Any) -> NDArray[Any]:
    """Return the values of a tensor in the file; refuse those in another file, and no numbers."""
    onnx = import_onnx()
    kinds = onnx.TensorProto.DataType
    kind = kinds.Name(tensor.data_type) if tensor.data_type in kinds.values() else "UNDEFINED"
    if tensor.data_location != onnx.TensorProto.DEFAULT or len(tensor.external_data):
        raise Refused(
            f"its weights {tensor.name!r} are in another file, and no file that it names is "
            "opened. Export it as one file: torch.onnx.export(..., external_data=False), or "
            "onnx.save of the loaded model"
        )
    if kind not in _NUMBERS or tensor.HasField("segment"):
        raise Refused(f"its weights {tensor.name!r} are of type {kind}, which is not supported")
    try:
        array: NDArray[Any] = onnx.numpy_helper.to_array(tensor)
    except Exception as error:
        raise Refused(f"the values of {tensor.name!r} do not have the declared shape") from error
    return array
