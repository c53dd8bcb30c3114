"""Summary of a neural network: its layers, weights, depth and frozen part."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from featcache.toolkit import OnnxBackbone, layer_names


def describe_network(name: str, model: Any, first_free: int | None) -> dict[str, Any]:
    """Summarise a Keras model.

    Parameters
    ----------
    name : str
        Human-readable name.
    model : keras.Model
        A functional model.
    first_free : int or None
        Index of the first layer that is trained; None if all are frozen.

    Returns
    -------
    dict
        ``network``, the name; ``layers``, their number; ``depth``, see `depth`;
        ``parameters``, the number of weights; ``trained_share``, the fraction of them that is
        trained; ``free_from``, the name of the first trained layer or ``"none"``; ``kinds``,
        the number of layers by class name.
    """
    names = list(layer_names(model))
    counts = [int(sum(np.prod(w.shape) for w in layer.weights)) for layer in model.layers]
    total = sum(counts)
    frozen = first_free is None or first_free >= len(names)
    free = 0 if frozen else sum(counts[first_free:])
    return {
        "network": name,
        "layers": len(model.layers),
        "depth": depth(model),
        "parameters": total,
        "trained_share": free / total if total else 0.0,
        "free_from": "none" if frozen else names[first_free or 0],
        "kinds": dict(Counter(type(layer).__name__ for layer in model.layers).most_common()),
    }


def describe_onnx_network(backbone: OnnxBackbone) -> dict[str, Any]:
    """Summarise an ONNX network like a Keras model; its operators stand for layers."""
    return {
        "network": backbone.title,
        "layers": len(backbone.operators),
        "depth": backbone.depth,
        "parameters": backbone.count_params(),
        "trained_share": 0.0,
        "free_from": "none",
        "kinds": dict(Counter(backbone.operators).most_common()),
    }


def depth(model: Any) -> int:
    """Return the number of layers with weights on the longest path from input to output."""
    inputs = {c["name"]: _sources(c.get("inbound_nodes", [])) for c in model.get_config()["layers"]}
    weighty = {layer.name: int(bool(layer.weights)) for layer in model.layers}
    longest: dict[str, int] = {}
    for layer in inputs:  # a functional model lists a layer after those that feed it
        before = max((longest.get(source, 0) for source in inputs[layer]), default=0)
        longest[layer] = before + weighty.get(layer, 0)
    return max(longest.values(), default=0)


def _sources(node: Any) -> set[str]:
    """Return the names of the layers whose output a node's description refers to."""
    if isinstance(node, dict):
        history = node.get("keras_history")
        found = {history[0]} if history else set()
        return found.union(*(_sources(value) for value in node.values()))
    if isinstance(node, (list, tuple)):
        return set().union(*(_sources(value) for value in node))
    return set()
