"""Arrays, properties and cached functions count by their whole content in a function's key."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from featcache.backbones import function_hash as hashes
from featcache.backbones.function_hash import function_hash
from featcache.errors import InvalidRequest


def _key(value: Any) -> str:
    return function_hash(lambda x: (x, value))


def _array_of_objects(number: int) -> Any:
    return np.array([f"number {number}", None], dtype=object)  # at another address each time


def _array_of_blocks(number: int) -> Any:
    # As bytes they are equal.
    return np.zeros(3, [("block", "<f4", (number, 2 // number))])


def _object_with_property(number: int) -> Any:
    class Scale:
        @property
        def strength(self) -> int:
            return number

    return Scale()


def _object_with_cached_property(number: int) -> Any:
    class Scale:
        @functools.cached_property
        def strength(self) -> int:
            return number

    return Scale()


def _cached_function(number: int) -> Any:
    @functools.lru_cache
    def strength() -> int:
        return number

    return strength


@pytest.mark.parametrize(
    "make",
    [
        _array_of_objects, _array_of_blocks, _object_with_property, _object_with_cached_property,
        _cached_function,
    ],
)  # fmt: skip
def test_a_value_that_differs_in_its_content_gives_another_key(make: Callable[[int], Any]) -> None:
    assert _key(make(1)) == _key(make(1)) != _key(make(2))


def test_a_cached_function_has_the_key_of_what_it_caches_and_not_of_its_cache() -> None:
    filled = _cached_function(1)
    filled()
    assert _key(filled) == _key(_cached_function(1))


def test_values_that_are_nested_too_deeply_are_refused() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = (value,)
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        _key(value)


def test_too_many_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_MAX_VALUES", 50)
    _key([(number,) for number in range(20)])
    with pytest.raises(InvalidRequest, match="too many of them"):
        _key([(number,) for number in range(60)])
