"""Data sets known by name: published ones, fetched once, and drawn dogs, made from a seed.

`load_dataset` takes their names as well as whatever `data` describes. Called by `gc`,
`extraction`, `bundle`, `cli` and users.
"""

from .drawn.dogs import drawn_dogs, sample
from .fetched import fetch
from .fetched import load as load_fetched

__all__ = ["drawn_dogs", "fetch", "load_fetched", "sample"]
