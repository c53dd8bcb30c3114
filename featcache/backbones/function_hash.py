"""Description of a user's function as text that is equal in every session.

Its source without names, comments and layout, and whatever it refers to: defaults, closure,
globals, modules of the user's own. Installed libraries are named and not looked into;
addresses never appear. What cannot be described completely is refused.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .._io.hashes import file_hash
from ..errors import UnreadableObject
from .function_source import (
    attribute_names,
    global_names,
    imported_modules,
    names_of_imports,
    normalised_source,
    uses_attributes_alone,
)
from .installed import (
    compiled_file,
    is_installed_class,
    is_installed_code,
    is_installed_file,
    is_installed_module,
    is_python_class,
    top_package,
)

_MAX_VALUES = 100_000  # nested values looked at; more is no preprocessing function
_PLAIN = (type(None), bool, int, str, float, complex, bytes, range, type(...))
_BUILT_IN = (
    np.ufunc,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
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
_RUN_ANY_TEXT = {"eval", "exec", "globals"}
_READ_ANY_NAME = {"getattr", "vars", "dir", "__import__"}
_REACH_MODULES = {"__dict__", "import_module", "modules", "attrgetter"}


# What a function calls a module, and which part of the module is called so, if not all of it.
Names = list[tuple[str, str | None]]
Known = Callable[[Any, Callable[[Any], Any]], Any]


def function_hash(function: Any, *, known: Known = lambda value, of: None) -> str:
    """Return the SHA-256 of a function's source and of all values that it refers to.

    Parameters
    ----------
    function : callable
        A function, lambda, method, `functools.partial`, or an object with ``__call__``; or a
        list of such and of values.
    known : callable
        Given a value and what describes its parts, returns the description of the value
        where it has a special one, else None.

    Returns
    -------
    str
        64 hexadecimal digits; equal in another session and on another machine for the same
        source, values and library functions. Without the source the compiled code is used,
        which differs between versions of Python. What a function reads from files or from
        the environment when it is called is not in it.

    Raises
    ------
    InvalidRequest
        If it refers to an object that cannot be described completely: an open file, a class of
        your own that extends one not written in Python, a layer of Keras with your own code;
        or if it calls `eval`, `exec` or `globals`.
    """
    return str(_Description(known).of(function))


class _Description:
    """Describes values: simple ones by lists of text, others by a digest of their parts."""

    def __init__(self, known: Known) -> None:
        self._known = known
        # Objects are kept: a freed one's address could be given to another.
        self._done: dict[int, tuple[Any, str]] = {}
        self._open: list[int] = []  # whose parts are being described
        self._kinds: dict[type, Callable[[Any], Any]] = {
            np.ndarray: self._array,
            list: self._sequence,
            tuple: self._sequence,
            slice: self._slice,
            set: self._set,
            frozenset: self._set,
            dict: self._mapping,
            types.MappingProxyType: self._mapping,
            types.ModuleType: self._module,
            functools.partial: self._partial,
            types.MethodType: self._method,
            types.FunctionType: self._function,
            types.CodeType: self._code,
            types.MemberDescriptorType: self._slot,
            property: self._property,
            classmethod: self._wrapped,
            staticmethod: self._wrapped,
            functools.cached_property: self._cached_property,
            **dict.fromkeys(_BUILT_IN, self._builtin),
        }

    def of(self, value: Any) -> Any:
        """Return the description of a value."""
        if type(value) in _PLAIN:
            return [type(value).__name__, _plain_text(value)]
        if id(value) in self._open:
            return ["again", self._open.index(id(value))]  # so cycles end
        if id(value) not in self._done:
            self._done[id(value)] = (value, self._digest(value))
        return self._done[id(value)][1]

    def _digest(self, value: Any) -> str:
        if len(self._done) > _MAX_VALUES:
            raise _refused(value, "there are too many of them")
        self._open.append(id(value))
        try:
            text = json.dumps(self._of_object(value), sort_keys=True)
        except RecursionError as error:
            raise _refused(value, "they are nested too deeply") from error
        finally:
            self._open.pop()
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _of_object(self, value: Any) -> Any:
        """Describe an object by its exact type: a subclass may add content and behaviour."""
        found = self._known(value, self.of)
        if found is not None:
            return found
        describe = self._kinds.get(type(value))
        if describe is not None:
            return describe(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, np.generic) and type(value) is value.dtype.type:
            return self._array(np.asarray(value))
        if isinstance(value, types.ModuleType) and is_installed_module(value):
            return self._module(value)
        return self._instance(value)

    # Values

    def _array(self, value: Any) -> Any:
        described = ["array", self._dtype(value.dtype), list(value.shape)]
        if value.dtype.hasobject:
            return [*described, self.of(value.tolist())]
        return [*described, hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]

    def _dtype(self, dtype: Any) -> Any:
        described = [dtype.str, dtype.itemsize, self.of(dict(dtype.metadata or {}))]
        if dtype.subdtype is not None:
            return [*described, self._dtype(dtype.subdtype[0]), list(dtype.subdtype[1])]
        fields = [(name, *dtype.fields[name][:2]) for name in dtype.names or ()]
        return [*described, [[name, self._dtype(kind), place] for name, kind, place in fields]]

    def _sequence(self, value: Any) -> Any:
        return [type(value).__name__, *(self.of(item) for item in value)]

    def _slice(self, value: Any) -> Any:
        return ["slice", *(self.of(part) for part in (value.start, value.stop, value.step))]

    def _set(self, value: Any) -> Any:
        return [type(value).__name__, *sorted(json.dumps(self.of(item)) for item in value)]

    def _mapping(self, value: Any) -> Any:
        return [type(value).__name__, *([self.of(k), self.of(v)] for k, v in value.items())]

    # Code

    def _partial(self, value: Any) -> Any:
        named = dict(sorted(value.keywords.items()))
        state = dict(sorted(vars(value).items()))
        return ["partial", *(self.of(part) for part in (value.func, value.args, named, state))]

    def _method(self, value: Any) -> Any:
        return ["method", self.of(value.__func__), self.of(value.__self__)]

    def _slot(self, value: Any) -> Any:
        return ["slot", value.__name__]  # the instances tell its values

    def _property(self, value: Any) -> Any:
        return ["property", *(self.of(part) for part in (value.fget, value.fset, value.fdel))]

    def _wrapped(self, value: Any) -> Any:
        return [type(value).__name__, self.of(value.__func__)]

    def _cached_property(self, value: Any) -> Any:
        return ["cached_property", self.of(value.func), value.attrname]

    def _builtin(self, value: Any) -> Any:
        if isinstance(value, np.ufunc) and not value.__name__.isidentifier():
            raise _refused(value, "it hides the function that it was made of")
        owner = getattr(value, "__self__", None)
        if isinstance(owner, types.ModuleType):
            owner = None
        module = getattr(value, "__module__", None)
        name = getattr(value, "__qualname__", getattr(value, "__name__", repr(type(value))))
        of_owner = None if owner is None else self.of(owner)
        return ["builtin", str(module), name, of_owner, _compiled_hash(module)]

    def _function(self, value: Any) -> Any:
        code = value.__code__
        if is_installed_file(code.co_filename):
            return self._library_function(value)
        if runs := _RUN_ANY_TEXT & global_names(code) - set(value.__globals__):
            raise _refused(value, f"it calls {sorted(runs)[0]}, which may run any text")
        return [
            "function",
            normalised_source(code) or self._code(code),
            self.of(value.__defaults__),
            self.of(dict(sorted((value.__kwdefaults__ or {}).items()))),
            self._closure(value),
            self._globals(value),
            self._imports(value),
            self.of(dict(sorted(vars(value).items()))),
        ]

    def _library_function(self, value: Any) -> Any:
        code = value.__code__
        name = getattr(code, "co_qualname", value.__qualname__)
        described = ["library", str(value.__globals__.get("__name__")), name]
        if not value.__closure__ and "<locals>" not in name:
            return described
        # One made inside a library's function (a decorator's) is known by what it holds.
        defaults = [self.of(value.__defaults__), self.of(value.__kwdefaults__)]
        return [*described, self._closure(value), *defaults]

    def _closure(self, value: types.FunctionType) -> Any:
        names = value.__code__.co_freevars
        cells = sorted(zip(names, value.__closure__ or (), strict=True))
        return [[name, self._cell(cell, value, name)] for name, cell in cells]

    def _cell(self, cell: Any, function: types.FunctionType, name: str) -> Any:
        try:
            value = cell.cell_contents
        except ValueError:  # from the cell alone: a refusal is a ValueError as well
            return ["empty"]
        return self._used(value, function, [(name, None)])

    def _globals(self, value: types.FunctionType) -> Any:
        names = sorted(global_names(value.__code__) & set(value.__globals__))
        held = [(name, value.__globals__[name]) for name in names]
        return [[name, self._used(part, value, [(name, None)])] for name, part in held]

    def _imports(self, value: types.FunctionType) -> Any:
        """Describe the modules that a function imports in its body."""
        found = []
        given = list(names_of_imports(value.__code__))
        for level, name, names in imported_modules(value.__code__):
            modules = _import(value, level, name, names)
            of_name = [(one, taken) for one, module, taken in given if module == name]
            found += [[level, name, self._used(one, value, of_name)] for one in modules]
        if _reaches_any_module(value.__code__):
            for text in sorted(attribute_names(value.__code__) & set(sys.modules)):
                if not is_installed_module(sys.modules[text]):
                    found.append([-1, text, self.of(sys.modules[text])])
        return found

    def _used(self, value: Any, function: types.FunctionType, names: Names) -> Any:
        """Describe a value that a function refers to; of the user's own module what it uses."""
        code = function.__code__
        own = type(value) is types.ModuleType and not is_installed_module(value)
        if not own or _reaches_any_module(code):
            return self.of(value)
        for name, taken in names:
            part = value if taken is None else vars(value).get(taken)
            if not uses_attributes_alone(code, name, part):
                return self.of(value)  # what is passed on may be read anywhere
        return self._attributes(value, attribute_names(code) | {"__getattr__"}, [])

    def _attributes(self, module: Any, names: set[str], outer: list[int]) -> Any:
        if is_installed_module(module) or compiled_file(module.__name__):
            return self.of(module)
        if id(module) in outer:
            return ["again", outer.index(id(module))]
        used = []
        for name in sorted(names & set(vars(module))):
            part = vars(module)[name]
            inner = type(part) is types.ModuleType
            told = self._attributes(part, names, [*outer, id(module)]) if inner else self.of(part)
            used.append([name, told])
        return ["own module", used]

    def _module(self, value: Any) -> Any:
        """Describe an installed module by its name, another one by its whole content."""
        if is_installed_module(value):
            return ["module", value.__name__]
        if compiled_file(value.__name__):
            return ["module", value.__name__, _compiled_hash(value.__name__)]
        held = {
            name: part
            for name, part in sorted(vars(value).items())
            if name == "__getattr__" or not name.startswith("__")
        }
        return ["own module", self._mapping(held)]

    def _code(self, code: types.CodeType) -> Any:
        names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
        counts = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
        handlers = getattr(code, "co_exceptiontable", b"").hex()
        return [
            "code", code.co_code.hex(), handlers, counts, self.of(code.co_consts), self.of(names),
        ]  # fmt: skip

    # Classes and their instances

    def _class(self, value: type) -> Any:
        if is_installed_class(value):
            module = str(value.__module__)
            return ["library", module, value.__qualname__, _compiled_hash(module)]
        kept = {
            name: part
            for name, part in sorted(vars(value).items())
            if name not in (*_CLASS_DETAILS, *_INSTANCE_STATE)
        }
        made_by = [self.of(type(value)), *(self.of(base) for base in value.__bases__)]
        return ["class", value.__qualname__, made_by, self._mapping(kept)]

    def _instance(self, value: Any) -> Any:
        """Describe an object by its class and its whole content."""
        kind = type(value)
        if not is_installed_class(kind):
            return self._own_instance(value)
        if callable(getattr(value, "get_config", None)) and hasattr(value, "get_weights"):
            return self._layer(value)
        plain = not _overrides(kind, "__reduce_ex__") and not _overrides(kind, "__reduce__")
        if isinstance(value, np.ndarray) or (plain and _base_of_content(kind) is not None):
            return self._own_instance(value)
        return self._reduced(value)

    def _own_instance(self, value: Any) -> Any:
        """Return an object's attributes, slots and content, bypassing its own methods."""
        kind = type(value)
        base = _base_of_content(kind)
        if base is None:
            reason = "its class extends one that is not written in Python, or is such a one"
            raise _refused(value, reason)
        content = _CONTENT[base](value)
        state = dict(sorted(getattr(value, "__dict__", {}).items()))
        return ["object", *(self.of(part) for part in (kind, content, state, _slots(value)))]

    def _layer(self, value: Any) -> Any:
        """Describe a layer of Keras without the numbers that increase during a session."""
        inner = value._flatten_layers() if hasattr(value, "_flatten_layers") else [value]
        for layer in inner:
            functions = [one for one in vars(layer).values() if _is_own(one)]
            if functions or not is_installed_class(type(layer)):
                raise _refused(value, "it holds code of your own, of which its config says little")
        state = [_without_layer_names(value.get_config()), list(value.get_weights())]
        return ["layer", self.of(type(value)), self.of(state)]

    def _reduced(self, value: Any) -> Any:
        """Describe an object of a library by its `__reduce_ex__`, as copying does."""
        if hasattr(value, "cache_parameters"):  # a cached function by what it caches
            names = sorted(set(vars(value)) - set(functools.WRAPPER_ASSIGNMENTS))
            return ["cached", *([name, self.of(vars(value)[name])] for name in names)]
        try:
            made = value.__reduce_ex__(4)
        except Exception as error:
            raise _refused(value, str(error)) from error
        if isinstance(made, str):
            raise _refused(value, "it is known by its name alone")
        parts = [list(part) if isinstance(part, Iterator) else part for part in made]
        return ["object", self.of(type(value)), *(self.of(part) for part in parts)]


