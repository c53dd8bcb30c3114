"""The key of a preprocessing function: by what it does, and by what it consists of."""

from __future__ import annotations

import collections
import functools
import itertools
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from featcache import explain
from featcache.backbones.function_hash import function_hash
from featcache.backbones.preprocessing import RULES, apply, check_rule_at_size, fingerprint
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


# Each makes a function of a strength that shows on large images alone.


def _strengthened(strength: Callable[[], float]) -> Any:
    return lambda x: x / 255 * (strength() if x.shape[1] > 64 else 1)


def _scaled(x: Any, by: Any) -> Any:
    return x / 255 * (by.strength if x.shape[1] > 64 else 1)


class _Composed(list[Any]):
    strength = 1.0

    def __call__(self, x: Any) -> Any:
        return x / 255 * (self.strength if x.shape[1] > 64 else 1)


class _TaggedArray(np.ndarray[Any, Any]):
    strength: float


class _TaggedInt(int):
    strength: float


class _Point(NamedTuple):
    strength: float


class _Knob:
    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __get__(self, owner: Any, kind: Any = None) -> float:
        return self.strength

    def __set__(self, owner: Any, value: float) -> None:
        raise AttributeError


class _Plain:
    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, x: Any) -> Any:
        return x / 255 * (self.strength if x.shape[1] > 64 else 1)


class _WithoutState(_Plain):
    def __getstate__(self) -> Any:
        return {}


class _KnownByName(_Plain):
    def __reduce__(self) -> str:
        return "_UNIT"


class _Slotted:
    __slots__ = ("strength",)

    def __init__(self, strength: float) -> None:
        self.strength = strength


class _LikeALayer(_Plain):
    def get_config(self) -> Any:
        return {}

    def get_weights(self) -> Any:
        return []


class _NamedLikeALayer(_LikeALayer):
    def get_config(self) -> Any:
        return {"name": self.strength}


class _OwnPartial(functools.partial[Any]):
    strength: float

    def __call__(self, x: Any) -> Any:
        return x / 255 * (self.strength if x.shape[1] > 64 else 1)


class _OwnDefault(collections.defaultdict[str, float]):
    strength: float


def _with_strength(value: Any, strength: float) -> Any:
    value.strength = strength
    return value


def _tagged(value: Any, strength: float) -> Any:
    tagged = _with_strength(value, strength)
    return _strengthened(lambda: tagged.strength)


def _masked(strength: float) -> Any:
    mask = np.ma.array(np.zeros(2), mask=[strength == 1, strength != 1])
    return _strengthened(lambda: float(np.ma.getmaskarray(mask)[0]))


def _of_fields(strength: float) -> Any:
    names = ["mean", "std"] if strength == 1 else ["std", "mean"]
    table = np.array([(127.5, 60.0)], dtype=[(name, "f4") for name in names])
    return _strengthened(lambda: float(table["mean"][0]))


def _with_knob(strength: float) -> Any:
    class Turned:
        knob = _Knob(strength)

    turned = Turned()
    return _strengthened(lambda: turned.knob)


def _with_metaclass(strength: float) -> Any:
    class Meta(type):
        def __getattr__(cls, name: str) -> float:
            return strength

    class Made(metaclass=Meta):
        pass

    return _strengthened(lambda: Made.strength)


def _by_default(strength: float) -> Any:
    table: Any = collections.defaultdict(functools.partial(float, strength))
    return _strengthened(lambda: table["any"])


def _by_slice(strength: float) -> Any:
    part = slice(_Plain(strength), None)
    return _strengthened(lambda: part.start.strength)


def _partly(strength: float) -> Any:
    part = _with_strength(functools.partial(abs), strength)
    return _strengthened(lambda: part.strength)


def _wrapping(strength: float) -> Any:
    def weak(x: Any) -> Any:
        return x / 255 * (1.0 if x.shape[1] > 64 else 1)

    def strong(x: Any) -> Any:
        return x / 255 * (0.5 if x.shape[1] > 64 else 1)

    rule = functools.wraps(apply)(weak if strength == 1 else strong)
    del rule.__wrapped__
    return rule


