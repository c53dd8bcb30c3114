"""Data sets with a name: published ones, downloaded once, and dogs drawn from a seed.

`load_dataset` accepts their names as well as everything that `data` accepts; `traits` returns facts
on the classes of some. Used by `gc`, `extraction`, `bundle`, `cli`, `bench` and users.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .breed_traits import BreedTraits as BreedTraits
    from .breed_traits import Traits as Traits
    from .breed_traits import traits as traits
    from .breed_traits import traits_of as traits_of
    from .drawn.dogs import drawn_dogs as drawn_dogs
    from .drawn.dogs import sample as sample
    from .fetched import fetch as fetch
    from .fetched import load as load_fetched

__all__ = [
    "BreedTraits",
    "Traits",
    "drawn_dogs",
    "fetch",
    "load_fetched",
    "sample",
    "traits",
    "traits_of",
]

# The module and name of each public name. Imported on first use: drawing needs joblib, whose
# import would take a tenth of a second of an extraction that finds all rows stored.
_PLACES = {
    "BreedTraits": ("breed_traits", "BreedTraits"),
    "Traits": ("breed_traits", "Traits"),
    "drawn_dogs": ("drawn.dogs", "drawn_dogs"),
    "fetch": ("fetched", "fetch"),
    "load_fetched": ("fetched", "load"),
    "sample": ("drawn.dogs", "sample"),
    "traits": ("breed_traits", "traits"),
    "traits_of": ("breed_traits", "traits_of"),
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