def _plain_text(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no decimal digits of an integer with thousands of them
        return hex(value)


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


def _reaches_any_module(code: types.CodeType) -> bool:
    """Return whether code may access attributes or modules by computed names."""
    return bool(_READ_ANY_NAME & global_names(code) or _REACH_MODULES & attribute_names(code))


def _import(
    function: types.FunctionType, level: int, name: str, names: tuple[str, ...]
) -> Iterator[Any]:
    """Yield the modules of an import statement, and the first package, if they can be found."""
    package = str(function.__globals__.get("__package__") or "")
    with contextlib.suppress(Exception):  # a function may import what is not there
        full = importlib.util.resolve_name("." * level + name, package)
        first = full.split(".")[0]
        yield sys.modules.get(first) or importlib.import_module(first)
        if is_installed_module(sys.modules[first]):
            return
        module = importlib.import_module(full)
        for part in names:
            if not hasattr(module, part):
                importlib.import_module(f"{full}.{part}")
        yield module


def _is_own(value: Any) -> bool:
    """Tell whether an attribute of a layer of Keras holds code that its config may not tell."""
    if isinstance(value, functools.partial):
        return any(_is_own(part) for part in (value.func, *value.args, *value.keywords.values()))
    if isinstance(value, (list, tuple, dict)):
        return any(_is_own(part) for part in (value.values() if type(value) is dict else value))
    if not callable(value):
        return False
    named = isinstance(value, (type, types.FunctionType, types.MethodType, *_BUILT_IN))
    # What else can be called, as a compiled function of TensorFlow, may hide another function.
    return not is_installed_code(value) if named else top_package(type(value)) != "keras"


def _compiled_hash(module: Any) -> str | None:
    file = compiled_file(module)
    return None if file is None else file_hash(file)


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


def _refused(value: Any, reason: str) -> UnreadableObject:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return UnreadableObject(
        f"The preprocessing function refers to an object of type {kind}, whose values cannot be "
        f"read ({reason}), so that rows of another function could be taken for its own. Use "
        "numbers, arrays and functions, and make such objects inside the function.",
        received=kind,
        reason=reason,
    )
