"""Names of layers and hashes of architectures that are equal in every session.

Keras numbers unnamed layers throughout a session, so that the second MobileNetV2 has a
``global_average_pooling2d_1``. A key must not depend on models that were built before. Works on
Keras' model objects without importing Keras.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from .own_code import own_code

_NO_PART_OF_A_FEATURE = {
    "trainable", "seed", "seed_generator", "compile_config", "build_config", "backend",
    "shared_object_id", "registered_name", "keras_version", "module",
}  # fmt: skip


def layer_names(model: Any) -> dict[str, Any]:
    """Return the layers of a model by the names that a fresh session would give them.

    Parameters
    ----------
    model : keras.Model

    Returns
    -------
    dict of str to keras.Layer
        In the model's order, each layer once. If an automatic name is that of another layer,
        the automatic names of this class begin with a higher number.
    """
    numbered: dict[str, dict[int, Any]] = {}
    for layer in model.layers:
        base, number = _automatic_parts(type(layer).__name__, layer.name)
        if number is not None:
            numbered.setdefault(base, {})[number] = layer
    automatic = {id(layer) for members in numbered.values() for layer in members.values()}
    taken = {layer.name for layer in model.layers if id(layer) not in automatic}
    fresh: dict[int, str] = {}
    for base, members in numbered.items():
        names = _free_names(base, [number - min(members) for number in members], taken)
        fresh |= {id(layer): name for layer, name in zip(members.values(), names, strict=True)}
        taken.update(names)
    return {fresh.get(id(layer), str(layer.name)): layer for layer in model.layers}


def _free_names(base: str, numbers: list[int], taken: set[str]) -> list[str]:
    """Return a name for each number, all shifted by the smallest amount without duplicates."""
    shift, names = 0, [f"{base}_{n}" if n else base for n in numbers]
    while not taken.isdisjoint(names):
        shift += 1
        names = [f"{base}_{n + shift}" for n in numbers]
    return names


def automatic_base(class_name: str) -> str:
    """Return the name that Keras derives from a class, ``conv2d`` from ``Conv2D``."""
    # The rule of keras.src.utils.naming.to_snake_case.
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _automatic_parts(class_name: str, name: str) -> tuple[str, int | None]:
    """Return base and number of an automatic name; the number is None for an explicit name."""
    base = automatic_base(class_name)
    match = re.fullmatch(re.escape(base) + r"(?:_(\d+))?", name)
    return base, int(match[1] or 0) if match else None


def architecture_hash(model: Any) -> str:
    """Return a hash of everything that a model computes except the values of its weights.

    Includes layer classes, their settings and connections, and all code that is not part of
    Keras. Names of layers are replaced by their order.

    Raises
    ------
    ValueError
        If `get_config` of the model fails, or it refers to an object that cannot be hashed.
    """
    try:
        config = model.get_config()
    except Exception as error:
        raise ValueError(f"get_config() failed: {error}") from error
    layers = all_layers(model)
    names = _Names(layers, config)
    described = names.in_keys(names.without({**config, "name": "model"}))
    text = json.dumps([described, own_code(model)], sort_keys=True, default=_describe)
    return hashlib.sha256(text.encode()).hexdigest()


def all_layers(model: Any) -> list[Any]:
    """Return the layers of a model and of all nested models, in order.

    Parameters
    ----------
    model : keras.Model

    Returns
    -------
    list of keras.Layer
        A nested model is followed by its layers.
    """
    found: list[Any] = []
    for layer in model.layers:
        found.append(layer)
        found.extend(all_layers(layer) if _is_network(layer) else ())
    return found


def _is_network(layer: Any) -> bool:
    return hasattr(layer, "layers") and hasattr(layer, "predict_on_batch")


class _Names:
    """Replaces names of layers in a model's configuration by their order.

    Only in the places where Keras writes names of layers: a setting, such as an activation, may
    be the same word.
    """

    def __init__(self, layers: list[Any], config: dict[str, Any]) -> None:
        self._labels = {layer.name: f"layer{i}" for i, layer in enumerate(layers)}
        self._networks = {layer.name for layer in layers if _is_network(layer)}
        self._keys: dict[str, str] = {}
        first: dict[str, int] = {}
        for layer in layers:
            base, number = _automatic_parts(type(layer).__name__, layer.name)
            if number is not None and number <= first.setdefault(base, number):
                first[base], self._keys[base] = number, self._labels[layer.name]
        self._labels = {**self._unlisted(config), **self._labels}

    def without(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration of a model with renamed layers."""
        return {
            key: self._layers(value)
            if key == "layers"
            else self._references(value)
            if key in ("input_layers", "output_layers")
            else self._settings(value)
            for key, value in config.items()
            if key not in _NO_PART_OF_A_FEATURE
        }

    def _unlisted(self, config: dict[str, Any]) -> dict[str, str]:
        """Return fresh names for automatic names that are not in `model.layers`.

        These are operations, and the inputs of Sequential models.
        """
        numbered: dict[str, dict[int, str]] = {}
        for record in self._records(config):
            name = _name_of(record)
            base, number = _automatic_parts(record["class_name"], name)
            if number is not None:
                numbered.setdefault(base, {})[number] = name
        return {
            members[number]: f"{base}_{place}" if place else base
            for base, members in numbered.items()
            for place, number in enumerate(sorted(members))
        }

    def _records(self, config: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for record in config.get("layers", ()):
            yield record
            if _name_of(record) in self._networks:
                yield from self._records(record["config"])

    def in_keys(self, value: Any) -> Any:
        """Rename settings with the name of a layer, such as ``activation`` with an Activation.

        Existing keys of stores depend on this. An automatic name has no more information than the
        layer's class, so that no difference is lost.
        """
        if isinstance(value, dict):
            return {
                self._keys.get(key, _escaped(key)): self.in_keys(one) for key, one in value.items()
            }
        return [self.in_keys(one) for one in value] if isinstance(value, list) else value

    def _layers(self, records: Any) -> Any:
        return [self._layer(record) for record in records]

    def _layer(self, record: dict[str, Any]) -> Any:
        """Rename a layer or operation of a model; the record is {class_name, config, ...}."""
        config = record["config"]
        cleaned = self._settings({k: v for k, v in record.items() if k != "config"})
        inner = (
            self.without(config) if _name_of(record) in self._networks else self._settings(config)
        )
        for part, given in ((cleaned, record), (inner, config)):
            if isinstance(given.get("name"), str):
                part["name"] = self._label(given["name"])
        return {**cleaned, "config": inner}

    def _references(self, value: Any) -> Any:
        """Rename layers in [layer, call, output], also nested in lists and dicts."""
        if isinstance(value, dict):
            return {key: self._references(one) for key, one in value.items()}
        if not isinstance(value, (list, tuple)):
            return value
        if len(value) == 3 and isinstance(value[0], str):
            return [self._label(value[0]), *value[1:]]
        return [self._references(one) for one in value]

    def _settings(self, value: Any) -> Any:
        if isinstance(value, dict):
            cleaned = {
                key: self._settings(one)
                for key, one in value.items()
                if key not in _NO_PART_OF_A_FEATURE
            }
            if value.get("class_name") == "__keras_tensor__":  # what a layer is called with
                history = self._references(value["config"]["keras_history"])
                cleaned["config"]["keras_history"] = history
            return cleaned
        if isinstance(value, (list, tuple)):
            return [self._settings(item) for item in value]
        return value

    def _label(self, name: str) -> Any:
        return self._labels.get(name, _escaped(name))


def _name_of(record: dict[str, Any]) -> str:
    """Return the name of a layer or operation that a model's configuration describes."""
    return str(record.get("name", record["config"].get("name")))


def _escaped(name: Any) -> Any:
    """Return a name that cannot be confused with the labels that replace other names."""
    taken = isinstance(name, str) and re.fullmatch(r"layer\d+|model", name)
    return f"named {name}" if taken else name


def _describe(value: Any) -> str:
    # Addresses differ between runs: an object that only has one cannot be part of a key.
    text = repr(value)
    if re.search(r" at 0x[0-9a-f]+", text):
        raise ValueError(f"{text} in the model's configuration has no stable description")
    return text
