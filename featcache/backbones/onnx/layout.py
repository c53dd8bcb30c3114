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
                groups = node.attributes.get("group", ("INT", 1))[1]
                fits = kernel is not None and kernel.ndim == 4 and kernel.shape[1] * groups == 3
                if node.operator == "Conv" and fits and found.get(node.inputs[0]) == "nchw":
                    return layout  # type: ignore[no-any-return]
                break
    return None


def _layout_of(
    node: Node, found: Mapping[str, Layout], weights: Mapping[str, NDArray[Any]]
) -> Layout | None:
    operator = node.operator
    if operator in CHANNELS_SECOND:
        return "nchw"
    if operator == "LayerNormalization" and node.attributes.get("axis", ("INT", -1))[1] in (-1, 3):
        return "nhwc"
    # A factor without a known layout, such as a reshaped vector, has the axes of the other one.
    layouts = {found[name] for name in node.inputs if name in found and name not in weights}
    if len(layouts) != 1:
        return None
    (layout,) = layouts
    if operator == "Transpose":
        order = node.attributes.get("perm", ("INTS", ()))[1]
        if layout == "nchw" and order == _TO_LAST:
            return "nhwc"
        return "nchw" if layout == "nhwc" and order == _TO_SECOND else None
    return layout if operator in SAME_AXES else None
