"""A user's own module counts by the attributes that are read, and whole where it is passed on."""

from __future__ import annotations

import builtins
import importlib
import operator
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featcache.backbones.function_hash import function_hash

_get = getattr
_SCALE_OF = operator.attrgetter("SCALE")


def _helper(x: Any, module: Any) -> Any:
    return x / module.SCALE


def _functions_of(settings: Any) -> dict[str, Callable[[Any], Any]]:
    name = "".join(["SC", "ALE"])
    return {
        "passed on": lambda x: _helper(x, settings),
        "attrgetter": lambda x: x / _SCALE_OF(settings),
        "getattr under another name": lambda x: x / _get(settings, name),
        "builtins.getattr": lambda x: x / builtins.getattr(settings, name),
        "__getattribute__": lambda x: x / settings.__getattribute__(name),
        "in a tuple": lambda x: [_helper(x, part) for part in (settings,)],
    }


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    name = f"own_settings_{random.randrange(10**9)}"
    (tmp_path / f"{name}.py").write_text("SCALE = 1.0\nOTHER = 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module(name)


@pytest.mark.parametrize("how", list(_functions_of(sys)))
def test_a_module_that_is_used_other_than_by_its_attributes_counts_whole(
    settings: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    function = _functions_of(settings)[how]
    before = function_hash(function)
    monkeypatch.setattr(settings, "SCALE", 2.0)
    assert before != function_hash(function)


def test_a_module_of_which_attributes_alone_are_read_counts_by_these(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function(x: Any) -> Any:
        return sum(settings.SCALE * part for part in x)

    before = function_hash(function)
    monkeypatch.setattr(settings, "OTHER", 2.0)
    assert before == function_hash(function)
    monkeypatch.setattr(settings, "SCALE", 2.0)
    assert before != function_hash(function)


@pytest.mark.parametrize(
    ("line", "use"),
    [
        ("import {0} as found", "_helper(x, found)"),
        ("import {0} as found", "x / found.SCALE"),
        ("from {0} import SCALE as found", "x / found"),
    ],
)
def test_a_module_that_a_function_imports_counts_as_it_is_used(
    settings: Any, monkeypatch: pytest.MonkeyPatch, line: str, use: str
) -> None:
    space: dict[str, Any] = {"_helper": _helper}
    exec(f"def function(x):\n    {line.format(settings.__name__)}\n    return {use}\n", space)
    keys = [function_hash(space["function"])]
    for name in ("OTHER", "SCALE"):
        monkeypatch.setattr(settings, name, 2.0)
        keys.append(function_hash(space["function"]))
    assert keys[1] != keys[2]
    assert (keys[0] == keys[1]) == ("_helper" not in use)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a package whose two modules refer to each other."""
    name = f"own_package_{random.randrange(10**9)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "first.py").write_text(f"import {name}.second as second\nSCALE = 1.0\n")
    (tmp_path / name / "second.py").write_text(f"import {name}.first as first\nSCALE = 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_module_that_is_reached_through_the_list_of_all_counts(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    space: dict[str, Any] = {"sys": sys}
    # The name is an attribute as well, so that the function may read any part of the module.
    body = f"return x / vars(sys.modules['{settings.__name__}'])['SCALE'] + x.{settings.__name__}"
    exec(f"def function(x):\n    {body}\n", space)
    before = function_hash(space["function"])
    assert function_hash(space["function"]) == before
    monkeypatch.setattr(settings, "SCALE", 2.0)
    assert function_hash(space["function"]) != before


def test_modules_that_refer_to_each_other_count_by_what_is_read(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = importlib.import_module(f"{package}.first")
    second = importlib.import_module(f"{package}.second")

    def function(x: Any) -> Any:
        return x / first.second.first.SCALE

    keys = [function_hash(function), function_hash(function)]
    monkeypatch.setattr(second, "SCALE", 2.0)
    keys.append(function_hash(function))
    monkeypatch.setattr(first, "SCALE", 2.0)
    keys.append(function_hash(function))
    assert keys[0] == keys[1]
    assert len({keys[0], keys[2], keys[3]}) == 3


def test_a_module_of_a_package_that_is_imported_when_the_function_runs_counts(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space: dict[str, Any] = {}
    exec(
        f"def function(x):\n    from {package} import second\n    return x / second.SCALE\n", space
    )
    assert f"{package}.second" not in sys.modules
    before = function_hash(space["function"])
    monkeypatch.setattr(sys.modules[f"{package}.second"], "SCALE", 2.0)
    assert function_hash(space["function"]) != before


def test_an_installed_module_inside_a_users_own_counts_by_its_name(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function(x: Any) -> Any:
        return settings.library.sqrt(x)

    keys = []
    for library in ("math", "cmath", "math"):
        monkeypatch.setattr(settings, "library", importlib.import_module(library), raising=False)
        keys.append(function_hash(function))
    assert keys[0] == keys[2] != keys[1]
