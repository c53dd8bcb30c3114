"""The key of a function in other sessions and folders, with modules of the user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from featcache.backbones.function_hash import function_hash

_BY_MODULE = """
import importlib
import sys
import settings
from settings import STRENGTH

def _at(x, strength):
    return x / 255 * (strength if x.shape[1] > 64 else 1)

def by_attribute(x): return _at(x, settings.STRENGTH)

def by_getattr(x): return _at(x, getattr(settings, "STR" + "ENGTH"))

def by_vars(x): return _at(x, vars(settings)["STRENGTH"])

def by_import(x):
    import settings as found
    return _at(x, found.STRENGTH)

def by_late_import(x):
    if x.shape[1] > 64:
        from settings import STRENGTH as found
        return _at(x, found)
    return _at(x, 1)

def by_importlib(x): return _at(x, importlib.import_module("settings").STRENGTH)

def by_modules(x): return _at(x, sys.modules["settings"].STRENGTH)

def _make(module):
    return lambda x: _at(x, module.STRENGTH)

def by_default(x, module=settings): return _at(x, module.STRENGTH)

class Holder:
    def __init__(self, module): self.module = module

    def __call__(self, x): return _at(x, self.module.STRENGTH)

rules = [
    by_attribute, by_getattr, by_vars, by_import, by_late_import, by_importlib, by_modules,
    _make(settings), by_default, Holder(settings),
]
"""


def _hashes_of(folder: Path, module: str, files: dict[str, str]) -> list[str]:
    """Return the keys of the rules of a module, in a session of its own."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    code = (
        "from featcache.backbones.preprocessing import fingerprint as f;"
        f"import sys; sys.path.insert(0, {str(folder)!r}); import {module} as mine;"
        "print(*[f(r) for r in mine.rules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_users_own_modules_are_known_by_what_they_hold_however_reached(tmp_path: Path) -> None:
    one, same, other = (
        _hashes_of(tmp_path / name, "mine", {
            "mine.py": _BY_MODULE, "settings.py": f"STRENGTH = {strength}\n",
        })
        for name, strength in (("a", 1.0), ("b", 1.0), ("c", 0.5))
    )  # fmt: skip
    assert one == same
    assert [a == b for a, b in zip(one, other, strict=True)] == [False] * 10


@pytest.mark.parametrize("module", ["bench", "heads"])
def test_users_own_files_of_the_names_of_our_packages_are_looked_into(
    tmp_path: Path, module: str
) -> None:
    text = "def rule(x):\n    return x / 255 * ({} if x.shape[1] > 64 else 1)\nrules = [rule]\n"
    one, other = (
        _hashes_of(tmp_path / name, module, {f"{module}.py": text.format(strength)})
        for name, strength in (("a", 1.0), ("b", 0.5))
    )
    assert one != other


_MODULE = """
import functools
import numpy as np
import helpers

SCALE = {"b": 2, "a": (1.5, np.array([1.0, 2.0, 3.0]))}
WORDS = {"one", "two", "three"}

def first(x, by=3):
    return second(x) / by if len(WORDS) < 9 else first(x)

def second(x):
    return x / SCALE["a"][1] + helpers.shift(x)

class Scaling:
    def __call__(self, x):
        return first(x)

cached = functools.lru_cache(first)
rules = [first, Scaling(), functools.partial(first, by=5), Scaling().__call__]
rules.append(lambda x: first(x, by=4))
"""
_HELPERS = "def shift(x):\n    return x * 0 + {shift}\n"


def _hashes(folder: Path, *, seed: int = 0, shift: int = 1) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(_MODULE)
    (folder / "helpers.py").write_text(_HELPERS.format(shift=shift))
    code = (
        "import mine; from featcache.backbones.preprocessing import fingerprint as f;"
        "from featcache.backbones.function_hash import function_hash as h;"
        "print([f(r) for r in mine.rules], h(mine.cached))"
    )
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_key_is_the_same_in_another_session_and_folder(tmp_path: Path) -> None:
    here, there = _hashes(tmp_path / "here", seed=1), _hashes(tmp_path / "there", seed=2)
    assert here == there
    assert len(set(here.split())) == 6


def test_what_a_users_own_module_does_is_part_of_the_key(tmp_path: Path) -> None:
    before, after = _hashes(tmp_path).split(), _hashes(tmp_path, shift=2).split()
    assert not set(before) & set(after)


def test_a_file_edited_after_its_import_does_not_speak_for_the_function(tmp_path: Path) -> None:
    file = tmp_path / "edited.py"
    file.write_text("def rule(x):\n    return x / 255\n")
    space: dict[str, Any] = {"__name__": "edited"}
    exec(compile(file.read_text(), str(file), "exec", dont_inherit=True), space)
    before = function_hash(space["rule"])
    file.write_text("def rule(x):\n    return x / 2.55\n")
    edited: dict[str, Any] = {"__name__": "edited"}
    exec(compile(file.read_text(), str(file), "exec", dont_inherit=True), edited)
    assert len({before, function_hash(space["rule"]), function_hash(edited["rule"])}) == 3
