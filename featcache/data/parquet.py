"""Parquet files with a column of images, as Hugging Face publishes data sets."""

from __future__ import annotations

import bisect
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._io.logs import get_logger
from .._io.paths import absolute_path
from .._io.wording import first_line, install_hint
from ..errors import DatasetError, MissingExtra
from ..images.image_file import BadImage
from .cells import RESERVED, bytes_of_cell, choose_column, warn_of_unread_labels
from .columns import column_array
from .containers import Container, ContainerSource, OpenContainer
from .dataset import Dataset
from .elements import LABEL_KEYS, named_labels
from .folder import split_of
from .parquet_pages import check_pages
from .pipelines import MAX_IMAGES
from .sources import Reserve

log = get_logger(__name__)

SUFFIXES = (".parquet", ".pq")
_BATCH_BYTES = 32 * 2**20
_MAX_ROWS_PER_BATCH = 256
_MAX_BATCHES = 8
_MAX_BATCHES_BYTES = 256 * 2**20
_BUFFER_BYTES = 1 << 20
_MAX_COLUMN_BYTES = 2**30  # of labels and attributes, which are read completely
_MAX_ATTRIBUTES = 1000
_PART = re.compile(r"([A-Za-z]+)-\d+-of-\d+(?:-[0-9a-f]+)?")


def is_parquet(path: object) -> bool:
    """Return whether a value is the path of a Parquet file, by its ending."""
    return isinstance(path, (str, os.PathLike)) and str(path).lower().endswith(SUFFIXES)


def from_parquet(paths: Sequence[str | os.PathLike[str]]) -> Dataset:
    """Return the data set of Parquet files with the same columns.

    The images are in the only column of bytes, or of ``struct<bytes, path>``, or in the one
    called ``image``; the labels in the only ``ClassLabel`` of Hugging Face, or in ``label``. Names
    of files such as ``train-00000-of-00002.parquet`` give the split.

    Raises
    ------
    MissingExtra
        If pyarrow is not installed.
    DatasetError
        If a file is damaged, or has no column of images or several.
    """
    cache = _BatchCache()
    files = [ParquetFile(absolute_path(path), cache) for path in paths]
    first = files[0]
    for file in files[1:]:
        if (file.column, file.label) != (first.column, first.label):
            raise DatasetError(
                f"{file.path} has other columns than {first.path}: {file.columns} and "
                f"{first.columns}. Pass files of one data set.",
                path=file.path,
            )
    rows = [(number, row) for number, file in enumerate(files) for row in range(len(file))]
    if not 0 < len(rows) <= MAX_IMAGES:
        raise DatasetError(
            f"{first.path} has {len(rows):,} rows; expected 1 to {MAX_IMAGES:,}.", path=first.path
        )
    labels = categories = None
    if first.label is None:
        warn_of_unread_labels(first.types, str(first.path))
    else:
        values = [value for file in files for value in file.values(first.label)]
        labels, categories = named_labels(values, first.classes.get(first.label))
    others = {
        name: column_array([v for file in files for v in file.named_values(name)])
        for name in _attributes(files)
    }
    for file in files:
        file.close()
    names = [f"{files[number].path}[{row}]" for number, row in rows]
    return Dataset(
        names, labels, _split(files), str(first.path.parent), first.path.stem, others,
        categories=categories, images=ContainerSource(files, rows, names),
    )  # fmt: skip


def _attributes(files: Sequence[ParquetFile]) -> list[str]:
    """Return the columns of numbers and text that all files have, besides the labels."""
    first = files[0]
    if len(first.scalars) > _MAX_ATTRIBUTES:
        log.warning(
            "%s has %d columns of numbers and text; only the labels are read. Up to %d are kept.",
            first.path, len(first.scalars), _MAX_ATTRIBUTES,
        )  # fmt: skip
        return []
    shared = set(first.scalars).intersection(*(file.scalars for file in files))
    return [n for n in first.scalars if n in shared and n not in (first.label, *RESERVED)]


def _split(files: Sequence[ParquetFile]) -> list[str] | None:
    matches = [_PART.fullmatch(file.path.stem) for file in files]
    parts = [None if match is None else split_of(match[1]) for match in matches]
    if any(part is None for part in parts) or len(files) == 1:
        return None
    return [str(part) for part, file in zip(parts, files, strict=True) for _ in range(len(file))]


