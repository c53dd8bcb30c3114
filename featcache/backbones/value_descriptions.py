"""Descriptions of values by their exact type: arrays, collections, what wraps functions.

Each function takes a value and what describes its parts, and returns lists of text.
"""

from __future__ import annotations

import functools
import hashlib
import json
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._io.hashes import file_hash
from ..errors import UnreadableObject
from .installed import compiled_file

# What describes a part of a value.
Describe = Callable[[Any], Any]

PLAIN = (type(None), bool, int, str, float, complex, bytes, range, type(...))
BUILT_IN = (
    np.ufunc,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
)


def plain_text(value: Any) -> str:
    """Return the text of a value of one of the types `PLAIN`."""
    try:
        return repr(value)
    except ValueError:  # Python writes no decimal digits of an integer with thousands of them
        return hex(value)


def describe_array(value: Any, of: Describe) -> Any:
    """Describe an array by its type, shape and values."""
    described = ["array", _dtype(value.dtype, of), list(value.shape)]
    if value.dtype.hasobject:
        return [*described, of(value.tolist())]
    return [*described, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]


def _dtype(dtype: Any, of: Describe) -> Any:
    described = [dtype.str, dtype.itemsize, of(dict(dtype.metadata or {}))]
    if dtype.subdtype is not None:
        return [*described, _dtype(dtype.subdtype[0], of), list(dtype.subdtype[1])]
    fields = [(name, *dtype.fields[name][:2]) for name in dtype.names or ()]
    return [*described, [[name, _dtype(kind, of), place] for name, kind, place in fields]]


def _sequence(value: Any, of: Describe) -> Any:
    return [type(value).__name__, *(of(item) for item in value)]


def _slice(value: Any, of: Describe) -> Any:
    return ["slice", *(of(part) for part in (value.start, value.stop, value.step))]


def _set(value: Any, of: Describe) -> Any:
    return [type(value).__name__, *sorted(json.dumps(of(item)) for item in value)]


def describe_mapping(value: Any, of: Describe) -> Any:
    """Describe a mapping by its type and its pairs in their order."""
    return [type(value).__name__, *([of(k), of(v)] for k, v in value.items())]


def _partial(value: Any, of: Describe) -> Any:
    named = dict(sorted(value.keywords.items()))
    state = dict(sorted(vars(value).items()))
    return ["partial", *(of(part) for part in (value.func, value.args, named, state))]


def _method(value: Any, of: Describe) -> Any:
    return ["method", of(value.__func__), of(value.__self__)]


def _slot(value: Any, of: Describe) -> Any:
    return ["slot", value.__name__]  # the instances tell its values


def _property(value: Any, of: Describe) -> Any:
    return ["property", *(of(part) for part in (value.fget, value.fset, value.fdel))]


def _wrapped(value: Any, of: Describe) -> Any:
    return [type(value).__name__, of(value.__func__)]


def _cached_property(value: Any, of: Describe) -> Any:
    return ["cached_property", of(value.func), value.attrname]


def _builtin(value: Any, of: Describe) -> Any:
    if isinstance(value, np.ufunc) and not value.__name__.isidentifier():
        raise unreadable_error(value, "it hides the function that it was made of")
    owner = getattr(value, "__self__", None)
    if isinstance(owner, types.ModuleType):
        owner = None
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", getattr(value, "__name__", repr(type(value))))
    of_owner = None if owner is None else of(owner)
    return ["builtin", str(module), name, of_owner, compiled_hash(module)]


# For classes and functions see `object_descriptions` and `function_hash`.
KINDS: Mapping[type, Callable[[Any, Describe], Any]] = {
    np.ndarray: describe_array,
    list: _sequence,
    tuple: _sequence,
    slice: _slice,
    set: _set,
    frozenset: _set,
    dict: describe_mapping,
    types.MappingProxyType: describe_mapping,
    functools.partial: _partial,
    types.MethodType: _method,
    types.MemberDescriptorType: _slot,
    property: _property,
    classmethod: _wrapped,
    staticmethod: _wrapped,
    functools.cached_property: _cached_property,
    **dict.fromkeys(BUILT_IN, _builtin),
}


def compiled_hash(module: Any) -> str | None:
    """Return the hash of the file of a module that is not written in Python, else None."""
    file = compiled_file(module)
    return None if file is None else file_hash(file)


def unreadable_error(value: Any, reason: str) -> UnreadableObject:
    """Return the error for a value that cannot be described completely."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return UnreadableObject(
        f"The preprocessing function refers to an object of type {kind}, whose values cannot be "
        f"read ({reason}), so that rows of another function could be taken for its own. Use "
        "numbers, arrays and functions, and make such objects inside the function.",
        received=kind,
        reason=reason,
    )
