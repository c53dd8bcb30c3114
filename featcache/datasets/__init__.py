"""Drawn dogs, made from a seed; and data sets of others, fetched once."""

from .drawn.dogs import drawn_dogs, sample
from .fetched import fetch
from .fetched import load as load_fetched

__all__ = ["drawn_dogs", "fetch", "load_fetched", "sample"]
