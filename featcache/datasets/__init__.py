"""Data sets with a name: published ones, downloaded once, and dogs drawn from a seed.

`load_dataset` accepts their names as well as everything that `data` accepts. Used by `gc`,
`extraction`, `bundle`, `cli` and users.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .drawn.dogs import drawn_dogs as drawn_dogs
    from .drawn.dogs import sample as sample
    from .fetched import fetch as fetch
    from .fetched import load as load_fetched

__all__ = ["drawn_dogs", "fetch", "load_fetched", "sample"]

# The module and name of each public name. Imported on first use: drawing needs joblib, whose
# import would take a tenth of a second of an extraction that finds all rows stored.
_PLACES = {
    "drawn_dogs": ("drawn.dogs", "drawn_dogs"),
    "fetch": ("fetched", "fetch"),
    "load_fetched": ("fetched", "load"),
    "sample": ("drawn.dogs", "sample"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, original = _PLACES[name]
    value = getattr(importlib.import_module(f".{module}", __name__), original)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
