"""Tables of images: CSV files and DataFrames."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._io.logs import get_logger
from .._io.paths import absolute_path
from .._io.wording import format_count
from ..errors import DatasetError, DatasetNotFound, InvalidRequest
from .columns import label_values, text_column
from .dataset import Dataset
from .folder import split_of
from .labels import categories_of, is_missing
from .path_list import absolute_paths
from .remote import remote_source
from .urls import clean_url

log = get_logger(__name__)

# Names of columns of paths, without case, blanks, "-" and "_".
_PATH_NAMES = frozenset({
    "path", "paths", "file", "files", "filename", "filenames", "filepath", "image", "images",
    "imagefile", "imagefilename", "imagename", "imagepath", "imageurl", "img", "imgfile",
    "imgname", "imgpath", "imgurl", "photo", "photopath", "uri", "url",
})  # fmt: skip
_LABEL_NAMES = frozenset({"class", "classlabel", "classname", "category", "target"})
_MAX_LISTED = 50
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
COLUMNS_REASON = (
    "path_column= and label_column= go with a table: a CSV file or a DataFrame. Other data have "
    "no columns."
)


@dataclass(frozen=True)
class TableColumns:
    """The arguments ``path_column=`` and ``label_column=``; None: find it by its name."""

    path: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("path_column", self.path), ("label_column", self.label)):
            if value is not None and not isinstance(value, str):
                raise InvalidRequest(
                    f"{name}={value!r} must be the name of a column.", received=value
                )
        if self.path is not None and self.path == self.label:
            raise InvalidRequest(
                f"path_column and label_column are both {self.path!r}; name two columns.",
                received=self.path,
            )

    @property
    def given(self) -> bool:
        """Whether any of them was given."""
        return self.path is not None or self.label is not None


FIND = TableColumns()


def is_table(data: Any) -> bool:
    """Return whether data are a DataFrame."""
    return hasattr(data, "columns") and hasattr(data, "to_dict")


def is_table_file(path: Path) -> bool:
    """Return whether a file has the ending of a table."""
    return path.suffix.lower() in (".csv", ".tsv")


def from_frame(frame: Any, names: TableColumns = FIND) -> Dataset:
    """Return the `Dataset` of a DataFrame; relative paths are relative to the current folder."""
    _check_names([str(name) for name in frame.columns], "the DataFrame")
    columns = {str(name): frame[name] for name in frame.columns}
    names = _find_columns(columns, names, Path.cwd(), "the DataFrame")
    return _from_columns(columns, names, Path.cwd(), "table", "the DataFrame")


def from_csv(path: str | Path, names: TableColumns = FIND) -> Dataset:
    """Read a table of images; relative paths are relative to the table's folder.

    Cells are separated by commas, or by semicolons or tabs if the header has no comma, and by
    tabs in a ``.tsv`` file; whitespace around them is removed.

    Parameters
    ----------
    path : path
    names : TableColumns
        The columns with paths and labels. Default: the only column with one of the usual names
        of a column of paths, and the column ``label``.

    Raises
    ------
    DatasetError
        Without a column of paths, with several that may be meant, with two columns of one name,
        with one called ``Label`` or ``labels`` instead of ``label``, or with rows of another
        length than the header's.
    """
    path = Path(path)
    cells = _read_csv(path)
    return _from_cells(cells, _find_columns(cells, names, path.parent, str(path)), path)


def read_csv_paths(path: str | Path, column: str | None = None) -> list[tuple[str, str]]:
    """Return the path of each image of a table, as it is written there and as an absolute path.

    Parameters
    ----------
    path : path
    column : str, optional
        The column with the paths; see `from_csv`.

    Raises
    ------
    DatasetError
        As `from_csv`.
    """
    path = absolute_path(path)
    cells = _read_csv(path)
    names = _find_columns(cells, TableColumns(column), path.parent, str(path))
    written = cells[str(names.path)]
    files = absolute_paths(written, path.parent.resolve(), str(path))
    return [(clean_url(cell), file) for cell, file in zip(written, files, strict=True)]


def _read_csv(path: Path) -> dict[str, list[str]]:
    """Return the columns of a table, as text."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = file.readlines()
        separator = "\t" if path.suffix.lower() == ".tsv" else _separator(lines, path)
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a CSV text in UTF-8: {error}.", path=path) from error
    except OSError as error:
        raise DatasetNotFound(f"{path} cannot be read: {error.strerror}.", path=path) from error
    rows = [[cell.strip() for cell in row] for row in rows]
    rows = [row for row in rows if row not in ([], [""])]  # blank lines
    if len(rows) < 2:
        raise DatasetError(f"{path} has no rows below its header.", path=path)
    header = rows[0]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            what = {",": "a comma", ";": "a semicolon", "\t": "a tab"}[separator]
            raise DatasetError(
                f"{path}, row {number}: {format_count(len(row), 'value')}, but the header names "
                f"{format_count(len(header), 'column')}. Quote values that hold {what}.",
                path=path,
                row=number,
            )
    _check_names(header, str(path))
    return {name: [row[i] for row in rows[1:]] for i, name in enumerate(header)}


