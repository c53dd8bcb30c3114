"""HTML representations for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from ..printable import printable


def facts_table(title: str, facts: Mapping[str, str]) -> str:
    """Return an HTML table of names and values with a caption; all text is escaped.

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
