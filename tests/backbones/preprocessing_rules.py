"""Functions that prepare images, and what compares their keys."""

from __future__ import annotations

from typing import Any

import numpy as np

from featcache.backbones.preprocessing import fingerprint

DIVISOR = 255.0


def unit(x: Any) -> Any:
    return x / 255


def autocontrast(x: Any) -> Any:
    low = x.min(axis=(1, 2, 3), keepdims=True)
    high = x.max(axis=(1, 2, 3), keepdims=True)
    return (x - low) / np.maximum(high - low, 1)


def by_global(x: Any) -> Any:
    return x / DIVISOR


def all_different(functions: list[Any]) -> bool:
    return len({fingerprint(f) for f in functions}) == len(functions)