def _separator(lines: Sequence[str], path: Path) -> str:
    """Return what separates the cells of a header: a comma if it has any."""
    header = next((line for line in lines if line.strip()), "")
    unquoted = re.sub(r'"[^"]*"', "", header)
    found = [separator for separator in _SEPARATORS if separator in unquoted]
    if not found or "," in found:
        return ","
    if len(found) > 1:
        raise DatasetError(
            f"{path}: the header {header.strip()!r} has both semicolons and tabs, so that it is "
            "unclear which of them separate the columns. Use commas.",
            path=path,
            received=header,
        )
    log.info("%s: its cells are separated by %s.", path, _SEPARATORS[found[0]])
    return found[0]


def _find_columns(
    columns: Mapping[str, Any], given: TableColumns, base: Path, source: str
) -> TableColumns:
    """Return the names of the columns with paths and labels; None for no labels.

    Raises
    ------
    DatasetError
        If a column that was named does not exist, or it is unclear which has the paths.
    """
    for argument, name in (("path_column", given.path), ("label_column", given.label)):
        if name is not None and name not in columns:
            raise DatasetError(
                f"{source} has no column {name!r} ({argument}); its columns are "
                f"{_listed(columns)}.",
                received=name,
                expected=list(columns),
            )
    found = given.path or _find_path(columns, base, source)
    label = given.label
    _check_spelling(list(columns), {"split"} if label else {"label", "split"}, source)
    if label is None and "label" in columns and found != "label":
        label = "label"
    if found != "path" and given.path is None:
        log.info("%s: the paths are those of the column %r.", source, found)
    if label is None:
        likely = [name for name in columns if name != found and _plain(name) in _LABEL_NAMES]
        if likely:
            log.info(
                "%s has no column 'label', and is read without labels. If %r holds them, pass "
                "label_column=%r (--label-column).", source, likely[0], likely[0],
            )  # fmt: skip
    return TableColumns(found, label)


def _find_path(columns: Mapping[str, Any], base: Path, source: str) -> str:
    if "path" in columns:
        return "path"
    found = [name for name in columns if _plain(name) in _PATH_NAMES]
    if not found:
        found = [name for name in columns if _plain(name) == "id" and _files(columns[name], base)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DatasetError(
            f"{source} has no column 'path', and several that may be meant: "
            f"{', '.join(map(repr, found[:_MAX_LISTED]))}. Say which holds the paths: "
            f"path_column={found[0]!r} (--path-column). Its columns are {_listed(columns)}.",
            received=list(columns),
            expected="path",
        )
    raise DatasetError(
        f"{source} has no column 'path'; its columns are {_listed(columns)}. If one of "
        "them holds the paths of the images, name it: path_column='...' (--path-column). Optional: "
        "label, split, and any others, which are kept as attributes.",
        received=list(columns),
        expected="path",
    )


def _listed(names: Iterable[str]) -> str:
    """Return the names of columns for a message, at most fifty of them."""
    listed = list(names)
    more = f" and {len(listed) - _MAX_LISTED:,} more" if len(listed) > _MAX_LISTED else ""
    return f"{listed[:_MAX_LISTED]}{more}"


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _files(values: Iterable[Any], base: Path) -> bool:
    """Return whether all values are paths of existing files."""
    return all(
        isinstance(value, (str, os.PathLike)) and absolute_path(value, base).is_file()
        for value in values
    )


def _from_cells(cells: Mapping[str, list[str]], names: TableColumns, path: Path) -> Dataset:
    columns: dict[str, Any] = dict(cells)
    for name, values in cells.items():
        if name == names.label:
            columns[name] = label_values(values)
        elif name not in (names.path, "split"):
            columns[name] = text_column(values)
    base, title = path.parent.resolve(), path.parent.name or path.stem
    return _from_columns(columns, names, base, title, str(path))


def _from_columns(
    columns: dict[str, Any], names: TableColumns, base: Path, title: str, source: str
) -> Dataset:
    paths = absolute_paths(columns[str(names.path)], base, source)
    remote = remote_source(paths)
    split = None if "split" in (names.path, names.label) else columns.get("split")
    if split is not None:
        split = [_split_name(value, source, row) for row, value in enumerate(split, start=1)]
    labels = None if names.label is None else columns[names.label]
    categories = categories_of(labels)
    if labels is not None and all(map(is_missing, labels)):
        labels = None  # an empty column
    used = {names.path, names.label, "split"}
    others = {name: values for name, values in columns.items() if name not in used}
    return Dataset(
        paths if remote is None else remote.names, labels, split, str(base), title, others,
        categories=categories, images=remote,
    )  # fmt: skip


def _check_names(names: Sequence[str], source: str) -> None:
    duplicates = sorted(name for name, count in Counter(names).items() if count > 1)
    if duplicates:
        raise DatasetError(
            f"{source} has several columns called {', '.join(map(repr, duplicates))}; one of them "
            "would be lost. Rename or remove them.",
            received=duplicates,
        )


def _check_spelling(names: Sequence[str], roles: Collection[str], source: str) -> None:
    """Raise for ``Label`` or ``labels`` instead of ``label``, which would become an attribute."""
    for expected in sorted(roles):
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
