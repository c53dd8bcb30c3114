"""The class names of a bundle: those that are given, or those of a head's codes."""

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


def name_classes(trained: Sequence[Any], classes: Sequence[Any]) -> list[Any]:
    """Return the labels of a head's classes, which may be codes: indices into `classes`.

    Integer labels could be codes as well. Where both are possible and differ, the head is
    refused: the wrong reading would give every prediction a wrong name.
    """
    as_given = list(trained)
    if not all(type(label) is int for label in as_given):
        return _check_labels(as_given, classes)
    if -1 in as_given and -1 not in classes:
        raise InvalidRequest(
            "The head was trained on a class -1, which is not a label of the features; -1 often "
            "stands for unlabelled rows. Train on features[features.is_labelled].",
            received=as_given,
        )
    if not all(0 <= label < len(classes) for label in as_given):
        return _check_labels(as_given, classes)
    named = [classes[code] for code in as_given]
    integers = {label for label in classes if not isinstance(label, (str, bool))}
    if named != as_given and integers.issuperset(as_given):
        raise InvalidRequest(
            f"The head's classes {as_given} can be labels, or codes of the features' classes "
            f"{named}. Pass the right ones to make_bundle as classes=.",
            received=as_given,
        )
    return named


def _check_labels(trained: list[Any], classes: Sequence[Any]) -> list[Any]:
    """Return a head's labels; raise `InvalidRequest` unless all are labels of the features."""
    typed = {(type(label), label) for label in classes}
    other = [label for label in trained if (type(label), label) not in typed]
    if other:
        raise InvalidRequest(
            f"The head was trained on {format_values(other)}, which "
            f"{'is' if len(other) == 1 else 'are'} not among the features' classes "
            f"({format_values(classes)}). If these labels are right, pass them as classes=, in the "
            "order of the head's own classes.",
            received=trained,
        )
    return trained


def _refused(message: str, received: Any) -> InvalidRequest:
    return InvalidRequest(f"{message}.", received=received)
