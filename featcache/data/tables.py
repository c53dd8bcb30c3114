"""Tables of images: CSV files and DataFrames."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._io.paths import absolute_path
from .._io.wording import format_count
from ..errors import DatasetError, DatasetNotFound
from .columns import label_values, text_column
from .dataset import Dataset
from .folder import split_of
from .labels import categories_of, is_missing
from .path_list import absolute_paths

_COLUMNS = ("path", "label", "split")


def is_table(data: Any) -> bool:
    """Return whether data are a DataFrame."""
    return hasattr(data, "columns") and hasattr(data, "to_dict")


def from_frame(frame: Any) -> Dataset:
    """Return the `Dataset` of a DataFrame; relative paths are relative to the current folder."""
    names = [str(name) for name in frame.columns]
    _check_names(names, "the DataFrame")
    columns = {str(name): frame[name] for name in frame.columns}
    return _from_columns(columns, Path.cwd(), "table", "the DataFrame")


def from_csv(path: str | Path) -> Dataset:
    """Read a table of images; relative paths are relative to the table's folder.

    Cells are separated by commas, in a ``.tsv`` file by tabs; whitespace around them is removed.

    Raises
    ------
    DatasetError
        Without a ``path`` column, with two columns of one name, with one called ``Label`` or
        ``labels`` instead of ``label``, or with rows of another length than the header's.
    """
    return _from_csv_columns(_read_csv(Path(path)), Path(path))


def read_csv_paths(path: str | Path) -> list[tuple[str, str]]:
    """Return the path of each image of a table, as it is written there and as an absolute path.

    Raises
    ------
    DatasetError
        As `from_csv`.
    """
    path = absolute_path(path)
    columns = _read_csv(path)
    return list(zip(columns.get("path", ()), _from_csv_columns(columns, path).paths, strict=True))


def _read_csv(path: Path) -> dict[str, list[str]]:
    """Return the columns of a table, as text."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            rows = list(csv.reader(file, delimiter=delimiter, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a CSV text in UTF-8: {error}.", path=path) from error
    except OSError as error:
        raise DatasetNotFound(f"{path} cannot be read: {error.strerror}.", path=path) from error
    rows = [[cell.strip() for cell in row] for row in rows if row]
    if len(rows) < 2:
        raise DatasetError(f"{path} has no rows below its header.", path=path)
    header = rows[0]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DatasetError(
                f"{path}, row {number}: {format_count(len(row), 'value')}, but the header names "
                f"{format_count(len(header), 'column')}. Quote values that hold a comma.",
                path=path,
                row=number,
            )
    _check_names(header, str(path))
    return {name: [row[i] for row in rows[1:]] for i, name in enumerate(header)}


def _from_csv_columns(cells: Mapping[str, list[str]], path: Path) -> Dataset:
    columns: dict[str, Any] = dict(cells)
    for name, values in cells.items():
        if name == "label":
            columns[name] = label_values(values)
        elif name not in _COLUMNS:
            columns[name] = text_column(values)
    return _from_columns(columns, path.parent.resolve(), path.parent.name or path.stem, str(path))


def _from_columns(columns: dict[str, Any], base: Path, name: str, source: str) -> Dataset:
    _check_spelling(list(columns), source)
    if "path" not in columns:
        raise DatasetError(
            f"{source} has no column 'path'; its columns are {list(columns)}. Needed: path; "
            "optional: label, split, and any others, which are kept as attributes.",
            received=list(columns),
            expected="path",
        )
    paths = absolute_paths(columns["path"], base, source)
    split = columns.get("split")
    if split is not None:
        split = [_split_name(value, source, row) for row, value in enumerate(split, start=1)]
    labels = columns.get("label")
    categories = categories_of(labels)
    if labels is not None and all(map(is_missing, labels)):
        labels = None  # an empty column
    others = {k: v for k, v in columns.items() if k not in _COLUMNS}
    return Dataset(paths, labels, split, str(base), name, others, categories=categories)


def _check_names(names: Sequence[str], source: str) -> None:
    duplicates = sorted({name for name in names if list(names).count(name) > 1})
    if duplicates:
        raise DatasetError(
            f"{source} has several columns called {', '.join(map(repr, duplicates))}; one of them "
            "would be lost. Rename or remove them.",
            received=duplicates,
        )


def _check_spelling(names: Sequence[str], source: str) -> None:
    """Raise for ``Label`` or ``labels`` instead of ``label``, which would become an attribute."""
    for expected in _COLUMNS:
        meant = [n for n in names if n.strip().lower() in (expected, f"{expected}s")]
        if meant and expected not in names:
            raise DatasetError(
                f"{source} has a column {meant[0]!r}, but none called {expected!r}. Rename it to "
                f"{expected!r}; if something else is meant, give it another name.",
                received=meant[0],
                expected=expected,
            )


def _split_name(value: Any, source: str, row: int) -> str:
    found = split_of(value) if isinstance(value, str) else None
    if found is None:
        raise DatasetError(
            f"{source}: row {row} has split {value!r}; expected train, validation or test.",
            received=value,
            row=row,
        )
    return found
