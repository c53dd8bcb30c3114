"""Which axis of a tensor with four axes has the channels, as far as the graph tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from numpy.typing import NDArray

from .nodes import Node
from .operators import CHANNELS_SECOND, SAME_AXES

Layout = Literal["nchw", "nhwc"]
_TO_LAST, _TO_SECOND = (0, 2, 3, 1), (0, 3, 1, 2)


def layouts_of(
    nodes: Sequence[Node], given: str, layout: Layout, weights: Mapping[str, NDArray[Any]]
) -> dict[str, Layout]:
    """Return the layout of tensors, by name, for as many as the graph tells.

    ONNX' convolutions have the channels second, also in a network whose input has them last: the
    layout of the input says nothing of a tensor behind a transposition.

    Parameters
    ----------
    nodes : sequence of Node
        Each after those that feed it.
    given : str
        The input.
    layout : {"nchw", "nhwc"}
        That of the input.
    weights : mapping of str to ndarray
    """
    found: dict[str, Layout] = {given: layout}
    for node in nodes:
        known = _layout_of(node, found, weights)
        if known is not None:
            found.update(dict.fromkeys(filter(None, node.outputs), known))
    return found


def channels_of(
    nodes: Sequence[Node], given: str, weights: Mapping[str, NDArray[Any]]
) -> Layout | None:
    """Return the layout of an input that goes into a convolution of three channels; else None.

    Some exporters leave the number of channels open.
    """
    for layout in get_args(Layout):
        found = layouts_of(nodes, given, layout, weights)
        for node in nodes:
            # What went through another convolution does not have the channels of the input.
            if node.operator in CHANNELS_SECOND:
                kernel = weights.get(node.inputs[1]) if len(node.inputs) > 1 else None
                groups = _attribute(node, "group", 1)
                first = next(iter(node.inputs), "")
                fits = kernel is not None and _taken(kernel) * groups == 3
                if node.operator == "Conv" and fits and found.get(first) == "nchw":
                    return layout  # type: ignore[no-any-return]
                break
    return None


def _taken(kernel: NDArray[Any]) -> int:
    """Return the number of channels that a convolution in two dimensions takes; 0 of another."""
    shape: tuple[int, ...] = kernel.shape
    return shape[1] if len(shape) == 4 else 0


def _attribute(node: Node, name: str, default: Any) -> Any:
    """Return the value of an attribute of a node, or the default of its operator."""
    return node.attributes[name][1] if name in node.attributes else default


def _layout_of(
    node: Node, found: Mapping[str, Layout], weights: Mapping[str, NDArray[Any]]
) -> Layout | None:
    operator = node.operator
    if operator in CHANNELS_SECOND:
        return "nchw"
    if operator == "LayerNormalization" and _attribute(node, "axis", -1) in (-1, 3):
        return "nhwc"
    # A factor without a known layout, such as a reshaped vector, has the axes of the other one.
    layouts: set[Layout] = {
        found[name] for name in node.inputs if name in found and name not in weights
    }
    if len(layouts) != 1:
        return None
    (layout,) = layouts
    if operator == "Transpose":
        order = _attribute(node, "perm", ())
        if layout == "nchw" and order == _TO_LAST:
            return "nhwc"
        return "nchw" if layout == "nhwc" and order == _TO_SECOND else None
    return layout if operator in SAME_AXES else None
