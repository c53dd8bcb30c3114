"""Entries of the command line: a name with options, as in ``xception@image_size=224``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.errors import InvalidRequest

Parser = Callable[[str], Any]
# A path may hold an @, but hardly one that a name and = follow.
_OPTIONS = re.compile(r"@(?=\s*\w+\s*=)")


@dataclass(frozen=True)
class Entry:
    """A name with options.

    Attributes
    ----------
    name : str
        What precedes the ``@``.
    options : mapping of str to object
        The values, parsed.
    suffix : str
        The options as text, to tell two entries apart: ``"@image_size=224"``; of a file, its
        name without the folder.
    """

    name: str
    options: Mapping[str, Any]
    suffix: str = ""


def parse_entry(text: str, parsers: Mapping[str, Parser]) -> Entry:
    """Return a name with its options.

    Parameters
    ----------
    text : str
        ``NAME`` or ``NAME@OPTION=VALUE,OPTION=VALUE``.
    parsers : mapping of str to callable
        For each option, what turns the text of its value into the value. It raises
        `InvalidRequest` with words that go on after ``"option='text'"``.

    Raises
    ------
    InvalidRequest
        If an option is unknown, occurs twice, or has a value that is not accepted.

    Examples
    --------
    >>> parse_entry("xception@image_size=224", {"image_size": int})
    Entry(name='xception', options={'image_size': 224}, suffix='@image_size=224')
    """
    parts = _OPTIONS.split(text, maxsplit=1)
    name, given = parts[0].strip(), parts[1:]
    options: dict[str, Any] = {}
    words = []
    for part in given[0].split(",") if given else []:
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InvalidRequest(
                f"{text}: {part!r} is not of the form option=value. Commas separate options; "
                "an entry with options is the only one of its argument: repeat the argument for "
                "others.",
                received=part,
            )
        if option not in parsers:
            raise InvalidRequest(
                f"{text}: there is no option {option!r}; choose from {', '.join(parsers)}.",
                received=option,
            )
        if option in options:
            raise InvalidRequest(f"{text}: {option} is given twice.", received=option)
        try:
            options[option] = parsers[option](value)
        except InvalidRequest as error:
            raise InvalidRequest(f"{text}: {option}={error}", received=value) from error
        words.append(f"{option}={Path(value).name if '/' in value else value}")
    return Entry(name, options, "@" + ",".join(words) if words else "")


def split_entries(values: Sequence[str]) -> list[str]:
    """Return the entries of an argument that may be given several times.

    A value with options is one entry, since commas separate its options; any other may be a list.

    Examples
    --------
    >>> split_entries(["resnet50, vgg19", "xception@image_size=224,layer=avg_pool"])
    ['resnet50', 'vgg19', 'xception@image_size=224,layer=avg_pool']
    """
    entries: list[str] = []
    for value in values:
        several = [value] if _OPTIONS.search(value) else value.split(",")
        entries += [entry.strip() for entry in several if entry.strip()]
    return entries


def split_joined(text: str) -> list[str]:
    """Return the entries that ``+`` joins; one inside the path of a file is part of the path.

    Examples
    --------
    >>> split_joined("resnet50@layer=avg_pool + vgg19")
    ['resnet50@layer=avg_pool', 'vgg19']
    """
    pieces, entries = text.split("+"), []
    while pieces:
        count = next(n for n in range(len(pieces), 0, -1) if _is_one_entry("+".join(pieces[:n])))
        entries.append("+".join(pieces[:count]).strip())
        pieces = pieces[count:]
    return entries


def _is_one_entry(text: str) -> bool:
    name, *given = _OPTIONS.split(text, maxsplit=1)
    values = [part.partition("=")[2] for part in given[0].split(",")] if given else []
    return all("+" not in value or Path(value.strip()).is_file() for value in (name, *values))


def one_of(choices: Sequence[str]) -> Parser:
    """Return a parser of a closed set of words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise InvalidRequest(f"{text!r} is not known; choose one of {', '.join(choices)}.")
        return text

    return parse


def non_empty(text: str) -> str:
    """Return a text that is not empty."""
    if not text:
        raise InvalidRequest("'' is empty; give a value, or leave the option out.")
    return text


def whole_number(low: int, high: int | None = None) -> Parser:
    """Return a parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        value = int(text) if re.fullmatch(r"-?\d{1,18}", text) else None
        if value is None or value < low or (high is not None and value > high):
            upper = "" if high is None else f" to {high}"
            raise InvalidRequest(f"{text!r} must be a whole number from {low}{upper}.")
        return value

    return parse


def number(low: float, high: float | None = None, *, above: bool = False) -> Parser:
    """Return a parser of numbers from `low` to `high`; with `above`, without `low` itself."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        inside = value > low if above else value >= low
        if not (inside and math.isfinite(value) and (high is None or value <= high)):
            begin = f"above {low:g}" if above else f"from {low:g}"
            upper = "" if high is None else f" to {high:g}"
            raise InvalidRequest(f"{text!r} must be a number {begin}{upper}.")
        return value

    return parse
