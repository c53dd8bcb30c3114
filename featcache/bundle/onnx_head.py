"""The operations of a head as nodes of ONNX, for all versions of the operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..backbones.to_onnx.writer import GraphWriter
from ..errors import NotExportable

_Array = NDArray[Any]
# The first version with all operators below; linear heads need no particular one.
_FOR_TREES = 11
_AXES_AS_INPUT = {"ReduceL2": 18, "ReduceSum": 13}
_SHORTEST = 1e-30  # of a row that is divided by its length: a row of 0 stays 0
_FLOAT, _FLOAT16 = 1, 10  # of TensorProto.DataType


@dataclass(frozen=True)
class OnnxOperations:
    """The operations of `head_graph.Operations` on names of tensors.

    Attributes
    ----------
    writer : GraphWriter
    """

    writer: GraphWriter

    def add(self, x: str, values: _Array) -> str:
        """See `head_graph.Operations`."""
        return self.writer.add("Add", x, self.writer.constant(values))

    def subtract(self, x: str, values: _Array) -> str:
        """See `head_graph.Operations`."""
        return self.writer.add("Sub", x, self.writer.constant(values))

    def divide(self, x: str, values: _Array) -> str:
        """See `head_graph.Operations`."""
        return self.writer.add("Div", x, self.writer.constant(values))

    def matmul(self, x: str, weights: _Array) -> str:
        """See `head_graph.Operations`."""
        return self.writer.add("MatMul", x, self.writer.constant(weights))

    def relu(self, x: str) -> str:
        """See `head_graph.Operations`."""
        return self.writer.add("Relu", x)

    def normalise(self, x: str) -> str:
        """See `head_graph.Operations`."""
        length = self._reduced("ReduceL2", x, keepdims=1)
        shortest = self.writer.constant(_SHORTEST)
        return self.writer.add("Div", x, self.writer.add("Max", length, shortest))

    def softmax(self, x: str) -> str:
        """See `head_graph.Operations`."""
        return self.writer.add("Softmax", x, axis=1)

    def as_float16(self, x: str) -> str:
        """See `head_graph.Operations`."""
        return self.writer.add("Cast", self.writer.add("Cast", x, to=_FLOAT16), to=_FLOAT)

    def first_nodes(self, x: str, roots: _Array) -> str:
        """See `head_graph.Operations`."""
        writer = self.writer
        if writer.opset < _FOR_TREES:
            raise NotExportable(
                f"The trees of the head need version {_FOR_TREES} of the operators of ONNX, and "
                f"the backbone has version {writer.opset}: export the backbone with a newer one, "
                "or train a linear head, such as heads.LogisticHead.",
                received=writer.opset,
            )
        rows = writer.add("Gather", writer.add("Shape", x), writer.integers([0]))
        shape = writer.add("Concat", rows, writer.integers([len(roots)]), axis=0)
        return writer.add("Expand", writer.constant(roots, "i4"), shape)

    def take(self, values: _Array, indices: str) -> str:
        """See `head_graph.Operations`."""
        kind = "f4" if values.dtype.kind == "f" else "i4"
        return self.writer.add("Gather", self.writer.constant(values, kind), indices)

    def pick(self, x: str, columns: str) -> str:
        """See `head_graph.Operations`."""
        return self.writer.add("GatherElements", x, columns, axis=1)

    def choose(self, low: str, high: str, left: str, right: str) -> str:
        """See `head_graph.Operations`."""
        return self.writer.add("Where", self.writer.add("Greater", low, high), right, left)

    def sum_groups(self, x: str, count: int) -> str:
        """See `head_graph.Operations`."""
        grouped = self.writer.add("Reshape", x, self.writer.integers([0, -1, count]))
        return self._reduced("ReduceSum", grouped, keepdims=0)

    def _reduced(self, operator: str, x: str, **attributes: Any) -> str:
        """Reduce the second axis, which is an input since some version and an attribute before."""
        if self.writer.opset >= _AXES_AS_INPUT[operator]:
            return self.writer.add(operator, x, self.writer.integers([1]), **attributes)
        return self.writer.add(operator, x, axes=[1], **attributes)
