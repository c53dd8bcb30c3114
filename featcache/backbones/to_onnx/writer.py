"""Nodes and weights of an ONNX graph while it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import NotExportable
from ..onnx.library import import_onnx

# The first version with LayerNormalization; all runtimes of recent years read it.
OPSET = 17
# Protocol Buffers have no larger messages; what is not weights takes the rest.
MAX_WEIGHT_BYTES = 2**31 - 2**26
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Value:
    """A tensor of the graph that holds the output of a layer.

    Attributes
    ----------
    name : str
        Of the tensor.
    shape : tuple of int or None
        As in Keras: the channels are the last axis. None for the number of images.
    planes : bool
        Whether the tensor has the channels second, as convolutions of ONNX take them.
    """

    name: str
    shape: Shape
    planes: bool = False

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)


class GraphWriter:
    """Collects the nodes and weights of a graph.

    Parameters
    ----------
    opset : int
        Version of the operators.
    prefix : str
        Begins the names of tensors and weights, so that they differ from those of a graph that
        nodes are added to.
    write_function : callable, optional
        `network.write_function`, for activations that are not known by name.

    Attributes
    ----------
    nodes, weights : list
        NodeProto and TensorProto, in order.
    """

    def __init__(self, opset: int = OPSET, prefix: str = "", write_function: Any = None) -> None:
        self.opset = opset
        self.write_function = write_function
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._onnx = import_onnx()
        self._prefix = prefix
        self._bytes = 0
        self._moved: dict[tuple[str, bool], str] = {}

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node; return its output.

        Parameters
        ----------
        operator : str
        *inputs : str
        output : str, optional
            Default: a new name.
        **attributes
            Of the node; those that are None are left out.
        """
        output = output or f"{self._prefix}{operator.lower()}_{len(self.nodes)}"
        given = {name: value for name, value in attributes.items() if value is not None}
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, [output], **given))
        return output

    def constant(self, values: Any, dtype: str = "f4") -> str:
        """Add a weight; return its name.

        Raises
        ------
        NotExportable
            If the weights together are larger than an ONNX file may be.
        """
        array: NDArray[Any] = np.ascontiguousarray(np.asarray(values, dtype))
        self._bytes += array.nbytes
        if self._bytes > MAX_WEIGHT_BYTES:
            raise NotExportable(
                "The weights of the network and its head take more than 2 GB, which is the limit "
                "of an ONNX file; use a smaller backbone, or write an OpenVINO folder.",
                received=self._bytes,
            )
        name = f"{self._prefix}weight_{len(self.weights)}"
        shaped = array.reshape(np.shape(values))
        self.weights.append(self._onnx.numpy_helper.from_array(shaped, name))
        return name

    def integers(self, values: Sequence[int] | int) -> str:
        """Add a constant of int64; return its name."""
        return self.constant(values, "i8")

    def planes(self, value: Value) -> str:
        """Return the tensor of a value (b, h, w, c) with its channels second."""
        return value.name if value.planes else self._transposed(value.name, to_planes=True)

    def last(self, value: Value) -> str:
        """Return the tensor of a value with its channels last, as Keras has it."""
        return self._transposed(value.name, to_planes=False) if value.planes else value.name

    def _transposed(self, name: str, *, to_planes: bool) -> str:
        key = (name, to_planes)
        if key not in self._moved:
            order = (0, 3, 1, 2) if to_planes else (0, 2, 3, 1)
            self._moved[key] = self.add("Transpose", name, perm=order)
        return self._moved[key]

    def alike(self, values: Sequence[Value]) -> tuple[list[str], bool]:
        """Return the tensors of values in one layout, and whether that has the channels second."""
        planes = any(value.planes for value in values) and all(value.rank == 4 for value in values)
        move = self.planes if planes else self.last
        return [move(value) for value in values], planes


def spread(writer: GraphWriter, values: Any, planes: bool) -> str:
    """Add a constant that is one number, or one per channel; return its name.

    Parameters
    ----------
    writer : GraphWriter
    values : array-like () or (c,)
    planes : bool
        Whether it goes with tensors whose channels are the second of four axes.
    """
    array = np.asarray(values, np.float32)
    return writer.constant(array.reshape(-1, 1, 1) if planes and array.ndim else array)


class Refused(Exception):
    """A layer cannot be written; the message says why, without a full stop.

    Attributes
    ----------
    layer : keras.Layer or Operation
    """

    def __init__(self, layer: Any, reason: str) -> None:
        super().__init__(reason)
        self.layer = layer


def not_exportable(refused: Refused) -> NotExportable:
    """Return the error for a layer that cannot be written."""
    kind = type(refused.layer).__name__
    return NotExportable(
        f"Layer {refused.layer.name!r} of class {kind} cannot be written to an ONNX network: "
        f"{refused}. Write an OpenVINO folder (to_openvino), which takes whatever TensorFlow "
        "exports, or make the bundle with an earlier layer of the backbone.",
        received=kind,
    )
