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
