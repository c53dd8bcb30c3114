"""Description of a model's code that is not part of Keras, the same in every session.

It covers user-defined layers with their attributes, and functions and objects passed to layers of
Keras. A configuration contains their names, but not what they compute.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import UnreadableObject
from .foreign_code import ARRAYS, held_by, is_foreign, is_symbolic
from .function_hash import function_hash
from .installed import is_installed_class, top_package
from .keras_backend import import_keras

# They create or train the weights, whose values are hashed anyway.
_FOR_WEIGHTS = ("_initializer", "_regularizer", "_constraint")
# Set by training and compilation.
_COMPILED = {
    "optimizer", "history", "stop_training", "stop_evaluating", "stop_predicting",
    "_compile_config", "_compiled_trainable_state",
}  # fmt: skip

# Functions and classes; any other callable may wrap a function.
_FUNCTIONS_AND_CLASSES = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType)

Describe = Callable[[Any], Any]


def own_code(model: Any) -> list[list[str]]:
    """Return position and digest of each part of a model with code that is not part of Keras.

    Parameters
    ----------
    model : keras.Model

    Returns
    -------
    list of [str, str]
        Empty for models that consist only of layers and functions of Keras.

    Raises
    ------
    ValueError
        If such a part refers to files, or to an object whose values cannot be read.
    """
    parts = operations(model)
    known = _KnownObjects(model, parts)
    found = []
    for place, part in enumerate(parts):
        described = _described(part, known.listed)
        if described:
            found.append([str(place), _digest(part, described, known)])
    return found


def operations(model: Any) -> list[Any]:
    """Return all layers and operations, also nested ones, which `model.layers` lacks."""
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


class _KnownObjects:
    """Descriptions of the parts of a model by their position, and of objects of Keras."""

    def __init__(self, model: Any, parts: list[Any]) -> None:
        self._places = {id(part): ["layer", place] for place, part in enumerate(parts)}
        self.listed = frozenset(self._places)
        self._places |= {id(w): ["weight", place] for place, w in enumerate(model.weights)}
        self._places[id(model)] = ["model"]

    def __call__(self, value: Any, describe: Describe) -> Any:
        """Return the description of a value; None if it needs no special one."""
        if id(value) in self._places:
            return self._places[id(value)]
        top = top_package(type(value))
        if isinstance(value, (list, dict, tuple, set)) or top not in (ARRAYS | {"keras"}):
            # Keras and TensorFlow wrap lists in classes of their own.
            wrapped = isinstance(value, list) and type(value) is not list
            return describe(list(value)) if wrapped and top in ("keras", "tensorflow") else None
        if isinstance(value, (np.ndarray, np.generic)):
            return None
        if is_symbolic(value):
            return ["symbolic", list(value.shape), str(value.dtype)]
        if top != "builtins" and hasattr(value, "__array__") and hasattr(value, "shape"):
            return ["array", describe(_values(value))]
        described = top == "keras" and callable(getattr(value, "get_config", None))
        if described and not hasattr(value, "_flatten_layers"):
            return self._of_keras(value, describe)
        if (
            callable(value)
            and not isinstance(value, _FUNCTIONS_AND_CLASSES)
            and top in ("tensorflow", "jaxlib")
        ):
            return _compiled(value, describe)
        return None

    def _of_keras(self, value: Any, describe: Describe) -> Any:
        """Describe an object of Keras by its configuration and the other code in it."""
        described = ["keras", type(value).__qualname__]
        held = sorted(held_by(value).items())
        code = {name: one for name, one in held if is_foreign(one, self.listed)}
        if code and hasattr(value, "_inbound_nodes"):
            # An operation, whose configuration may contain names of code.
            return [*described, describe(dict(held))]
        config = describe(_without_automatic_name(value))
        return [*described, config, describe(code)] if code else [*described, config]


def _values(value: Any) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(value)
    except Exception as error:  # each library raises its own, such as TensorFlow for a lookup table
        raise _unreadable(value, str(error)) from error


def _compiled(value: Any, describe: Describe) -> Any:
    """Describe a function that TensorFlow or JAX compiled by the original function."""
    function = getattr(value, "python_function", None) or getattr(value, "__wrapped__", None)
    if function is None:
        raise _unreadable(value, "the function that was compiled is not accessible")
    signature = getattr(value, "input_signature", None)
    return ["compiled", type(value).__qualname__, describe(function), repr(signature)]


def _unreadable(value: Any, reason: str) -> UnreadableObject:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return UnreadableObject(f"cannot read {kind}: {reason}", received=kind, reason=reason)


def _digest(part: Any, described: list[Any], known: _KnownObjects) -> str:
    try:
        return function_hash(described, known=known)
    except UnreadableObject as error:
        raise ValueError(
            f"its layer {part.name!r} refers to an object of type {error.received}, "
            f"whose values cannot be read: {error.reason}"
        ) from error


def _described(part: Any, listed: frozenset[int]) -> list[Any]:
    """Return the code of a layer or operation that is not part of Keras, and its state."""
    kind = type(part)
    _check_has_no_files(part)
    try:
        if top_package(kind) == "keras":
            return _foreign_in(part, listed)
        if is_installed_class(kind):
            return [kind, _source(kind), _foreign_in(part, listed)]
        arguments = _foreign_arguments(part, listed)
    except ValueError as error:
        raise ValueError(f"in its layer or operation {part.name!r}, {error}") from error
    policy = getattr(part, "dtype_policy", None)
    cast = [str(getattr(policy, "name", None)), bool(getattr(part, "autocast", True))]
    return [kind, cast, _state(part), arguments]


def _check_has_no_files(part: Any) -> None:
    """Raise ValueError for a layer whose computation is defined by files."""
    if any(base.__name__ == "TFSMLayer" for base in type(part).__mro__):
        raise ValueError(
            f"its layer {part.name!r} is a TFSMLayer, which runs a SavedModel from a folder whose "
            "content may change; build the network from layers of Keras"
        )


def _state(part: Any) -> dict[str, Any]:
    """Return the attributes of a layer, without those that every layer of Keras has."""
    keras_own = _default_attributes(hasattr(part, "predict_on_batch"))
    return {name: value for name, value in sorted(vars(part).items()) if name not in keras_own}


@functools.cache
def _default_attributes(is_network: bool) -> frozenset[str]:
    """Return the attributes of a new layer or model."""
    keras = import_keras()
    # With a name, so that the counter of automatic names does not change.
    kind = type("Plain", (keras.layers.Layer,), {"call": lambda self, x: x})
    plain = kind(name="plain")
    # Keras sets some attributes only once a layer contains another one.
    plain.tracked = keras.layers.Identity(name="inner")
    inputs = keras.Input((1,), name="input")
    outputs = plain(inputs)
    examples = [plain]
    if is_network:
        examples.append(keras.Model(inputs, outputs, name="plain"))
        examples.append(keras.Sequential([inputs, plain], name="plain"))
    names = {name for example in examples for name in vars(example)}
    return frozenset(names - {"tracked", "supports_masking"} | (_COMPILED if is_network else set()))


def _foreign_in(part: Any, listed: frozenset[int]) -> list[Any]:
    """Return the attributes and arguments of a layer of Keras that contain code of others."""
    is_operation = not hasattr(part, "_flatten_layers")
    state = {
        name: value
        for name, value in _state(part).items()
        if not _is_for_weights(part, name) and is_foreign(value, listed, of_operation=is_operation)
    }
    arguments = _foreign_arguments(part, listed)
    return [state, arguments] if state or arguments else []


def _is_for_weights(part: Any, name: str) -> bool:
    """Return whether an attribute is a setting of Keras for creating or training weights."""
    return name.endswith(_FOR_WEIGHTS) and name.lstrip("_") in part.get_config()


def _foreign_arguments(part: Any, listed: frozenset[int]) -> list[Any]:
    """Return the arguments of a layer's calls that contain code, such as of ``keras.ops.map``."""
    arguments = [node.arguments for node in getattr(part, "_inbound_nodes", ())]
    calls = [(list(one.args), dict(one.kwargs)) for one in arguments]
    return [call for call in calls if is_foreign(call, listed, of_operation=True)]


def _without_automatic_name(value: Any) -> dict[str, Any]:
    config = dict(value.get_config())
    if re.fullmatch(r"[a-z0-9_]+?(_\d+)?", str(config.get("name"))) and hasattr(value, "state"):
        del config["name"]  # the automatic name of a seed generator is numbered
    return config


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""
