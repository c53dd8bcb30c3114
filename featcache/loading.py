"""A folder, a table or a list -> `Dataset`. Nothing is decoded here."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .boxes import cropped
from .dataset import Dataset
from .errors import DatasetError, DatasetNotFound
from .images import SUFFIXES

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
}  # fmt: skip


def load_dataset(
    data: Any,
    labels: Sequence[Any] | None = None,
    *,
    crop: str | None = None,
    margin: float = 0.0,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Make a `Dataset` of whatever describes images.

    Parameters
    ----------
    data : Dataset, path, list of paths, or pandas.DataFrame
        A folder of class folders (also below ``train/``, ``test/`` ...), a folder of
        images, a CSV file or DataFrame with a ``path`` column and, if there are any,
        ``label`` and ``split``, the paths themselves, or the name of a data set that
        ``featcache fetch`` brings, such as ``"stanford-dogs"``.
    labels : sequence, optional
        Labels for a list of paths.
    crop : {"whole", "box"}, optional
        ``"box"``: the part of each photo that the columns ``left``, ``top``, ``right`` and
        ``bottom`` give. Default: whole photos.
    margin : float
        Widens each box by this share of its size, 0 to 1.
    cache_dir : path, optional
        Where fetched data sets are.

    Raises
    ------
    DatasetNotFound, DatasetError
        If there is nothing there, no image in it, or its layout has two meanings.
    """
    if labels is not None and not _is_path_list(data):
        raise DatasetError("labels= goes with a list of paths; other data bring their own.")
    if isinstance(data, str) and not os.path.exists(data):
        from .datasets import fetched

        if data in fetched.NAMES:
            return fetched.load(data, crop=crop, margin=margin, cache_dir=cache_dir)
    return cropped(_load(data, labels), crop, margin)


def _load(data: Any, labels: Sequence[Any] | None) -> Dataset:
    if isinstance(data, Dataset):
        return data
    if isinstance(data, (str, os.PathLike)):
        path = Path(os.path.abspath(os.path.expanduser(os.fspath(data))))
        if path.is_dir():
            return from_folder(path)
        if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
            return from_csv(path)
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            return from_paths([path])
        if path.is_file():
            raise DatasetError(
                f"{path} is neither a folder, nor a CSV file, nor an image. A table needs the "
                "ending .csv and a column 'path'.",
                received=str(path),
            )
        raise DatasetNotFound(_not_found(path), received=str(path))
    if hasattr(data, "columns") and hasattr(data, "to_dict"):
        columns = {str(name): [_text(v) for v in data[name].tolist()] for name in data.columns}
        return _from_columns(columns, Path.cwd(), "table", "the DataFrame")
    if _is_path_list(data):
        return from_paths(data, labels)
    raise DatasetError(
        f"Images can be a folder, a CSV file, a list of paths, a DataFrame or a Dataset, not "
        f"{type(data).__name__}.",
        received=type(data).__name__,
    )


def from_paths(paths: Iterable[Any], labels: Sequence[Any] | None = None) -> Dataset:
    """Make a `Dataset` of image files named one by one."""
    absolute = [os.path.abspath(os.path.expanduser(os.fspath(p))) for p in paths]
    if not absolute:
        raise DatasetError("The list of paths is empty; name at least one image.")
    return Dataset(
        paths=absolute,
        labels=None if labels is None else [_text(label) for label in labels],
        root=_common_root(absolute),
        name=Path(_common_root(absolute)).name or "images",
    )


def from_csv(path: str | Path) -> Dataset:
    """Read a table of images; relative paths start at the table's own folder.

    Raises
    ------
    DatasetError
        Without a ``path`` column, or with rows of another length than the header's.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a CSV text in UTF-8: {error}.", path=path) from error
    except OSError as error:
        raise DatasetNotFound(f"{path} cannot be read: {error.strerror}.", path=path) from error
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise DatasetError(f"{path} has no rows below its header.", path=path)
    header = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DatasetError(
                f"{path}, row {number}: {len(row)} values, but the header names {len(header)} "
                "columns. Quote values that hold a comma.",
                path=path,
                row=number,
            )
    columns = {name: [row[i] for row in rows[1:]] for i, name in enumerate(header)}
    return _from_columns(columns, path.parent.resolve(), path.parent.name or path.stem, str(path))


def from_folder(path: str | Path) -> Dataset:
    """List a folder: class folders if it has any, else the images in it.

    Raises
    ------
    DatasetError
        If no image is found, or images lie beside class folders.
    """
    root = Path(os.path.abspath(path))
    files = sorted(_walk(str(root), set()))
    if not files:
        raise DatasetError(
            f"No image was found in {root} (looked for {', '.join(sorted(SUFFIXES))}, also in "
            "folders below). Expected either images, or one folder a class with its images.",
            received=str(root),
        )
    below = len(os.path.join(str(root), ""))
    parts = [file[below:].split(os.sep) for file in files]
    loose = [file for file, p in zip(files, parts, strict=True) if len(p) == 1]
    if len(loose) == len(files):
        return Dataset(paths=files, root=str(root), name=root.name)
    if loose:
        raise DatasetError(
            f"{root} holds {len(loose)} images beside class folders (the first is "
            f"{Path(loose[0]).name!r}), so their class is unknown. Move them into a class folder "
            "or elsewhere, or list the images you mean in a CSV file.",
            received=str(root),
            loose=loose,
        )
    tops = {p[0] for p in parts}
    if all(top.lower() in SPLIT_NAMES for top in tops) and all(len(p) > 2 for p in parts):
        labels, split = [p[1] for p in parts], [SPLIT_NAMES[p[0].lower()] for p in parts]
        return Dataset(files, labels, split=split, root=str(root), name=root.name)
    return Dataset(files, [p[0] for p in parts], root=str(root), name=root.name)


def _walk(folder: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield image files below a folder; each folder once, so that link loops end."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {error.strerror}.", path=folder) from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:  # a loop of links; if it is named as an image, reading will tell
            is_folder = False
        if is_folder:
            yield from _walk(entry.path, seen)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            yield entry.path


def _from_columns(columns: dict[str, list[str]], base: Path, name: str, source: str) -> Dataset:
    if "path" not in columns:
        raise DatasetError(
            f"{source} has no column 'path'; its columns are {list(columns)}. Needed: path; "
            "optional: label, split, and any others, which are kept as attributes.",
            columns=list(columns),
        )
    for row, value in enumerate(columns["path"], start=1):
        if not value:
            raise DatasetError(f"{source}: the path of row {row} is empty.", row=row)
    paths = [os.path.abspath(base / os.path.expanduser(value)) for value in columns["path"]]
    split = columns.get("split")
    if split is not None:
        split = [_split_name(value, source, row) for row, value in enumerate(split, start=1)]
    labels = columns.get("label")
    if labels is not None and "" in labels:
        row = labels.index("") + 1
        raise DatasetError(f"{source}: the label of row {row} is empty.", row=row)
    others = {k: v for k, v in columns.items() if k not in ("path", "label", "split")}
    return Dataset(paths, labels, split, str(base), name, others)


def _split_name(value: str, source: str, row: int) -> str:
    if value.strip().lower() not in SPLIT_NAMES:
        raise DatasetError(
            f"{source}: row {row} has split {value!r}; expected train, validation or test.",
            received=value,
            row=row,
        )
    return SPLIT_NAMES[value.strip().lower()]


def _is_path_list(data: Any) -> bool:
    if isinstance(data, (str, bytes, os.PathLike, Mapping, Dataset)) or hasattr(data, "columns"):
        return False
    return isinstance(data, Iterable)


def _text(value: Any) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


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
