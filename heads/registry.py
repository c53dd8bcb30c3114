"""Heads by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from featcache.errors import InvalidRequest

from .base import Head
from .dense import DenseHead
from .lightgbm import LightGBMHead
from .logistic import LogisticHead
from .neighbors import KNNHead
from .ridge import RidgeHead
from .svm import SVMHead

HEADS: dict[str, Callable[..., Head]] = {
    "logistic": LogisticHead,
    "svm": SVMHead,
    "ridge": RidgeHead,
    "lightgbm": LightGBMHead,
    "dense": DenseHead,
    "knn": KNNHead,
}


def make_head(name: str, **parameters: object) -> Head:
    """Return a new head by its name in `HEADS`.

    Parameters
    ----------
    name : str
        ``"logistic"``, ``"svm"``, ``"ridge"``, ``"lightgbm"``, ``"dense"`` or ``"knn"``.
    **parameters
        Parameters of the head's class.

    Returns
    -------
    Head
        Not trained.

    Raises
    ------
    InvalidRequest
        If there is no head of that name.

    Examples
    --------
    >>> make_head("logistic", C=0.1)
    LogisticHead(C=0.1)
    """
    if name not in HEADS:
        near = difflib.get_close_matches(name, HEADS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise InvalidRequest(
            f"There is no head {name!r}. {hint}Available: {', '.join(HEADS)}.", received=name
        )
    return HEADS[name](**parameters)
