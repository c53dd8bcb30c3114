"""Short HTML for notebooks: a title and a few facts, every one of them escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from ..printable import printable

_SHOWN = 5
_LONGEST = 40


def facts_table(title: str, facts: Mapping[str, str]) -> str:
    """Return a table of two columns under a title, as HTML.

    Examples
    --------
    >>> facts_table("<x>", {"images": "3"})
    '<table><caption>&lt;x&gt;</caption><tr><th>images</th><td>3</td></tr></table>'
    """
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(printable(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table><caption>{escape(printable(title))}</caption>{rows}</table>"


def few(values: Sequence[Any], form: Callable[[Any], str] = repr) -> str:
    """Return the first few values, each cut to a readable length, and "..." for more.

    Examples
    --------
    >>> few(["a", "b"]), few(range(9))
    ("'a', 'b'", '0, 1, 2, 3, 4, ...')
    """
    shown = [form(value) for value in values[:_SHOWN]]
    shown = [text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..." for text in shown]
    return ", ".join([*shown, *(["..."] if len(values) > _SHOWN else [])])
