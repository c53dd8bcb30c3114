"""All that an object holds is part of the key of a function that refers to it, or is refused."""

from __future__ import annotations

import collections
import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from preprocessing_rules import all_different, by_global

from featcache.backbones.function_hash import function_hash
from featcache.backbones.preprocessing import apply, fingerprint
from featcache.errors import InvalidRequest

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
    assert all_different([make(1.0), make(0.5)])
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
        fingerprint(keras.layers.Lambda(by_global))


def test_policies_of_layers_are_known_by_their_names() -> None:
    import keras

    kinds = ("float32", "mixed_bfloat16")
    layers = [keras.layers.Rescaling(1 / 255, dtype=keras.DTypePolicy(kind)) for kind in kinds]
    assert function_hash(layers[0]) != function_hash(layers[1])
