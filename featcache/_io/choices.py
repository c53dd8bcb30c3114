"""Closed sets of options: each is a `Literal` alias, and all are checked here."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InvalidRequest


def check_choice(argument: str, value: object, choices: Sequence[str], otherwise: str = "") -> None:
    """Raise `InvalidRequest` unless an argument's value is one of its choices.

    Parameters
    ----------
    argument : str
        The name that the caller gave the value by.
    value : object
    choices : sequence of str
        The arguments of a `Literal` alias.
    otherwise : str
        What else the argument can be, in words that go on after the last choice.

    Examples
    --------
    >>> check_choice("resize", "zoom", ("stretch", "pad"))
    Traceback (most recent call last):
        ...
    featcache.errors.InvalidRequest: resize='zoom' is not known; choose one of stretch, pad.
    """
    if value not in choices:
        raise InvalidRequest(
            f"{argument}={value!r} is not known; choose one of {', '.join(choices)}{otherwise}.",
            received=value,
        )
