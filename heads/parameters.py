"""What numbers the parameters of a head may be, checked before it is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from featcache.errors import InvalidRequest


@dataclass(frozen=True)
class Whole:
    """Whole numbers from `least` on."""

    least: int

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            return False
        return int(value) >= self.least

    def __str__(self) -> str:
        return f"a whole number from {self.least}"


@dataclass(frozen=True)
class Between:
    """Finite numbers within two limits, which `least_included` and `most_included` may be."""

    least: float
    most: float = math.inf
    least_included: bool = False
    most_included: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            return False
        number = float(value)
        if number in (self.least, self.most):
            return self.least_included if number == self.least else self.most_included
        return self.least < number < self.most  # neither NaN nor infinity

    def __str__(self) -> str:
        least = f"{self.least:g}{'' if self.least_included else ' (exclusive)'}"
        if self.most == math.inf:
            return f"a finite number from {least}"
        most = f"{self.most:g}{'' if self.most_included else ' (exclusive)'}"
        return f"a number from {least} to {most}"


def check_parameters(head: Any, allowed: Mapping[str, Whole | Between]) -> None:
    """Raise `InvalidRequest` for the first parameter of a head that is not allowed.

    With a learning rate of NaN, or no epoch, a head would be left as it was initialised.
    """
    for name, numbers in allowed.items():
        value = getattr(head, name)
        if value not in numbers:
            raise InvalidRequest(
                f"{type(head).__name__}: {name}={value!r} must be {numbers}.", received=value
            )