@pytest.mark.parametrize(
    "make",
    [
        lambda k: _with_strength(_Composed([1]), k),
        lambda k: _tagged(np.zeros(3).view(_TaggedArray), k),
        lambda k: _tagged(np.zeros((1, 3)).view(np.matrix), k),
        lambda k: _tagged(_TaggedInt(3), k),
        lambda k: functools.partial(_scaled, by=_Point(k)),
        lambda k: functools.partial(_scaled, by=_Slotted(k)),
        _masked, _of_fields, _with_knob, _with_metaclass, _by_default, _by_slice, _partly,
        _wrapping, _WithoutState, _KnownByName, _LikeALayer, _NamedLikeALayer,
    ],
    ids=[
        "list", "array", "matrix", "int", "tuple", "slots", "mask", "fields", "descriptor",
        "metaclass", "defaultdict", "slice", "partial", "wraps", "getstate", "reduce", "layer",
        "named layer",
    ],
)  # fmt: skip
def test_all_that_an_object_holds_is_part_of_the_key(make: Any) -> None:
    assert _all_different([make(1.0), make(0.5)])
    assert fingerprint(make(1.0)) == fingerprint(make(1.0))


@pytest.mark.parametrize(
    "value",
    [
        _with_strength(_OwnPartial(abs), 1.0), _with_strength(_OwnDefault(float), 1.0),
        threading.local(), (_ for _ in [1]), lambda x: eval(x),
    ],
    ids=["partial", "defaultdict", "local", "generator", "eval"],
)  # fmt: skip
def test_what_cannot_be_described_completely_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        fingerprint(lambda x, value=value: x / 255)


def test_a_layer_with_ones_own_code_is_refused() -> None:
    import keras

    with pytest.raises(InvalidRequest, match="code of your own"):
        fingerprint(keras.layers.Lambda(_by_global))


def test_policies_of_layers_are_known_by_their_names() -> None:
    import keras

    kinds = ("float32", "mixed_bfloat16")
    layers = [keras.layers.Rescaling(1 / 255, dtype=keras.DTypePolicy(kind)) for kind in kinds]
    assert function_hash(layers[0]) != function_hash(layers[1])


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


def _rarely(draw: Callable[[], float]) -> Any:
    return lambda x: x / 255 * (0 if draw() < 1e-9 else 1)


@pytest.mark.parametrize(
    "rule",
    [_rarely(np.random.rand), _rarely(random.random), _rarely(np.random.standard_exponential)],
    ids=["numpy", "random", "exponential"],
)
def test_a_function_that_draws_random_numbers_is_refused_however_rarely_it_shows(rule: Any) -> None:
    with pytest.raises(InvalidRequest, match="draws random numbers"):
        fingerprint(rule)


def test_a_function_that_depends_on_a_large_batch_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="number of images"):
        fingerprint(lambda x: x / 255 - (x.mean() / 255 if len(x) > 99 else 0))


@pytest.mark.parametrize("size", [(224, 224), (100, 331), (5, 7)])
def test_a_function_that_depends_on_the_batch_at_one_size_alone_is_refused(
    size: tuple[int, int], photos: Path
) -> None:
    def at_size(x: Any) -> Any:
        return (x - x.mean()) / 255 if x.shape[1:3] == size else x / 255

    with pytest.raises(InvalidRequest, match="alone than in a batch"):
        explain("mobilenet", photos, weights="random", image_size=size, preprocessing=at_size)
    check_rule_at_size(_autocontrast, size)


def test_the_trials_at_the_size_of_a_request_take_a_fraction_of_a_second() -> None:
    for size in ((224, 224), (1, 1), (2000, 1500)):
        sizes: list[int] = []
        check_rule_at_size(lambda x, sizes=sizes: [sizes.append(x.size), x / 255][1], size)
        assert sum(sizes) <= 6 * max(600_000, 2 * size[0] * size[1])


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
