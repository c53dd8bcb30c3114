"""Search for code that is not part of Keras in what a layer or an operation holds."""

from __future__ import annotations

import functools
import types
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from .installed import is_installed_module, top_package

# Whose objects hold no code of the user's, unless they can be called.
ARRAYS = {"builtins", "numpy", "ml_dtypes", "tensorflow", "jax", "jaxlib", "torch"}
_FUNCTIONS = (
    type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, np.ufunc,
)  # fmt: skip
_CONTAINERS = (list, tuple, set, frozenset)


def is_foreign(value: Any, listed: Collection[int], *, of_operation: bool = False) -> bool:
    """Tell whether a value is, or contains, code that is not part of Keras.

    Parameters
    ----------
    value : object
        An attribute or argument of a layer or operation.
    listed : collection of int
        The addresses of the model's layers and operations, each of which is described by itself.
    of_operation : bool
        Whether a layer of the model counts as well: it is not part of an operation's settings.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If it contains a layer that is not among those of the model.
    """
    waiting, seen = [value], {}
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one  # kept: a freed object's address could be given to another
        inner = _inside(one, listed)
        if inner is None or (of_operation and id(one) in listed):
            return True
        waiting.extend(inner)
    return False


def _inside(value: Any, listed: Collection[int]) -> Iterable[Any] | None:
    """Return the parts of a value in which code may be; None if it is code itself."""
    if id(value) in listed or is_symbolic(value):
        return ()
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, _CONTAINERS):
        return list(value)
    if isinstance(value, _FUNCTIONS):
        return None if _is_foreign_function(value) else ()
    if hasattr(value, "_flatten_layers"):
        raise ValueError(
            f"layer {value.name!r} of class {type(value).__name__} is used inside it but is not "
            "among the model's layers, so that its weights would be in no key; call the layer "
            "itself, or in keras.layers.TimeDistributed"
        )
    if isinstance(value, types.ModuleType):
        return () if is_installed_module(value) else None
    top = top_package(type(value))
    if top == "keras":
        return list(held_by(value).values())
    return None if top not in ARRAYS or callable(value) else ()


def _is_foreign_function(value: Any) -> bool:
    owner = getattr(value, "__self__", None)
    bound = owner is not None and not isinstance(owner, (types.ModuleType, type))
    # What a bound method computes depends on its object, which no configuration describes.
    return bound or top_package(value) not in ("keras", "builtins")


def held_by(value: Any) -> dict[str, Any]:
    """Return the attributes of an object of Keras; of an operation not how it is connected."""
    nodes = ("_inbound_nodes", "_outbound_nodes") if hasattr(value, "_inbound_nodes") else ()
    held = getattr(value, "__dict__", {})
    return {name: one for name, one in held.items() if name not in nodes}


def is_symbolic(value: Any) -> bool:
    """Tell whether a value stands for the output of a layer, without values."""
    return type(value).__name__ == "KerasTensor" and top_package(type(value)) == "keras"
