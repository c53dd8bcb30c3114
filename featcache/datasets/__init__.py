"""Data sets with a name: published ones, downloaded once, and dogs drawn from a seed.

`load_dataset` accepts their names as well as everything that `data` accepts. Used by `gc`,
`extraction`, `bundle`, `cli` and users.
"""

from .drawn.dogs import drawn_dogs, sample
from .fetched import fetch
from .fetched import load as load_fetched

__all__ = ["drawn_dogs", "fetch", "load_fetched", "sample"]
