"""Names of changes and snapshots in the manifest folder of a store in an object store."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = re.compile(r"(?P<kind>change|snapshot)-(?P<number>[0-9]{10,16})\.json")
# A repair goes on after the largest number: one that somebody has made up must leave room for it.
MAX_NUMBER = 10**15


def kind_and_number(name: str) -> tuple[str, int] | None:
    """Return what the name of a change or a snapshot says; None if featcache wrote no such name.

    Examples
    --------
    >>> kind_and_number("change-0000000012.json")
    ('change', 12)
    """
    match = _NAME.fullmatch(name)
    number = int(match["number"]) if match else 0
    if not match or number > MAX_NUMBER or match["number"] != f"{number:010d}":
        return None
    return match["kind"], number


def foreign_names(names: Iterable[str]) -> list[str]:
    """Return the names that look like those of changes or snapshots, and are not used."""
    return [
        name
        for name in names
        if name.startswith(("change-", "snapshot-")) and kind_and_number(name) is None
    ]
