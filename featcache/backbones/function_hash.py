"""Description of a user's function as text that is the same in every session.

Its source without names, comments and layout, and whatever it refers to: defaults, closure,
globals, modules of the user's own. Installed libraries are named and not looked into;
addresses never appear. What cannot be described completely is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .function_source import (
    attribute_names,
    global_names,
    imported_modules,
    names_of_imports,
    normalised_source,
    uses_attributes_alone,
)
from .installed import compiled_file, is_installed_file, is_installed_module
from .object_descriptions import describe_class, describe_instance
from .value_descriptions import (
    KINDS,
    PLAIN,
    Describe,
    compiled_hash,
    describe_array,
    describe_mapping,
    plain_text,
    unreadable_error,
)

_MAX_VALUES = 100_000  # of nested values; a preprocessing function has far fewer
_RUN_ANY_TEXT = {"eval", "exec", "globals"}
_READ_ANY_NAME = {"getattr", "vars", "dir", "__import__"}
_REACH_MODULES = {"__dict__", "import_module", "modules", "attrgetter"}


# The name by which a function uses a module, and the imported part of it, if not all of it.
Names = list[tuple[str, str | None]]
Known = Callable[[Any, Describe], Any]


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
    """Descriptions of values: simple ones as lists of text, others as a digest of their parts."""

    def __init__(self, known: Known) -> None:
        self._known = known
        # Objects are kept alive, since the id of a freed one could be used again.
        self._done: dict[int, tuple[Any, str]] = {}
        self._open: list[int] = []  # ids of objects whose parts are being described
        self._kinds: dict[type, Callable[[Any], Any]] = {
            types.ModuleType: self._module,
            types.FunctionType: self._function,
            types.CodeType: self._code,
        }

    def of(self, value: Any) -> Any:
        """Return the description of a value."""
        if type(value) in PLAIN:
            return [type(value).__name__, plain_text(value)]
        if id(value) in self._open:
            return ["again", self._open.index(id(value))]  # ends cycles
        if id(value) not in self._done:
            self._done[id(value)] = (value, self._digest(value))
        return self._done[id(value)][1]

    def _digest(self, value: Any) -> str:
        if len(self._done) > _MAX_VALUES:
            raise unreadable_error(value, "there are too many of them")
        self._open.append(id(value))
        try:
            text = json.dumps(self._of_object(value), sort_keys=True)
        except RecursionError as error:
            raise unreadable_error(value, "they are nested too deeply") from error
        finally:
            self._open.pop()
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def _of_object(self, value: Any) -> Any:
        """Describe an object by its exact type: a subclass may add content and behaviour."""
        found = self._known(value, self.of)
        if found is not None:
            return found
        if type(value) in self._kinds:
            return self._kinds[type(value)](value)
        if type(value) in KINDS:
            return KINDS[type(value)](value, self.of)
        if isinstance(value, type):
            return describe_class(value, self.of)
        if isinstance(value, np.generic) and type(value) is value.dtype.type:
            return describe_array(np.asarray(value), self.of)
        if isinstance(value, types.ModuleType) and is_installed_module(value):
            return self._module(value)
        return describe_instance(value, self.of)

    def _function(self, value: Any) -> Any:
        code = value.__code__
        if is_installed_file(code.co_filename):
            return self._library_function(value)
        if runs := _RUN_ANY_TEXT & global_names(code) - set(value.__globals__):
            raise unreadable_error(value, f"it calls {sorted(runs)[0]}, which may run any text")
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
        # One created by a function of a library, such as a decorator, is described by its contents.
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
        """Describe a value that a function refers to; of a user's module only the used part."""
        code = function.__code__
        own = type(value) is types.ModuleType and not is_installed_module(value)
        if not own or _reaches_any_module(code):
            return self.of(value)
        for name, taken in names:
            part = value if taken is None else vars(value).get(taken)
            if not uses_attributes_alone(code, name, part):
                return self.of(value)  # a module that is passed on may be read anywhere
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
        """Describe an installed module by its name, and others by their whole content."""
        if is_installed_module(value):
            return ["module", value.__name__]
        if compiled_file(value.__name__):
            return ["module", value.__name__, compiled_hash(value.__name__)]
        held = {
            name: part
            for name, part in sorted(vars(value).items())
            if name == "__getattr__" or not name.startswith("__")
        }
        return ["own module", describe_mapping(held, self.of)]

    def _code(self, code: types.CodeType) -> Any:
        names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
        counts = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
        handlers = getattr(code, "co_exceptiontable", b"").hex()
        return [
            "code", code.co_code.hex(), handlers, counts, self.of(code.co_consts), self.of(names),
        ]  # fmt: skip


def _reaches_any_module(code: types.CodeType) -> bool:
    """Return whether code may access attributes or modules by computed names."""
    return bool(_READ_ANY_NAME & global_names(code) or _REACH_MODULES & attribute_names(code))


def _import(
    function: types.FunctionType, level: int, name: str, names: tuple[str, ...]
) -> Iterator[Any]:
    """Yield the modules of an import statement, and the first package, if they can be found."""
    package = str(function.__globals__.get("__package__") or "")
    with contextlib.suppress(Exception):  # a function may import a missing module
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
