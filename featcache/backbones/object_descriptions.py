"""Descriptions of classes and of objects of any class, by all that they hold.

An object's own methods are bypassed where they could hide a part of it. What a class that is not
written in Python may hide is refused.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .installed import is_installed_class, is_installed_code, is_python_class, top_package
from .value_descriptions import (
    BUILT_IN,
    Describe,
    compiled_hash,
    describe_mapping,
    unreadable_error,
)

# Of a class: what Python keeps there for itself. Fields of a data class are in its methods.
_CLASS_DETAILS = {
    "__abstractmethods__", "__annotations__", "__dataclass_fields__", "__dataclass_params__",
    "__doc__", "__firstlineno__", "__match_args__", "__module__", "__orig_bases__",
    "__parameters__", "__qualname__", "__static_attributes__", "_abc_impl",
}  # fmt: skip
_INSTANCE_STATE = ("__dict__", "__weakref__")
# Objects whose values can be read whatever their class is: bases of the user's own classes.
_CONTENT: dict[type, Callable[[Any], Any]] = {
    list: lambda value: list(list.__iter__(value)),
    tuple: lambda value: list(tuple.__iter__(value)),
    set: lambda value: frozenset(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    dict: lambda value: [list(item) for item in dict.items(value)],
    int: lambda value: int.__int__(value),
    float: lambda value: float.__float__(value),
    complex: lambda value: [complex.real.__get__(value), complex.imag.__get__(value)],
    str: lambda value: "".join(str.__iter__(value)),
    bytes: lambda value: bytes(bytes.__iter__(value)),
    np.ndarray: lambda value: np.ndarray.view(value, np.ndarray),
    object: lambda value: None,
}
_POINTER = 8  # bytes that a slot takes


def describe_class(value: type, of: Describe) -> Any:
    """Describe an installed class by its name, another one by its whole content."""
    if is_installed_class(value):
        module = str(value.__module__)
        return ["library", module, value.__qualname__, compiled_hash(module)]
    kept = {
        name: part
        for name, part in sorted(vars(value).items())
        if name not in (*_CLASS_DETAILS, *_INSTANCE_STATE)
    }
    made_by = [of(type(value)), *(of(base) for base in value.__bases__)]
    return ["class", value.__qualname__, made_by, describe_mapping(kept, of)]


def describe_instance(value: Any, of: Describe) -> Any:
    """Describe an object by its class and its whole content."""
    kind = type(value)
    if not is_installed_class(kind):
        return _own_instance(value, of)
    if callable(getattr(value, "get_config", None)) and hasattr(value, "get_weights"):
        return _layer(value, of)
    plain = not _overrides(kind, "__reduce_ex__") and not _overrides(kind, "__reduce__")
    if isinstance(value, np.ndarray) or (plain and _base_of_content(kind) is not None):
        return _own_instance(value, of)
    return _reduced(value, of)


def _own_instance(value: Any, of: Describe) -> Any:
    """Return an object's attributes, slots and content, bypassing its own methods."""
    kind = type(value)
    base = _base_of_content(kind)
    if base is None:
        reason = "its class extends one that is not written in Python, or is such a one"
        raise unreadable_error(value, reason)
    content = _CONTENT[base](value)
    state = dict(sorted(getattr(value, "__dict__", {}).items()))
    return ["object", *(of(part) for part in (kind, content, state, _slots(value)))]


def _layer(value: Any, of: Describe) -> Any:
    """Describe a layer of Keras without the numbers that increase during a session."""
    inner = value._flatten_layers() if hasattr(value, "_flatten_layers") else [value]
    for layer in inner:
        functions = [one for one in vars(layer).values() if _is_own(one)]
        if functions or not is_installed_class(type(layer)):
            raise unreadable_error(
                value, "it holds code of your own, of which its config says little"
            )
    state = [_without_layer_names(value.get_config()), list(value.get_weights())]
    return ["layer", of(type(value)), of(state)]


def _reduced(value: Any, of: Describe) -> Any:
    """Describe an object of a library by its `__reduce_ex__`, as copying does."""
    if hasattr(value, "cache_parameters"):  # a cached function by what it caches
        names = sorted(set(vars(value)) - set(functools.WRAPPER_ASSIGNMENTS))
        return ["cached", *([name, of(vars(value)[name])] for name in names)]
    try:
        made = value.__reduce_ex__(4)
    except Exception as error:
        raise unreadable_error(value, str(error)) from error
    if isinstance(made, str):
        raise unreadable_error(value, "it is known by its name alone")
    parts = [list(part) if isinstance(part, Iterator) else part for part in made]
    return ["object", of(type(value)), *(of(part) for part in parts)]


def _base_of_content(kind: type) -> type | None:
    """Return the base class with an object's content; None if it may have hidden content.

    A class statement adds attributes and slots to the memory of an object; one that is written
    in another language can add anything, which shows in the size.
    """
    while kind not in _CONTENT:
        base = kind.__base__
        if base is None or not is_python_class(kind):
            return None
        own = vars(kind).values()
        slots = sum(type(part) is types.MemberDescriptorType for part in own)
        slots += sum(name in vars(kind) for name in _INSTANCE_STATE)
        if kind.__basicsize__ - base.__basicsize__ > slots * _POINTER:
            return None
        kind = base
    return kind


def _overrides(kind: type, name: str) -> bool:
    return getattr(kind, name) is not getattr(object, name)


def _slots(value: Any) -> dict[str, Any]:
    found = {}
    for base in type(value).__mro__:
        for name, part in vars(base).items():
            if type(part) is types.MemberDescriptorType and is_python_class(base):
                with contextlib.suppress(AttributeError):
                    found[f"{base.__qualname__}.{name}"] = part.__get__(value)
    return dict(sorted(found.items()))


def _is_own(value: Any) -> bool:
    """Tell whether an attribute of a layer of Keras holds code that its config may not tell."""
    if isinstance(value, functools.partial):
        return any(_is_own(part) for part in (value.func, *value.args, *value.keywords.values()))
    if isinstance(value, (list, tuple, dict)):
        return any(_is_own(part) for part in (value.values() if type(value) is dict else value))
    if not callable(value):
        return False
    named = isinstance(value, (type, types.FunctionType, types.MethodType, *BUILT_IN))
    # What else can be called, as a compiled function of TensorFlow, may hide another function.
    return not is_installed_code(value) if named else top_package(type(value)) != "keras"


def _without_layer_names(config: Any, outer: bool = True) -> Any:
    """Remove names of layers, which Keras numbers in a session, unless a graph refers to them."""
    if isinstance(config, (list, tuple)):
        return [_without_layer_names(part, False) for part in config]
    if not isinstance(config, Mapping) or "input_layers" in config:
        return config
    inner = {key: _without_layer_names(part, False) for key, part in sorted(config.items())}
    if outer:
        inner.pop("name", None)
    if str(inner.get("module")) in ("keras.layers", "keras.models"):
        inner.pop("name", None)
        if isinstance(inner.get("config"), dict):
            inner["config"].pop("name", None)
    return inner
