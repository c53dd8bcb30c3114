"""Names and fingerprints of a model's layers that are the same in every session.

Keras numbers unnamed layers through a whole session, so the second MobileNetV2 built has
a ``global_average_pooling2d_1``. A key must not depend on what else was built before.
Works on Keras' model objects without importing Keras.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from typing import Any

_NO_PART_OF_A_FEATURE = {
    "trainable", "seed", "seed_generator", "compile_config", "build_config", "backend",
    "shared_object_id", "registered_name", "keras_version", "module",
}  # fmt: skip


def layer_names(model: Any) -> dict[str, Any]:
    """Map each layer's name, as a fresh session would give it, to the layer.

    Parameters
    ----------
    model : keras.Model

    Returns
    -------
    dict of str to keras.Layer
        In the model's own order.
    """
    numbered: dict[str, list[tuple[int, Any]]] = {}
    for layer in model.layers:
        base = automatic_base(type(layer).__name__)
        if match := re.fullmatch(re.escape(base) + r"(?:_(\d+))?", layer.name):
            numbered.setdefault(base, []).append((int(match[1] or 0), layer))
    fresh: dict[int, str] = {}
    for base, members in numbered.items():
        first = min(number for number, _ in members)
        for number, layer in members:
            fresh[id(layer)] = base if number == first else f"{base}_{number - first}"
    return {fresh.get(id(layer), layer.name): layer for layer in model.layers}


def automatic_base(class_name: str) -> str:
    """Return the name that Keras derives from a class, ``conv2d`` from ``Conv2D``."""
    # The rule of keras.src.utils.naming.to_snake_case.
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def architecture_hash(model: Any) -> str:
    """Hash what a model computes apart from its weights' values.

    Layer classes, their settings and connections, and the source of classes that are not
    Keras' own; layer names, which say nothing, are replaced by their order.

    Raises
    ------
    ValueError
        If the model cannot describe itself (`get_config`).
    """
    try:
        config = model.get_config()
    except Exception as error:
        raise ValueError(f"get_config() failed: {error}") from error
    layers = all_layers(model)
    renamed = {layer.name: f"layer{i}" for i, layer in enumerate(layers)}
    renamed[model.name] = "model"
    sources = sorted({_source(type(layer)) for layer in layers} - {""})
    text = json.dumps([_cleaned(config, renamed), sources], sort_keys=True, default=_describe)
    return hashlib.sha256(text.encode()).hexdigest()


def all_layers(model: Any) -> list[Any]:
    """Return the layers of a model and of the models nested in it, in order."""
    found: list[Any] = []
    for layer in model.layers:
        found.append(layer)
        found.extend(all_layers(layer) if hasattr(layer, "layers") else ())
    return found


def _cleaned(value: Any, renamed: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            renamed.get(k, k): _cleaned(v, renamed)
            for k, v in value.items()
            if k not in _NO_PART_OF_A_FEATURE
        }
    if isinstance(value, (list, tuple)):
        return [_cleaned(item, renamed) for item in value]
    return renamed.get(value, value) if isinstance(value, str) else value


def _source(kind: type) -> str:
    if kind.__module__.split(".")[0] == "keras":
        return ""
    try:
        return f"{kind.__qualname__}\n{inspect.getsource(kind)}"
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"


def _describe(value: Any) -> str:
    # Addresses differ between runs: an object that only has one cannot be part of a key.
    text = repr(value)
    if re.search(r" at 0x[0-9a-f]+", text):
        raise ValueError(f"{text} in the model's configuration has no stable description")
    return text
