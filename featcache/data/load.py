"""Construction of a `Dataset` from a folder, a table or a list, without decoding images."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._io.paths import absolute_path
from .._io.wording import format_count
from ..errors import DatasetError, DatasetNotFound
from ..images.formats import looks_like_image
from .boxes import Crop, cropped
from .columns import label_values, text_column
from .dataset import Dataset
from .folder import from_folder, split_of
from .labels import categories_of, is_missing
from .memory import (
    MemorySource,
    ValueRange,
    check_value_range,
    images_of_array,
    is_array,
    is_image_in_memory,
)

_COLUMNS = ("path", "label", "split")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
LABELS_REASON = "labels= goes with an array or a list of images; other data bring their own."
URL_REASON = "is a URL, not a file; download the image and give the path of the file"


def describe(
    data: Any,
    labels: Iterable[object] | None = None,
    *,
    crop: Crop | None = None,
    margin: float = 0.0,
    value_range: ValueRange | None = None,
) -> Dataset:
    """Return a `Dataset` as `featcache.load_dataset` does, except for names of data sets."""
    if labels is not None and not (is_array(data) or _is_list(data)):
        raise DatasetError(LABELS_REASON)
    return cropped(_load(data, labels, check_value_range(value_range)), crop, margin)


def _load(data: Any, labels: Iterable[object] | None, value_range: ValueRange | None) -> Dataset:
    if isinstance(data, Dataset):
        return data
    if isinstance(data, (str, os.PathLike)):
        if is_url(data):
            raise DatasetError(f"{data} {URL_REASON}.", received=data)
        path = absolute_path(data)
        if path.is_dir():
            return from_folder(path)
        if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
            return from_csv(path)
        if path.is_file() and looks_like_image(path):
            return from_paths([path])
        if path.is_file():
            raise DatasetError(
                f"{path} is neither a folder, nor a CSV file, nor an image. A table needs the "
                "ending .csv and a column 'path'.",
                received=str(path),
            )
        raise DatasetNotFound(_not_found(path), received=str(path))
    if hasattr(data, "columns") and hasattr(data, "to_dict"):
        names = [str(name) for name in data.columns]
        _check_names(names, "the DataFrame")
        columns = {str(name): data[name] for name in data.columns}
        return _from_columns(columns, Path.cwd(), "table", "the DataFrame")
    if is_array(data):
        return _from_memory(images_of_array(data, value_range), labels, value_range)
    if _is_list(data):
        return _from_list(list(data), labels, value_range)
    hint = " One image is a list of one: [x]." if is_image_in_memory(data) else ""
    raise DatasetError(
        f"Images can be a folder, a CSV file, a DataFrame, an array (n, h, w, 3), a Dataset, or a "
        f"list of paths, arrays, PIL images or bytes, not {type(data).__name__}.{hint}",
        received=type(data).__name__,
    )


def _from_list(items: list[Any], labels: Any, value_range: ValueRange | None) -> Dataset:
    """Return a `Dataset` of a list of paths, or of images in memory."""
    in_memory = [is_image_in_memory(item) or is_array(item) for item in items]
    if not any(in_memory):
        return from_paths(items, labels)
    if not all(in_memory):
        row = in_memory.index(False)
        raise DatasetError(
            f"The list holds images in memory, but item {row} is {type(items[row]).__name__}. "
            "Pass either paths, or arrays, PIL images and bytes.",
            received=type(items[row]).__name__,
            row=row,
        )
    return _from_memory(items, labels, value_range)


def _from_memory(images: Sequence[Any], labels: Any, value_range: ValueRange | None) -> Dataset:
    source = MemorySource(images, value_range)
    return Dataset(source.names, labels, name="images", images=source)


def from_paths(paths: Iterable[Any], labels: Any = None) -> Dataset:
    """Return a `Dataset` of a list of image files."""
    absolute = _absolute(paths, "", "the list of paths")
    if not absolute:
        raise DatasetError("The list of paths is empty; name at least one image.")
    return Dataset(
        paths=absolute,
        labels=labels,
        root=_common_root(absolute),
        name=Path(_common_root(absolute)).name or "images",
    )


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
    paths = _absolute(columns["path"], base, source)
    split = columns.get("split")
    if split is not None:
        split = [_split_name(value, source, row) for row, value in enumerate(split, start=1)]
    labels = columns.get("label")
    categories = categories_of(labels)
    if labels is not None and all(map(is_missing, labels)):
        labels = None  # an empty column
    others = {k: v for k, v in columns.items() if k not in _COLUMNS}
    return Dataset(paths, labels, split, str(base), name, others, categories=categories)


def _absolute(paths: Iterable[Any], base: str | os.PathLike[str], source: str) -> list[str]:
    """Return absolute paths; raise `DatasetError` with the row for a missing path or a URL."""
    found = []
    for row, path in enumerate(paths, start=1):
        is_path = isinstance(path, (str, os.PathLike))
        if not is_path or is_missing(str(path)):
            what = "empty" if is_missing(path) else f"{path!r}, which is not a path"
            raise DatasetError(
                f"{source}: the path of row {row} is {what}. Give each row the path of its image, "
                "or leave the row out.",
                row=row,
                received=path,
            )
        if is_url(path):
            raise DatasetError(f"{source}: row {row}: {path} {URL_REASON}.", row=row, received=path)
        found.append(str(absolute_path(path, base)))
    return found


def is_url(path: Any) -> bool:
    """Return whether a value is a URL, which would otherwise be treated as a local path."""
    return isinstance(path, str) and _URL.match(path) is not None


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


def _is_list(data: Any) -> bool:
    """Return whether data are a list of paths or images, or another iterable of them."""
    if isinstance(data, (str, os.PathLike, Mapping, Dataset)) or hasattr(data, "columns"):
        return False
    return isinstance(data, Iterable) and not is_image_in_memory(data)


def _common_root(paths: Sequence[str]) -> str:
    folders = {os.path.dirname(path) for path in paths}
    try:
        return os.path.commonpath(folders)
    except ValueError:  # different drives
        return ""


def _not_found(path: Path) -> str:
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    names = sorted(p.name for p in parent.iterdir() if p.is_dir())[:8]
    there = f" It has the folders {', '.join(names)}." if names else ""
    return f"{path} does not exist. The nearest folder that does is {parent}.{there}"
