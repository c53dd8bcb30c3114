"""Values that a function refers to count, or are refused, wherever it keeps them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from featcache.backbones.function_hash import function_hash
from featcache.errors import InvalidRequest


def _key_or_refusal(function: Any) -> str | None:
    """Return the key of a function, or None if it is refused."""
    try:
        return function_hash(function)
    except InvalidRequest:
        return None


def _share_a_key(one: Any, other: Any) -> bool:
    keys = {_key_or_refusal(function) for function in (one, other)}
    return len(keys) == 1 and None not in keys


def _holding(value: Any) -> Callable[[Any], Any]:
    return lambda x: (x, value)


@pytest.mark.parametrize(
    "value",
    [re.compile("a"), np.random.default_rng(1), memoryview(b"a")],
    ids=["pattern", "generator", "memory view"],
)
def test_what_is_refused_as_a_value_is_refused_in_a_closure(value: Any) -> None:
    for function in (value, _holding(value)):
        with pytest.raises(InvalidRequest, match="cannot be read"):
            function_hash(function)


@pytest.mark.parametrize(
    "pair",
    [
        (re.compile("a"), re.compile("b")),
        (np.random.default_rng(1), np.random.default_rng(2)),
        (memoryview(b"a"), memoryview(b"b")),
        (10**5000, 10**5001),
    ],
    ids=["pattern", "generator", "memory view", "huge integer"],
)
def test_no_two_values_in_a_closure_share_a_key(pair: tuple[Any, Any]) -> None:
    assert not _share_a_key(*(_holding(value) for value in pair))


def test_a_huge_integer_in_the_source_is_described() -> None:
    number = "0x1" + "0" * 5000
    function_hash(eval(f"lambda x: x / {number}"))
    space: dict[str, Any] = {}
    exec(f"def function(x): return x / {number}", space)
    function_hash(space["function"])


def test_an_empty_cell_is_described() -> None:
    def function(x: Any) -> Any:
        return x / later

    function_hash(function)
    if not function:
        later = 1.0
