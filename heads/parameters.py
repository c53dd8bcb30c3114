"""Validation of the numeric parameters of heads, before training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from featcache.errors import InvalidRequest


@dataclass(frozen=True)
class Integers:
    """The integers from `minimum` on."""

    minimum: int

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            return False
        return int(value) >= self.minimum

    def __str__(self) -> str:
        return f"a whole number from {self.minimum}"


@dataclass(frozen=True)
class Interval:
    """The finite numbers between two bounds, which are excluded unless `closed_low` or `_high`."""

    low: float
    high: float = math.inf
    closed_low: bool = False
    closed_high: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            return False
        number = float(value)
        if number in (self.low, self.high):
            return self.closed_low if number == self.low else self.closed_high
        return self.low < number < self.high  # neither NaN nor infinity

    def __str__(self) -> str:
        low = f"{self.low:g}{'' if self.closed_low else ' (exclusive)'}"
        if self.high == math.inf:
            return f"a finite number from {low}"
        high = f"{self.high:g}{'' if self.closed_high else ' (exclusive)'}"
        return f"a number from {low} to {high}"


def check_parameters(head: Any, allowed: Mapping[str, Integers | Interval]) -> None:
    """Raise `InvalidRequest` for the first parameter of a head that is out of range.

    With a learning rate of NaN or zero epochs, a head would keep its initial weights.
    """
    for name, numbers in allowed.items():
        value = getattr(head, name)
        if value not in numbers:
            raise InvalidRequest(
                f"{type(head).__name__}: {name}={value!r} must be {numbers}.", received=value
            )
