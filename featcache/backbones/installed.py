"""Distinction of installed code (Python, packages, featcache) from the user's, by its file.

The name of a module is not sufficient: a file of the user may be called ``bench.py``, and
`functools.wraps` copies the name of another module.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.machinery
import os
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).absolute().parents[2]
_OWN = tuple(os.path.join(_ROOT, name, "") for name in ("featcache", "heads", "bench"))
_PACKAGES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
_COMPILED = tuple(importlib.machinery.EXTENSION_SUFFIXES)
_HEAP_TYPE, _IMMUTABLE_TYPE = 1 << 9, 1 << 8


def is_installed_file(file: str) -> bool:
    """Return whether a file of code belongs to Python, an installed package or this one."""
    if file.startswith(("<frozen", *_OWN, *_library_folders())):
        return True
    return any(part in file for part in _PACKAGES)


def is_installed_module(module: Any) -> bool:
    """Return whether a module belongs to Python, an installed package or this one."""
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return is_installed_file(file)
    name = str(module.__name__)
    if sys.modules.get(name) is not module:
        return False  # created by code, not imported
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    if name in sys.builtin_module_names or origin in ("built-in", "frozen"):
        return True
    folders = list(getattr(module, "__path__", ()))
    return bool(folders) and all(is_installed_file(os.path.join(f, "")) for f in folders)


def is_installed_class(value: type) -> bool:
    """Return whether a class is defined in an installed module, or has only installed methods."""
    if not is_python_class(value):
        return True
    module = sys.modules.get(str(value.__module__))
    if module is None or not is_installed_module(module):
        return False
    found: Any = module
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is value:
        return True
    codes = [part.__code__ for part in vars(value).values() if type(part) is types.FunctionType]
    return bool(codes) and all(is_installed_file(code.co_filename) for code in codes)


def is_installed_code(value: Any) -> bool:
    """Return whether a class or function, and all functions that it wraps, are installed code.

    True for functions that are not written in Python.
    """
    return _is_installed_code(value, set())


def _is_installed_code(value: Any, seen: set[int]) -> bool:
    if id(value) in seen:
        return True  # a function that refers to itself
    seen.add(id(value))
    if isinstance(value, type):
        return is_installed_class(value)
    if isinstance(value, types.MethodType):
        return all(_is_installed_code(one, seen) for one in (value.__func__, value.__self__))
    if not isinstance(value, types.FunctionType):
        return not callable(value) or is_installed_class(type(value))
    held = _cell_contents(value)
    installed = is_installed_file(value.__code__.co_filename)
    return installed and all(_is_installed_code(one, seen) for one in held)


def _cell_contents(function: types.FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # an empty cell
            found.append(cell.cell_contents)
    return found


def top_package(value: Any) -> str:
    """Return the top-level package of a class or function; empty for code of the user."""
    if not is_installed_code(value):
        return ""
    return str(getattr(value, "__module__", None) or "builtins").split(".")[0]


def is_python_class(value: type) -> bool:
    """Return whether a class is mutable, as one from a class statement is."""
    return bool(value.__flags__ & _HEAP_TYPE) and not value.__flags__ & _IMMUTABLE_TYPE


def compiled_file(name: Any) -> Path | None:
    """Return the file of a compiled module that is not installed; None for other modules."""
    module = sys.modules.get(str(name))
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or is_installed_file(file) or not file.endswith(_COMPILED):
        return None
    return Path(file)


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({os.path.join(paths[kind], "") for kind in kinds})