class _BatchCache:
    """The last batches of rows that were unpacked, of all files of a data set.

    Attributes
    ----------
    lock : threading.Lock
        Held while a batch is unpacked or used.
    stream : (path, int, int, iterator) or None
        File, row group, number of the next batch, and batches from there on.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stream: tuple[Path, int, int, Iterator[Any]] | None = None
        self._batches: OrderedDict[tuple[Path, int, int], Any] = OrderedDict()

    def get(self, key: tuple[Path, int, int]) -> Any | None:
        """Return a batch by file, row group and number."""
        if key in self._batches:
            self._batches.move_to_end(key)
        return self._batches.get(key)

    def add(self, key: tuple[Path, int, int], batch: Any) -> None:
        """Keep a batch, and drop those not used for longest beyond the limits."""
        self._batches[key] = batch
        sizes = [batch.get_total_buffer_size() for batch in self._batches.values()]
        while len(sizes) > 1 and (len(sizes) > _MAX_BATCHES or sum(sizes) > _MAX_BATCHES_BYTES):
            self._batches.popitem(last=False)
            del sizes[0]


class ParquetFile(Container):
    """A Parquet file.

    Its images are unpacked in batches of rows, of which the last few are kept. The headers of all
    pages are checked first, and values that occur several times are kept once, so that a small
    file cannot unpack to more memory than its images have.

    Parameters
    ----------
    path : Path
    cache : _BatchCache
        Shared by the files of a data set.

    Attributes
    ----------
    columns : list of str
    column : str
        The column of images.
    label : str or None
        The column of labels.
    classes : dict of str to list of str
        Names of the classes in columns of type ``ClassLabel``.
    scalars : list of str
        Columns of numbers and text.
    """

    in_order = True

    def __init__(self, path: Path, cache: _BatchCache) -> None:
        super().__init__(path)
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise MissingExtra(
                f"Parquet files need pyarrow: {install_hint('parquet')}.", package="pyarrow"
            ) from error
        self._pa, self._parquet = pyarrow, parquet
        self._cache = cache
        self._checked: dict[int, BadImage | None] = {}
        self._chunks: dict[str, list[int]] = {}
        self._texts: Any = None
        try:
            metadata = self._open(()).metadata
            self._schema = metadata.schema.to_arrow_schema()
        except Exception as error:
            raise DatasetError(
                f"{path} cannot be read as Parquet: {first_line(error, 200)}.", path=path
            ) from error
        self._metadata = metadata
        for number in range(metadata.num_columns):
            column = metadata.schema.column(number).path.partition(".")[0]
            self._chunks.setdefault(column, []).append(number)
        self.columns = list(self._schema.names)
        self.classes = _class_names(self._schema.metadata or {})
        self._choose_columns()
        self._leaf = self._leaf_of(self.column)
        self._starts = [0]
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def selection(self) -> str:
        """The column of images."""
        return self.column

    def _open(self, dictionaries: Sequence[str]) -> Any:
        return self._parquet.ParquetFile(
            self._pa.PythonFile(OpenContainer(self), "r"),
            read_dictionary=list(dictionaries), buffer_size=_BUFFER_BYTES, pre_buffer=False,
        )  # fmt: skip

    def _choose_columns(self) -> None:
        types = self._pa.types
        structs, binary, self.scalars = [], [], []
        for field in self._schema:
            kind = field.type
            if types.is_dictionary(kind):
                kind = kind.value_type
            if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                structs.append(field.name)
            elif types.is_binary(kind) or types.is_large_binary(kind):
                binary.append(field.name)
            elif types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or (
                types.is_string(kind) or types.is_large_string(kind)
            ):  # fmt: skip
                self.scalars.append(field.name)
        column = choose_column(self.columns, structs or binary, "image")
        if column is None:
            raise DatasetError(
                f"{self.path} has no column of images; its columns are {self.columns}. Expected "
                "one of bytes, or of struct<bytes: binary, path: string>.",
                path=self.path,
                received=self.columns,
            )
        self.column = column
        classes = [name for name in self.classes if name in self.scalars]
        usual = [name for name in LABEL_KEYS if name in self.scalars]
        self.label = choose_column(self.columns, classes or usual, "label")

    @property
    def types(self) -> dict[str, Any]:
        """The type of each column."""
        return {field.name: field.type for field in self._schema}

    def _leaf_of(self, column: str) -> str:
        """Return the path of a column's values in the file."""
        kind = self._schema.field(column).type
        return f"{column}.bytes" if self._pa.types.is_struct(kind) else column

    def values(self, column: str) -> list[Any]:
        """Return the values of a column of numbers or text.

        Raises
        ------
        DatasetError
            If they would take too much memory, or are damaged.
        """
        try:
            total = 0
            for group in range(self._metadata.num_row_groups):
                total += self._check_chunks(group, column)
            if total > _MAX_COLUMN_BYTES:
                raise BadImage(f"has {total:,} bytes; the limit is {_MAX_COLUMN_BYTES:,}")
            if self._texts is None:  # opened once, since reading its footer may take long
                primitive = self._pa.types.is_primitive
                kept_once = [n for n in self.scalars if not primitive(self._schema.field(n).type)]
                self._texts = self._open(kept_once)
            table = self._texts.read([column], use_threads=False)
            return [value for chunk in table.column(0).chunks for value in _listed(chunk)]
        except BadImage as bad:
            raise DatasetError(
                f"{self.path}: the column {column!r} {bad.reason}.", path=self.path
            ) from bad
        except Exception as error:
            raise DatasetError(
                f"{self.path}: the column {column!r} cannot be read: {first_line(error, 200)}.",
                path=self.path,
            ) from error

    def close(self) -> None:
        """Close what was opened for the columns of numbers and text."""
        self._texts = None

    def named_values(self, column: str) -> list[Any]:
        """Return the values of a column, those of a ``ClassLabel`` as text."""
        names = self.classes.get(column)
        if names is None:
            return self.values(column)
        return named_labels(self.values(column), names)[0] or [None] * len(self)

    def _check_chunks(self, group: int, column: str) -> int:
        """Check all pages of a column in a row group; return their declared size."""
        row_group, total = self._metadata.row_group(group), 0
        for number in self._chunks.get(column, ()):
            chunk = row_group.column(number)
            start = chunk.data_page_offset
            if chunk.dictionary_page_offset:
                start = min(start, chunk.dictionary_page_offset)
            end = start + chunk.total_compressed_size
            if not 0 <= start <= end <= self.size:
                raise BadImage("is damaged: it lies beyond the end of the file")
            check_pages(self.read_at, start, end)
            total += chunk.total_uncompressed_size
        return total

    def read(self, item: int, reserve: Reserve) -> bytes:
        """Return the bytes of the image in a row."""
        group = bisect.bisect_right(self._starts, item) - 1
        try:
            with self._cache.lock:
                cell = self._cell(group, item - self._starts[group])
        except BadImage:
            raise
        except Exception as error:
            raise BadImage(f"could not be loaded: {first_line(error, 200)}") from error
        return bytes_of_cell(cell, reserve, open_paths=False)

    def _cell(self, group: int, row: int) -> Any:
        if group not in self._checked:
            self._checked[group] = None
            try:
                self._check_chunks(group, self.column)
            except BadImage as bad:
                self._checked[group] = bad
        bad_group = self._checked[group]
        if bad_group is not None:
            raise BadImage(bad_group.reason)
        size = self._rows_per_batch(group)
        number = row // size
        batch = self._cache.get((self.path, group, number))
        if batch is None:
            batch = self._unpack(group, number, size)
        return batch[row % size].as_py()

    def _rows_per_batch(self, group: int) -> int:
        total = max(1, int(self._metadata.row_group(group).total_byte_size))
        count = self._starts[group + 1] - self._starts[group]
        return max(1, min(_MAX_ROWS_PER_BATCH, _BATCH_BYTES * count // total))

    def _unpack(self, group: int, number: int, size: int) -> Any:
        """Unpack the batches of a row group up to one, from the last one or from the start."""
        at, last = 0, self._cache.stream
        if last is not None and last[:2] == (self.path, group) and last[2] <= number:
            at, stream = last[2:]
        else:
            stream = self._open([self._leaf]).iter_batches(
                size, row_groups=[group], columns=[self.column], use_threads=False
            )
        self._cache.stream = None  # one at a time: each has its buffers, and an open file
        for following in range(at, number + 1):
            batch = next(stream).column(0)
            self._cache.add((self.path, group, following), batch)
        if number * size + len(batch) < self._starts[group + 1] - self._starts[group]:
            self._cache.stream = (self.path, group, number + 1, stream)
        return batch


def _listed(chunk: Any) -> list[Any]:
    """Return the values of an array; equal texts of a dictionary as one object."""
    if not hasattr(chunk, "dictionary"):
        return list(chunk.to_pylist())
    values = chunk.dictionary.to_pylist()
    return [None if i is None else values[i] for i in chunk.indices.to_pylist()]


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of classes that Hugging Face writes into the metadata of a schema."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = {
            column: feature["names"]
            for column, feature in features.items()
            if feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
    return {
        column: listed for column, listed in names.items()
        if isinstance(listed, list) and listed and all(isinstance(one, str) for one in listed)
    }  # fmt: skip
