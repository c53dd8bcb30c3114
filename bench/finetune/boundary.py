"""The boundary of a fine-tune: the layer between the frozen part of a backbone and the rest.

What comes out of it never changes during training, so that it is computed once and stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from featcache.errors import InvalidRequest
from featcache.toolkit import layer_names, nodes_before

_REACH = 24  # layers; about those of one block
_NAMED = 3  # valid boundaries that an error message names


@dataclass(frozen=True)
class Boundary:
    """A layer whose output is all that the layers after it need.

    Attributes
    ----------
    layer : str
        Its name, as in a fresh session.
    shape : tuple of int
        Shape of its output for one image.
    index : int
        Position among the layers of the backbone.
    tensor : keras.KerasTensor
        Its output in the graph.
    is_output : bool
        Whether it is the last layer of the backbone, so that its output is the embedding.
    """

    layer: str
    shape: tuple[int, ...]
    index: int
    tensor: Any
    is_output: bool = False

    @property
    def width(self) -> int:
        """Number of values for one image."""
        return math.prod(self.shape)


def boundaries(body: Any) -> list[Boundary]:
    """Return all layers of a backbone that can be a boundary, from the input to the output.

    Parameters
    ----------
    body : keras.Model
        From preprocessed pixels to embeddings.

    Returns
    -------
    list of Boundary
        Without the input layer. Empty if a layer is called more than once: then the graph is not
        one order of layers.
    """
    layers = list(layer_names(body).items())
    calls: dict[int, list[Any]] = {}  # of each layer within this model; it may be part of others
    for node in nodes_before(body.outputs):
        calls.setdefault(id(node.operation), []).append(node)
    if any(len(calls.get(id(layer), [])) != 1 for _, layer in layers):
        return []
    inputs = [calls[id(layer)][0].input_tensors for _, layer in layers]
    outputs = [calls[id(layer)][0].output_tensors for _, layer in layers]
    last_use = {id(tensor): number for number, tensors in enumerate(inputs) for tensor in tensors}
    last_use |= {id(tensor): len(layers) for tensor in body.outputs}
    found = []
    crossing: dict[int, Any] = {}  # tensors that are made so far and are used later
    for number, (name, layer) in enumerate(layers):
        crossing |= {id(tensor): tensor for tensor in outputs[number]}
        crossing = {key: t for key, t in crossing.items() if last_use.get(key, -1) > number}
        made_here = [t for t in outputs[number] if id(t) in crossing]
        if len(crossing) == len(made_here) == 1 and type(layer).__name__ != "InputLayer":
            (tensor,) = made_here
            shape = tuple(tensor.shape[1:])
            if None not in shape:
                is_output = [id(t) for t in body.outputs] == [id(tensor)]
                found.append(Boundary(name, shape, number, tensor, is_output))
    return found


def find_boundary(body: Any, first_free: int, layer: str | None = None) -> Boundary | None:
    """Return the best boundary before the layers that are trained.

    That is the one with the smallest output in the last block before them: a few frozen layers
    cost less to compute again than the wide layers inside a block cost to read.

    Parameters
    ----------
    body : keras.Model
    first_free : int
        Index of the first layer that is trained.
    layer : str, optional
        A layer to use instead.

    Returns
    -------
    Boundary or None
        None if there is none, for example since nothing is frozen.

    Raises
    ------
    InvalidRequest
        If `layer` is trained, lies inside a block, or does not exist.
    """
    possible = [one for one in boundaries(body) if one.index < first_free]
    if layer is None:
        last = possible[-1].index if possible else 0
        near = [one for one in possible if one.index >= last - _REACH]
        return min(near, key=lambda one: (one.width, -one.index), default=None)
    chosen = next((one for one in possible if one.layer == layer), None)
    if chosen is None:
        raise InvalidRequest(_why_not(body, first_free, layer, possible), received=layer)
    return chosen


def _why_not(body: Any, first_free: int, layer: str, possible: list[Boundary]) -> str:
    names = list(layer_names(body))
    if layer not in names:
        reason = f"boundary={layer!r} is not a layer of the backbone."
    elif names.index(layer) >= first_free:
        reason = f"boundary={layer!r} is trained, as are all layers from {names[first_free]!r} on."
    else:
        reason = (
            f"boundary={layer!r} lies inside a block: the layers after it also need the output of "
            "others before it."
        )
    at = names.index(layer) if layer in names else first_free
    near = sorted(possible, key=lambda one: abs(one.index - at))[:_NAMED]
    shown = ", ".join(repr(one.layer) for one in sorted(near, key=lambda one: one.index))
    return f"{reason} " + (f"The nearest that can be one: {shown}." if near else "None can be one.")
