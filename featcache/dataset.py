"""A folder, a table or a list -> `Dataset`: paths, labels and whatever else is known.

Nothing is decoded here. Labels stay here too: they never enter a store.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import DatasetError, DatasetNotFound
from .images import SUFFIXES

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
}  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """Images and what is known of them, in one fixed order.

    Attributes
    ----------
    paths : sequence of str
        One file an image, absolute.
    labels : sequence of str or None
        The class of each image; None where no classes are known.
    split : sequence of str or None
        ``"train"``, ``"validation"`` or ``"test"`` for each image, if the data set says so.
    root : str
        The folder that the paths have in common.
    name : str
        For reports.
    attributes : mapping of str to sequence of str
        Further columns, one value an image, such as those of a CSV file.
    ids : sequence of str or None
        Content id of each image where it is known already; checked when a file is read.
    """

    paths: Sequence[str]
    labels: Sequence[str] | None = None
    split: Sequence[str] | None = None
    root: str = ""
    name: str = "images"
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ids: Sequence[str] | None = None

    def __post_init__(self) -> None:
        columns = {"labels": self.labels, "split": self.split, "ids": self.ids, **self.attributes}
        for column, values in columns.items():
            if values is not None and len(values) != len(self.paths):
                raise DatasetError(
                    f"{len(self.paths)} paths came with {len(values)} values of {column!r}; "
                    "there must be one for each.",
                    column=column,
                )
        if not self.paths:
            raise DatasetError(f"The data set {self.name!r} holds no image.", root=self.root)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> list[str] | None:
        """The distinct labels, sorted; None without labels."""
        return None if self.labels is None else sorted(set(self.labels))

    def take(self, rows: Iterable[int]) -> Dataset:
        """Return the data set of these rows, in the order given."""
        index = list(rows)

        def pick(values: Sequence[str]) -> list[str]:
            return [values[i] for i in index]

        return Dataset(
            paths=pick(self.paths),
            labels=None if self.labels is None else pick(self.labels),
            split=None if self.split is None else pick(self.split),
            root=self.root,
            name=self.name,
            attributes={name: pick(values) for name, values in self.attributes.items()},
            ids=None if self.ids is None else pick(self.ids),
        )


def load_dataset(data: Any, labels: Sequence[Any] | None = None) -> Dataset:
    """Make a `Dataset` of whatever describes images.

    Parameters
    ----------
    data : Dataset, path, list of paths, or pandas.DataFrame
        A folder of class folders (also below ``train/``, ``test/`` ...), a folder of
        images, a CSV file or DataFrame with a ``path`` column and, if there are any,
        ``label`` and ``split``, or the paths themselves.
    labels : sequence, optional
        Labels for a list of paths.

    Raises
    ------
    DatasetNotFound, DatasetError
        If there is nothing there, no image in it, or its layout has two meanings.
    """
    if labels is not None and not _is_path_list(data):
        raise DatasetError("labels= goes with a list of paths; other data bring their own.")
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
