"""Validation of the class names of a bundle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .._io.wording import format_values
from ..errors import InvalidRequest

_TYPES = (str, int, bool, float)


def check_classes(classes: Any, trained: Sequence[Any]) -> list[Any]:
    """Validate names for the classes of a head; return them as a list of Python values.

    Parameters
    ----------
    classes : sequence of str, int, bool or float
        The names.
    trained : sequence
        The head's own classes.

    Returns
    -------
    list of str, int, bool or float

    Raises
    ------
    InvalidRequest
        Unless the names are distinct, of one type, and one per class of the head.

    Examples
    --------
    >>> check_classes(np.array(["dog", "cat"]), [0, 1])
    ['dog', 'cat']
    """
    ordered = isinstance(classes, Iterable) and not isinstance(classes, (str, bytes, set, dict))
    if not ordered:
        raise _refused(
            f"classes={classes!r} is of type {type(classes).__name__}; give a list of labels",
            classes,
        )
    names = [name.item() if isinstance(name, np.generic) else name for name in classes]
    if len(names) != len(trained):
        raise _refused(
            f"The head has {len(trained)} classes ({format_values(trained)}), and classes= has "
            f"length {len(names)}; give one label per class, in their order",
            names,
        )
    other = next((name for name in names if type(name) not in _TYPES or name != name), None)
    if other is not None or None in names:
        raise _refused(
            f"classes= has the label {other!r}; a bundle holds labels of str, int, bool or float",
            names,
        )
    kinds = sorted({type(name).__name__ for name in names})
    if len(kinds) > 1:
        raise _refused(
            f"classes= mixes labels of {' and '.join(kinds)} ({format_values(names)}); give all of "
            "one type",
            names,
        )
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise _refused(
            f"classes= has {format_values(repeated)} more than once; give each class its own label",
            names,
        )
    return names


def _refused(message: str, received: Any) -> InvalidRequest:
    return InvalidRequest(f"{message}.", received=received)
