"""Formatting and parsing of numbers, values and errors in messages: "1 image", "20G", ..."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import InvalidRequest

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_BYTES = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]?)i?B?", re.IGNORECASE)
_MAX_VALUES = 5
_MAX_CHARACTERS = 40


def install_hint(extra: str) -> str:
    """Return the command that installs an optional package, in a checkout of the project."""
    return f"pip install -e '.[{extra}]'"


def format_count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, in the plural unless it is 1.

    Examples
    --------
    >>> format_count(1, "image"), format_count(1200, "image"), format_count(0, "class", "classes")
    ('1 image', '1,200 images', '0 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def parse_bytes(text: str) -> int:
    """Return the number of bytes that a text such as ``"20G"`` describes, in powers of 1024.

    Raises
    ------
    InvalidRequest
        If it describes none.

    Examples
    --------
    >>> parse_bytes("500M"), parse_bytes("1.5 kB"), parse_bytes("0")
    (524288000, 1536, 0)
    """
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(
            f"{text!r} is not a size; give one such as 20G or 500M.", received=text
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def first_line(error: BaseException, longest: int | None = None) -> str:
    r"""Return the first line of an error's message, without a full stop.

    Parameters
    ----------
    error : BaseException
        If its message is empty, the name of its type is returned.
    longest : int, optional
        Maximum number of characters, for libraries whose messages contain whole structures.

    Examples
    --------
    >>> first_line(ValueError("No such layer.\nTraceback ...")), first_line(KeyError())
    ('No such layer', 'KeyError')
    """
    return str(error).strip().split("\n")[0].rstrip(". ")[:longest] or type(error).__name__


def format_values(values: Sequence[Any], form: Callable[[Any], str] = repr) -> str:
    """Return the first five values, comma-separated and shortened; "none" for no values.

    Examples
    --------
    >>> format_values(["a", "b"]), format_values(range(9)), format_values([])
    ("'a', 'b'", '0, 1, 2, 3, 4, ...', 'none')
    """
    texts = [form(value) for value in values[:_MAX_VALUES]]
    texts = [t if len(t) <= _MAX_CHARACTERS else f"{t[:_MAX_CHARACTERS]}..." for t in texts]
    return ", ".join([*texts, *(["..."] if len(values) > _MAX_VALUES else [])]) or "none"
