"""Numbers, values and errors in a sentence: "1 image", "2 images", "'a', 'b', ..."."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

_SHOWN = 5
_LONGEST = 40


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, in the plural unless it is 1.

    Examples
    --------
    >>> counted(1, "image"), counted(1200, "image"), counted(0, "class", "classes")
    ('1 image', '1,200 images', '0 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def first_line(error: BaseException, longest: int | None = None) -> str:
    r"""Return what an error says as the end of a sentence: no further lines, no full stop.

    Parameters
    ----------
    error : BaseException
        The name of its type stands for one that says nothing.
    longest : int, optional
        Characters at the most, for messages of libraries that print whole structures.

    Examples
    --------
    >>> first_line(ValueError("No such layer.\nTraceback ...")), first_line(KeyError())
    ('No such layer', 'KeyError')
    """
    return str(error).strip().split("\n")[0].rstrip(". ")[:longest] or type(error).__name__


def few(values: Sequence[Any], form: Callable[[Any], str] = repr) -> str:
    """Return the first few values, each cut to a readable length; "none" if there are none.

    Examples
    --------
    >>> few(["a", "b"]), few(range(9)), few([])
    ("'a', 'b'", '0, 1, 2, 3, 4, ...', 'none')
    """
    shown = [form(value) for value in values[:_SHOWN]]
    shown = [text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..." for text in shown]
    return ", ".join([*shown, *(["..."] if len(values) > _SHOWN else [])]) or "none"
