"""What a function of the user's consists of, as text that is the same in every session.

Its source without names, comments and layout, and whatever it refers to: defaults, closure,
globals. Installed libraries are named and not looked into; addresses never appear.
"""

from __future__ import annotations

import ast
import dis
import functools
import hashlib
import importlib.machinery
import inspect
import json
import linecache
import os
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import InvalidRequest

_MOST_VALUES = 100_000  # nested values looked at; more is no preprocessing function
_PLAIN = (type(None), bool, int, str, float, complex, bytes, range, slice, type(...))
_BUILT_IN = (
    np.ufunc,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
)
_MADE = (property, classmethod, staticmethod)
_ENDINGS = tuple(importlib.machinery.EXTENSION_SUFFIXES)
_PACKAGES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
_OWN = ("featcache", "heads", "bench")  # named like other libraries, wherever they lie


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
        which differs between versions of Python.

    Raises
    ------
    InvalidRequest
        If it refers to an object whose values cannot be read, such as an open file.
    """
    return str(_Description(known).of(function))


def is_library_class(kind: type) -> bool:
    """Tell whether a class belongs to Python, to an installed package or to this one."""
    return _is_installed(kind.__module__, _file_of(kind))


class _Description:
    """Describes values: plain ones by lists of text, all others by a digest of their parts."""

    def __init__(self, known: Known) -> None:
        self._known = known
        # Objects are kept: a freed one's address could be given to another.
        self._done: dict[int, tuple[Any, str]] = {}
        self._open: list[int] = []  # whose parts are being described

    def of(self, value: Any) -> Any:
        """Return the description of a value."""
        if type(value) in _PLAIN:
            return [type(value).__name__, repr(value)]
        if id(value) in self._open:
            return ["again", self._open.index(id(value))]  # so cycles end
        if id(value) not in self._done:
            self._done[id(value)] = (value, self._digest(value))
        return self._done[id(value)][1]

    def _digest(self, value: Any) -> str:
        if len(self._done) > _MOST_VALUES:
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
        found = self._known(value, self.of)
        return self._of_unknown(value) if found is None else found

    def _of_unknown(self, value: Any) -> Any:
        described: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
            ((np.ndarray, np.generic), self._array),
            ((list, tuple), self._sequence),
            ((set, frozenset), self._set),
            ((dict, types.MappingProxyType), self._mapping),
            ((types.ModuleType,), self._module),
            ((functools.partial,), self._partial),
            ((types.MethodType,), self._method),
            ((types.FunctionType,), self._function),
            ((types.CodeType,), self._code),
            (_MADE, self._descriptor),
        )
        for kinds, describe in described:
            if isinstance(value, kinds):
                return describe(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, _BUILT_IN):
            return self._builtin(value)
        return self._instance(value)

    def _array(self, value: Any) -> Any:
        array = np.asarray(value)
        if array.dtype.hasobject:
            return ["array", str(array.dtype), list(array.shape), self.of(array.tolist())]
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return ["array", array.dtype.str, list(array.shape), digest]

    def _sequence(self, value: Any) -> Any:
        return [type(value).__name__, *(self.of(item) for item in value)]

    def _set(self, value: Any) -> Any:
        return ["set", *sorted(json.dumps(self.of(item)) for item in value)]

    def _mapping(self, value: Any) -> Any:
        return ["dict", *([self.of(k), self.of(v)] for k, v in value.items())]

    def _module(self, value: Any) -> Any:
        return ["module", value.__name__]

    def _partial(self, value: Any) -> Any:
        named = dict(sorted(value.keywords.items()))
        return ["partial", self.of(value.func), self.of(value.args), self.of(named)]

    def _method(self, value: Any) -> Any:
        return ["method", self.of(value.__func__), self.of(value.__self__)]

    def _descriptor(self, value: Any) -> Any:
        parts = [value.fget, value.fset] if isinstance(value, property) else [value.__func__]
        return [type(value).__name__, *(self.of(part) for part in parts)]

    def _builtin(self, value: Any) -> Any:
        if isinstance(value, np.ufunc) and not value.__name__.isidentifier():
            raise _refused(value, "it hides the function that it was made of")
        owner = getattr(value, "__self__", None)
        of_owner = None if owner is None or isinstance(owner, types.ModuleType) else self.of(owner)
        name = getattr(value, "__qualname__", getattr(value, "__name__", repr(type(value))))
        return ["builtin", str(getattr(value, "__module__", None)), name, of_owner]

    def _function(self, value: Any) -> Any:
        if _is_installed(value.__module__, value.__code__.co_filename):
            described: list[Any] = ["library", str(value.__module__), value.__qualname__]
            # One made inside a library's function (a decorator's) is known by what it holds.
            return [*described, self._closure(value)] if value.__closure__ else described
        return [
            "function",
            _source(value.__code__) or self._code(value.__code__),
            self.of(value.__defaults__),
            self.of(dict(sorted((value.__kwdefaults__ or {}).items()))),
            self._closure(value),
            self._globals(value),
            self.of(dict(sorted(vars(value).items()))),
        ]

    def _closure(self, value: types.FunctionType) -> Any:
        names = value.__code__.co_freevars
        return [
            [name, self._cell(cell)]
            for name, cell in sorted(zip(names, value.__closure__ or (), strict=True))
        ]

    def _cell(self, cell: Any) -> Any:
        try:
            return self.of(cell.cell_contents)
        except ValueError:
            return ["empty"]

    def _globals(self, value: types.FunctionType) -> Any:
        found = []
        for name in sorted(_global_names(value.__code__)):
            if name in value.__globals__:
                used = value.__globals__[name]
                parts = self._attributes(used, _all_names(value.__code__), 0)
                found.append([name, self.of(used), parts])
        return found

    def _attributes(self, module: Any, names: set[str], depth: int) -> Any:
        """Describe what a function uses of a module that is not installed, but the user's own."""
        if not isinstance(module, types.ModuleType) or depth > 8:
            return []
        if _is_installed(module.__name__, getattr(module, "__file__", None) or ""):
            return []
        used = [(name, vars(module)[name]) for name in sorted(names & set(vars(module)))]
        return [[name, self.of(v), self._attributes(v, names, depth + 1)] for name, v in used]

    def _code(self, code: types.CodeType) -> Any:
        names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
        return ["code", code.co_code.hex(), self.of(code.co_consts), self.of(names)]

    def _class(self, value: type) -> Any:
        name = [str(value.__module__), value.__qualname__]
        if _is_installed(value.__module__, _file_of(value)):
            return ["library", *name]
        kept = {
            name: part
            for name, part in sorted(vars(value).items())
            # Slots' values are told by the instances.
            if isinstance(part, _MADE) or not inspect.isdatadescriptor(part)
            if callable(part) or isinstance(part, _MADE) or not name.startswith(("__", "_abc_"))
        }
        bases = [self.of(base) for base in value.__bases__]
        return ["class", value.__qualname__, bases, self._mapping(kept)]

    def _instance(self, value: Any) -> Any:
        """Describe an object by its class and state, in the way that copying it does."""
        config = getattr(value, "get_config", None)
        if callable(config) and callable(getattr(value, "get_weights", None)):  # a layer of Keras
            state: Any = [_without_names(config()), list(value.get_weights())]
            return ["layer", self.of(type(value)), self.of(state)]
        try:
            made = value.__reduce_ex__(4)
        except Exception as error:
            raise _refused(value, str(error)) from error
        if isinstance(made, str):  # known by its name; a cached function by what it caches
            inner = getattr(value, "__wrapped__", None)
            return ["object", self.of(type(value)), made, self.of(inner)]
        parts = [list(part) if isinstance(part, Iterator) else part for part in made]
        return ["object", self.of(type(value)), *(self.of(part) for part in parts)]


