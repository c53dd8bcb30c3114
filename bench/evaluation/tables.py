"""CSV files that are safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.toolkit import printable

if TYPE_CHECKING:
    import pandas as pd

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets read such cells as formulas


def cell(value: Any) -> Any:
    """Return a value for a CSV cell: numbers unchanged, text without formulas or control codes.

    Parameters
    ----------
    value : object
        Text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return gets a
        leading apostrophe, which marks text in spreadsheets. Control characters and invalid
        UTF-8 are escaped.

    Examples
    --------
    >>> cell("=1+1"), cell(-1.5), cell("beagle")
    ("'=1+1", -1.5, 'beagle')
    """
    if not isinstance(value, str):
        return value
    return ("'" if value.startswith(_FORMULAS) else "") + printable(value)


def write_csv(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write records of the same fields, at least one, as a CSV file in UTF-8."""
    rows = iter(records)
    first = next(rows)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([cell(name) for name in first])
        writer.writerows(
            [cell(value) for value in record.values()] for record in chain([first], rows)
        )


def write_frame(path: Path, frame: pd.DataFrame, *, index: bool) -> None:
    """Write a data frame as a CSV file in UTF-8, with or without its index."""
    safe = frame.rename(columns=cell, index=cell)
    for place, kind in enumerate(frame.dtypes):
        if kind.kind not in "iufb":
            safe.isetitem(place, frame.iloc[:, place].map(cell))
    safe.to_csv(path, index=index)
