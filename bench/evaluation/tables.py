"""Tables as CSV files that a spreadsheet shows as they are."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.toolkit import printable

if TYPE_CHECKING:
    import pandas as pd

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take a formula to begin with


def cell(value: Any) -> Any:
    """Return a value for a CSV cell: numbers as they are, text that nothing computes or obeys.

    Parameters
    ----------
    value : object
        A text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return gets an
        apostrophe before it, by which spreadsheets know text; what no terminal or UTF-8 file
        can hold is escaped.

    Examples
    --------
    >>> cell("=1+1"), cell(-1.5), cell("beagle")
    ("'=1+1", -1.5, 'beagle')
    """
    if not isinstance(value, str):
        return value
    return ("'" if value.startswith(_FORMULAS) else "") + printable(value)


def write_csv(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Write records of the same fields as a CSV file in UTF-8."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([cell(name) for name in records[0]])
        writer.writerows([cell(value) for value in record.values()] for record in records)


def write_frame(path: Path, frame: pd.DataFrame, *, index: bool) -> None:
    """Write a data frame as a CSV file in UTF-8, with or without its index."""
    safe = frame.rename(columns=cell, index=cell)
    for place, kind in enumerate(frame.dtypes):
        if kind.kind not in "iufb":
            safe.isetitem(place, frame.iloc[:, place].map(cell))
    safe.to_csv(path, index=index)
