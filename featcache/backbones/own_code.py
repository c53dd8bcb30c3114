"""Description of a model's code that is not part of Keras, equal in every session.

Layers of one's own with their attributes, and functions and objects given to layers of Keras:
a configuration names these, and does not tell what they compute.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import UnreadableObject
from .function_hash import function_hash
from .installed import is_installed_class, top_package
from .keras_backend import import_keras

_DEEPEST = 8
# Whose objects hold no code of the user's, unless it is in a container.
_ARRAYS = {"builtins", "numpy", "ml_dtypes", "tensorflow", "jax", "jaxlib", "torch"}
# They make or train weights, whose values are hashed.
_FOR_WEIGHTS = ("_initializer", "_regularizer", "_constraint")
_COMPILED = {
    "optimizer", "history", "stop_training", "stop_evaluating", "stop_predicting",
    "_compile_config", "_compiled_trainable_state",
}  # fmt: skip
_FUNCTIONS = (
    type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, np.ufunc,
)  # fmt: skip

Of = Callable[[Any], Any]


def own_code(model: Any) -> list[list[str]]:
    """Return position and digest of each part of a model with code that is not part of Keras.

    Parameters
    ----------
    model : keras.Model

    Returns
    -------
    list of [str, str]
        Empty for models of Keras' own layers and functions alone.

    Raises
    ------
    ValueError
        If such a part refers to an object whose values cannot be read.
    """
    parts = operations(model)
    known = _Known(model, parts)
    found = []
    for place, part in enumerate(parts):
        described = _described(part)
        if described:
            found.append([str(place), _digest(part, described, known)])
    return found


def operations(model: Any) -> list[Any]:
    """Return all layers, nested layers, and operations, which are not in `model.layers`."""
    found: dict[int, Any] = {}
    waiting = [model]
    while waiting:
        outer = waiting.pop()
        inner = outer._flatten_layers(False, False) if hasattr(outer, "_flatten_layers") else ()
        for one in (*inner, *getattr(outer, "operations", ())):
            if id(one) not in found:
                found[id(one)] = one
                waiting.append(one)
    return list(found.values())


class _Known:
    """Describes parts of a model by their position in it, and objects of Keras."""

    def __init__(self, model: Any, parts: list[Any]) -> None:
        self._places = {id(part): ["layer", place] for place, part in enumerate(parts)}
        self._places |= {id(w): ["weight", place] for place, w in enumerate(model.weights)}
        self._places[id(model)] = ["model"]

    def __call__(self, value: Any, of: Of) -> Any:
        """Return the description of a value, None for values without a special one."""
        if id(value) in self._places:
            return self._places[id(value)]
        top = top_package(type(value))
        if isinstance(value, (list, dict, tuple, set)) or top not in (_ARRAYS | {"keras"}):
            # Keras and TensorFlow put lists into ones of their own.
            wrapped = isinstance(value, list) and type(value) is not list
            return of(list(value)) if wrapped and top in ("keras", "tensorflow") else None
        if isinstance(value, (np.ndarray, np.generic)):
            return None
        if _is_symbolic(value):
            return ["symbolic", list(value.shape), str(value.dtype)]
        if top != "builtins" and hasattr(value, "__array__") and hasattr(value, "shape"):
            return ["array", of(np.asarray(value))]
        described = top == "keras" and callable(getattr(value, "get_config", None))
        if described and not hasattr(value, "_flatten_layers"):
            return ["keras", type(value).__qualname__, of(_without_automatic_name(value))]
        return None


def _digest(part: Any, described: list[Any], known: _Known) -> str:
    try:
        return function_hash(described, known=known)
    except UnreadableObject as error:
        raise ValueError(
            f"its layer {part.name!r} refers to an object of type {error.received}, "
            f"whose values cannot be read: {error.reason}"
        ) from error


def _described(part: Any) -> list[Any]:
    """Return the code of a layer or operation that is not part of Keras, and its state."""
    kind = type(part)
    if top_package(kind) == "keras":
        return _foreign_in(part)
    if is_installed_class(kind):
        return [kind, _source(kind), _foreign_in(part)]
    policy = getattr(part, "dtype_policy", None)
    cast = [str(getattr(policy, "name", None)), bool(getattr(part, "autocast", True))]
    return [kind, cast, _state(part), _foreign_arguments(part)]


def _state(part: Any) -> dict[str, Any]:
    """Return the attributes of a layer that not every layer of Keras has."""
    keras_own = _bookkeeping(hasattr(part, "predict_on_batch"))
    return {name: value for name, value in sorted(vars(part).items()) if name not in keras_own}


@functools.cache
def _bookkeeping(network: bool) -> frozenset[str]:
    """Return the attributes of a new layer or model."""
    keras = import_keras()
    # Named, so that no automatic name is used up.
    kind = type("Plain", (keras.layers.Layer,), {"call": lambda self, x: x})
    plain = kind(name="plain")
    # TensorFlow's own attributes come with the first layer in a layer.
    plain.tracked = keras.layers.Identity(name="inner")
    inputs = keras.Input((1,), name="input")
    outputs = plain(inputs)
    examples = [plain]
    if network:
        examples.append(keras.Model(inputs, outputs, name="plain"))
        examples.append(keras.Sequential([inputs, plain], name="plain"))
    names = {name for example in examples for name in vars(example)}
    return frozenset(names - {"tracked", "supports_masking"} | (_COMPILED if network else set()))


def _foreign_in(part: Any) -> list[Any]:
    """Return the attributes and arguments of a layer of Keras that contain other code."""
    state = {
        name: value
        for name, value in _state(part).items()
        if not name.endswith(_FOR_WEIGHTS) and _is_foreign(value)
    }
    arguments = _foreign_arguments(part)
    return [state, arguments] if state or arguments else []


def _foreign_arguments(part: Any) -> list[Any]:
    """Return arguments of a layer's calls that contain code, as of ``keras.ops.map``."""
    arguments = [node.arguments for node in getattr(part, "_inbound_nodes", ())]
    calls = [(list(one.args), dict(one.kwargs)) for one in arguments]
    return [call for call in calls if _is_foreign(call)]


def _is_foreign(value: Any, depth: int = 0) -> bool:
    if depth > _DEEPEST or hasattr(value, "_inbound_nodes") or _is_symbolic(value):
        return False  # a layer is looked at on its own
    if isinstance(value, functools.partial):
        return any(_is_foreign(one, depth + 1) for one in _parts_of_partial(value))
    if isinstance(value, dict):
        return any(_is_foreign(one, depth + 1) for one in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(_is_foreign(one, depth + 1) for one in value)
    if isinstance(value, _FUNCTIONS):
        return top_package(value) not in ("keras", "builtins")
    top = top_package(type(value))
    if top != "keras":
        return top not in _ARRAYS
    return any(_is_foreign(one, depth + 1) for one in getattr(value, "__dict__", {}).values())


def _is_symbolic(value: Any) -> bool:
    return type(value).__name__ == "KerasTensor"


def _parts_of_partial(value: functools.partial[Any]) -> Iterator[Any]:
    yield value.func
    yield from value.args
    yield from value.keywords.values()


def _without_automatic_name(value: Any) -> dict[str, Any]:
    config = dict(value.get_config())
    if re.fullmatch(r"[a-z0-9_]+?(_\d+)?", str(config.get("name"))) and hasattr(value, "state"):
        del config["name"]  # seed generators are numbered
    return config


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""