def _source(code: types.CodeType) -> str | None:
    """Return the source of a function in one layout; None if it is not that of this code."""
    linecache.checkcache(code.co_filename)
    text = "".join(linecache.getlines(code.co_filename))
    try:
        tree = ast.parse(text)
        # A file that was edited since it was imported is not what runs.
        if not _holds(compile(text, code.co_filename, "exec", dont_inherit=True), code):
            return None
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # not Python's own syntax
        return None
    found = [node for node in ast.walk(tree) if _starts_at(node) == code.co_firstlineno]
    return _normalised(found[0]) if len(found) == 1 else None  # several on one line: which?


def _starts_at(node: ast.AST) -> int | None:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return min(part.lineno for part in [node, *node.decorator_list])
    return node.lineno if isinstance(node, ast.Lambda) else None


def _holds(outer: types.CodeType, code: types.CodeType) -> bool:
    inner = [const for const in outer.co_consts if isinstance(const, types.CodeType)]
    return any(const == code or _holds(const, code) for const in inner)


def _normalised(node: ast.AST) -> str:
    """Return the text of a function without name, decorators, annotations and docstring."""
    for part in ast.walk(node):
        if isinstance(part, ast.arg):
            part.annotation = None
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            part.returns = None
            if ast.get_docstring(part, clean=False) is not None:
                part.body = part.body[1:] or [ast.Pass()]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        node.name, node.decorator_list = "function", []  # they are told by what they made of it
    return ast.unparse(node)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _codes(const)


def _global_names(code: types.CodeType) -> set[str]:
    instructions = (step for part in _codes(code) for step in dis.get_instructions(part))
    return {
        str(step.argval) for step in instructions if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }


def _all_names(code: types.CodeType) -> set[str]:
    return {name for part in _codes(code) for name in part.co_names}


def _is_installed(module: str | None, file: str) -> bool:
    """Tell whether code belongs to Python, to an installed package or to this one."""
    top = str(module).split(".")[0]
    if top in _OWN or file.startswith("<frozen") or file.endswith(_ENDINGS):
        return True
    if not file:
        return top in sys.stdlib_module_names
    return file.startswith(_library_folders()) or any(part in file for part in _PACKAGES)


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({os.path.join(paths[kind], "") for kind in kinds})


def _file_of(value: type) -> str:
    try:
        return inspect.getfile(value)
    except (TypeError, OSError):  # built in, or made at a prompt
        return ""


def _without_names(config: Any) -> Any:
    """Drop the names of layers, which count up in a session."""
    if isinstance(config, dict):
        return {k: _without_names(v) for k, v in sorted(config.items()) if k != "name"}
    return [_without_names(v) for v in config] if isinstance(config, (list, tuple)) else config


def _refused(value: Any, reason: str) -> InvalidRequest:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return InvalidRequest(
        f"The preprocessing function refers to an object of type {kind}, whose values cannot be "
        f"read ({reason}), so that rows of another function could be taken for its own. Use "
        "numbers, arrays and functions, and make such objects inside the function.",
        received=kind,
        reason=reason,
    )
