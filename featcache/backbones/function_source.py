"""Normalised source code of a function, and the names that it uses."""

from __future__ import annotations

import ast
import dis
import itertools
import linecache
import types
from collections.abc import Iterator
from typing import Any

_NO_OPERATIONS = ("CACHE", "EXTENDED_ARG", "NOP")
_ATTRIBUTE_LOADS = ("LOAD_ATTR", "LOAD_METHOD")
_NO_READS = (*_ATTRIBUTE_LOADS, "LOAD_CLOSURE", "LOAD_CONST", "LOAD_SUPER_ATTR")
_GLOBAL_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")


def normalised_source(code: types.CodeType) -> str | None:
    """Return the normalised source of a function; None if the source is not that of its code."""
    linecache.checkcache(code.co_filename)
    text = "".join(linecache.getlines(code.co_filename))
    try:
        tree = ast.parse(text)
        # The file may have been edited since it was imported.
        if not _contains(compile(text, code.co_filename, "exec", dont_inherit=True), code):
            return None
        found = [node for node in ast.walk(tree) if _starts_at(node) == code.co_firstlineno]
        # Several functions that start on one line are ambiguous.
        return _normalised(found[0]) if len(found) == 1 else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # no valid source, or an integer of thousands of digits


def _starts_at(node: ast.AST) -> int | None:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return min(part.lineno for part in [node, *node.decorator_list])
    return node.lineno if isinstance(node, ast.Lambda) else None


def _contains(outer: types.CodeType, code: types.CodeType) -> bool:
    inner = [const for const in outer.co_consts if isinstance(const, types.CodeType)]
    return any(const == code or _contains(const, code) for const in inner)


def _normalised(node: ast.AST) -> str:
    """Return the source of a function without name, decorators, annotations and docstring."""
    for part in ast.walk(node):
        if isinstance(part, ast.arg):
            part.annotation = None
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            part.returns = None
            if ast.get_docstring(part, clean=False) is not None:
                part.body = part.body[1:] or [ast.Pass()]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        node.name, node.decorator_list = "function", []  # what decorators return is hashed instead
    return ast.unparse(node)


def nested_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object and those of the functions and classes within it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from nested_codes(const)


def instructions(code: types.CodeType) -> Iterator[dis.Instruction]:
    """Yield the instructions of code, with the constants of import statements only."""
    # `dis` formats each constant, which fails for an integer of thousands of digits.
    kept = (const if _is_short(const) else None for const in code.co_consts)
    return dis.get_instructions(code.replace(co_consts=tuple(kept)))


def _is_short(const: Any) -> bool:
    if isinstance(const, tuple):
        return all(isinstance(part, str) for part in const)
    return isinstance(const, str) or (isinstance(const, int) and abs(const) < 1000)


def global_names(code: types.CodeType) -> set[str]:
    """Return the global names that code loads."""
    steps = (step for part in nested_codes(code) for step in instructions(part))
    return {str(step.argval) for step in steps if step.opname in _GLOBAL_LOADS}


def uses_attributes_alone(code: types.CodeType, name: str, module: Any) -> bool:
    """Return whether code uses a name only to read attributes of it; True if it is not a module."""
    if not isinstance(module, types.ModuleType):
        return True
    return all(_ends_at_attribute(chain, module) for chain in _uses(code, name))


def _ends_at_attribute(chain: list[str], module: Any) -> bool:
    value = module
    for name in chain:
        if not isinstance(value, types.ModuleType):
            return True
        if name not in vars(value) and name.startswith("__"):
            return False  # such as `module.__getattribute__`, which may read any attribute
        value = vars(value).get(name)
    return not isinstance(value, types.ModuleType)


def _uses(code: types.CodeType, name: str) -> Iterator[list[str]]:
    """Yield the attributes that are read directly after each load of a name."""
    for part in nested_codes(code):
        inner = {*part.co_cellvars, *part.co_freevars}
        steps = [step for step in instructions(part) if step.opname not in _NO_OPERATIONS]
        for place, step in enumerate(steps):
            loaded = step.argval if isinstance(step.argval, tuple) else (step.argval,)
            if name not in loaded or not step.opname.startswith("LOAD_"):
                continue
            is_closure = step.opname.startswith("LOAD_FAST") and name in inner
            if is_closure or step.opname in _NO_READS:
                continue  # passed to a nested function, which is checked as well
            after = itertools.takewhile(
                lambda step: step.opname in _ATTRIBUTE_LOADS, steps[place + 1 :]
            )
            yield (
                []
                if loaded[-1] != name or loaded.count(name) > 1
                else [str(step.argval) for step in after]
            )


def attribute_names(code: types.CodeType) -> set[str]:
    """Return all names and strings in code, since `getattr` may use a string as a name."""
    parts = list(nested_codes(code))
    names = {name for part in parts for name in part.co_names}
    return names | {text for part in parts for text in part.co_consts if isinstance(text, str)}


def imported_modules(code: types.CodeType) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Yield the level, the module and the names of each import statement in code."""
    for part in nested_codes(code):
        before: list[Any] = [0, None]
        for step in instructions(part):
            if step.opname == "IMPORT_NAME":
                level, names = before
                yield int(level or 0), str(step.argval), tuple(names or ())
            before = [before[1], step.argval]


def names_of_imports(code: types.CodeType) -> Iterator[tuple[str, str, str | None]]:
    """Yield each name that an import statement binds, its module, and the name imported from it."""
    for part in nested_codes(code):
        module, imported = "", None
        for step in instructions(part):
            if step.opname == "IMPORT_NAME":
                module, imported = str(step.argval), None
            elif step.opname == "IMPORT_FROM":
                imported = str(step.argval)
            elif module and step.opname.startswith("STORE_"):
                yield str(step.argval), module, imported
                module = module if imported else ""
            elif step.opname == "POP_TOP" and imported is None:
                module = ""
