"""Text in exported files: characters that a file cannot hold, and formulas in tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from ..printable import printable

# A spreadsheet runs a cell that begins like this as a formula (CWE-1236).
_FORMULA = re.compile(r"'*[=+\-@]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def plain_text(value: object) -> str:
    r"""Return a value as text that UTF-8 can encode.

    Text that it cannot, such as the name of a file that is not UTF-8, is escaped by
    `featcache.printable.printable`; other text is unchanged.

    Examples
    --------
    >>> plain_text("Größe"), plain_text("a\udcff")
    ('Größe', 'a\\xff')
    """
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return printable(text)
    return printable(text) if "\0" in text else text


def csv_cell(value: object) -> str:
    r"""Return the text of a cell of a CSV file.

    Control characters are escaped. Text that a spreadsheet would run as a formula gets an
    apostrophe in front, and so does such text that has one already, so that the cells of different
    texts are different. Numbers are unchanged.

    Examples
    --------
    >>> csv_cell("=1+1"), csv_cell("'=1+1"), csv_cell("-1.5"), csv_cell("a\nb"), csv_cell(None)
    ("'=1+1", "''=1+1", '-1.5', 'a\\nb', '')
    """
    if value is None:
        return ""
    text = printable(value)
    if isinstance(value, str) and _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def write_table(file: TextIO, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV table; all cells pass through `csv_cell`."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([csv_cell(name) for name in header])
    writer.writerows(_cells(rows))


def _cells(rows: Iterable[Iterable[Any]]) -> Iterator[list[str]]:
    for row in rows:
        yield [csv_cell(value) for value in row]
