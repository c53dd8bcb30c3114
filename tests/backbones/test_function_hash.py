"""The key of a preprocessing function: by what it does, and by what it consists of."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache import explain
from featcache.backbones.function_hash import function_hash
from featcache.backbones.preprocessing import RULES, fingerprint
from featcache.errors import InvalidRequest

_DIVISOR = 255.0
_LOCK = threading.Lock()
PINNED = {
    "none": "1e3b1113f59dde97",
    "unit": "bdd51cb3223bf648",
    "tf": "c018d628a86bee40",
    "torch": "b98ce519e312cd25",
    "caffe": "d91b2a4fd452072e",
}


def _unit(x: Any) -> Any:
    return x / 255


def _autocontrast(x: Any) -> Any:
    low = x.min(axis=(1, 2, 3), keepdims=True)
    high = x.max(axis=(1, 2, 3), keepdims=True)
    return (x - low) / np.maximum(high - low, 1)


def _by_global(x: Any) -> Any:
    return x / _DIVISOR


def _divided_by(value: Any) -> Any:
    return lambda x: x / value


class _Scaling:
    def __init__(self, table: Any) -> None:
        self.table = table

    def __call__(self, x: Any) -> Any:
        return x / self.table

    def halved(self, x: Any) -> Any:
        return x / 2


def _all_different(functions: list[Any]) -> bool:
    return len({fingerprint(f) for f in functions}) == len(functions)


def test_stretching_each_image_is_not_dividing_by_255() -> None:
    assert _all_different([_autocontrast, _unit])


@pytest.mark.parametrize(
    "functions",
    [
        # Each pair does the same to every image that is looked at.
        [lambda x: x / 255, lambda x: x / 255 if x.shape[1] != 99 else x],
        [_divided_by(255), _divided_by(255.0)],
        [_divided_by(np.full(3, 255.0)), _divided_by(np.array([255, 255, 255 + 1e-9]))],
        [functools.partial(np.add, 1), functools.partial(np.add, 1.0)],
        [_Scaling(1), _Scaling(1.0)],
        [_Scaling(2), _Scaling(2).halved],
    ],
    ids=["branch", "closure", "array", "partial", "instance", "method"],
)
def test_functions_that_only_differ_unseen_have_different_keys(functions: list[Any]) -> None:
    assert _all_different(functions)


def test_a_global_that_changes_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(_by_global)
    monkeypatch.setattr(sys.modules[__name__], "_DIVISOR", 255.0 + 1e-9)
    assert fingerprint(_by_global) != before


def test_defaults_and_attributes_are_part_of_it() -> None:
    def scaled(by: float, unused: int = 0) -> Any:
        def rule(x: Any, by: float = by) -> Any:
            return x / by

        rule.unused = unused  # type: ignore[attr-defined]
        return rule

    assert _all_different([scaled(255), scaled(255 + 1e-9), scaled(255, 1)])


def test_name_comments_and_annotations_are_not() -> None:
    def one(x: np.ndarray[Any, Any]) -> Any:
        """Divide."""
        return x / 255  # by the largest value

    def other(x):  # type: ignore[no-untyped-def]
        return x / 255

    assert fingerprint(one) == fingerprint(other)


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


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (lambda x: x - x.mean(), "alone than in a batch"),
        (lambda x: x / np.float32(len(x)), "alone than in a batch"),
        (lambda x: x - x[:1], "alone than in a batch"),
        (lambda x: x + np.random.default_rng().normal(size=x.shape), "when called again"),
        (lambda x, c=itertools.count(): x + next(c), "when called again"),  # noqa: B008
        (lambda x, c=itertools.count(): x + 0 * next(c), "changes values"),  # noqa: B008
        (lambda x, lock=_LOCK: x, "cannot be read"),
        (lambda x: x[..., :2] @ np.ones((3, 3)), "failed on a batch"),
        (np.frompyfunc(lambda v: v, 1, 1), "hides the function"),
    ],
    ids=["mean", "count", "first", "noise", "counter", "unseen", "lock", "shape", "ufunc"],
)
def test_what_makes_no_key_is_refused_with_its_reason(rule: Any, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        fingerprint(rule)


def test_a_random_flip_is_refused_always() -> None:
    def flips(x: Any) -> Any:
        turned = np.random.default_rng().random(len(x)) < 0.5
        return np.where(turned[:, None, None, None], x[:, :, ::-1], x)

    for _ in range(20):
        with pytest.raises(InvalidRequest):
            fingerprint(flips)


def test_the_fingerprints_of_named_rules_are_pinned() -> None:
    """They are in the keys of all stores."""
    assert {rule: fingerprint(rule) for rule in RULES} == PINNED


def test_functions_of_libraries_are_known_by_name() -> None:
    import keras

    first, second = (
        getattr(keras.applications, name).preprocess_input for name in ("resnet50", "resnet_v2")
    )
    assert _all_different([first, second])
    assert fingerprint(first) == fingerprint(first)
    assert _all_different([keras.layers.Rescaling(1 / 255), keras.layers.Rescaling(1.0 / 254)])
    one, two = keras.layers.Rescaling(1 / 255), keras.layers.Rescaling(1 / 255)
    assert fingerprint(one) == fingerprint(two)


def test_two_functions_go_to_two_stores(tmp_path: Path, photos: Path) -> None:
    folders = {
        explain(
            "mobilenet", photos, weights="random", image_size=32, cache_dir=tmp_path,
            preprocessing=rule,
        ).folder
        for rule in (_autocontrast, _unit, "unit")
    }  # fmt: skip
    assert len(folders) == 3
