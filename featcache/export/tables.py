"""Files that need no further package: CSV, .npy with a CSV beside it, and .npz."""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .._io.atomic import open_atomic
from ..printable import printable
from .rows import Column, ExportedRows
from .text import write_table

_NPZ_NAMES = {"path": "paths", "id": "ids", "view": "views"}
_NPZ_OWN = ("X", "y", "classes", "metadata", *_NPZ_NAMES.values())
_TYPES = {"int": np.int64, "bool": np.bool_, "float": np.float64}
_BLOCK_ROWS = 2**14


def sidecar_of(path: Path) -> Path:
    """Return the path of the CSV file beside a .npy file.

    Not the same name with .csv, which may be the table that the data set was read from.
    """
    return path.with_suffix(".rows.csv")


def write_csv(rows: ExportedRows, path: Path) -> None:
    """Write one line per row: its columns, then its embedding in columns f0, f1, ..."""
    names = [f"f{i}" for i in range(rows.width)]
    rows.check_names(names)
    with open_text(path) as file:
        header = [*(column.name for column in rows.columns), *names]
        write_table(file, header, _lines(rows))


def write_npy(rows: ExportedRows, path: Path) -> None:
    """Write the embeddings as .npy, and the columns as a CSV file beside it.

    The CSV file is renamed first, so that each new matrix has its columns beside it.
    """
    with _open_buffered(path) as file:
        _write_header(file, rows.X.dtype, rows.X.shape)
        for block in rows.blocks():
            file.write(rows.read(block).tobytes())
        with open_text(sidecar_of(path)) as table:
            header = [column.name for column in rows.columns]
            write_table(table, header, zip(*(c.values for c in rows.columns), strict=True))


def write_npz(rows: ExportedRows, path: Path) -> None:
    """Write arrays X, y, classes, paths, ids and one for each further column, without pickle."""
    columns = [column for column in rows.columns if column.name != "label"]
    given = [c for c in columns if c.name not in _NPZ_NAMES]
    names = [_NPZ_NAMES.get(column.name) or _member_name(column.name) for column in columns]
    # Two names that differ in characters alone that a member of an archive cannot have.
    unique = ExportedRows(rows.X, [Column(name, "text", ()) for name in names])
    ExportedRows(unique.X, [Column(_member_name(c.name), "text", ()) for c in given]).check_names(
        _NPZ_OWN
    )
    with _open_buffered(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with _member(archive, "X") as member:
            _write_header(member, rows.X.dtype, rows.X.shape)
            for block in rows.blocks():
                member.write(rows.read(block).tobytes())
        if rows.codes is not None and rows.classes is not None:
            _write_array(archive, "y", rows.codes)
            _write_column(archive, "classes", rows.classes)
        for name, column in zip(names, columns, strict=True):
            _write_column(archive, name, column)
        _write_array(archive, "metadata", np.array([f"{k}={v}" for k, v in rows.metadata.items()]))


def _lines(rows: ExportedRows) -> Iterator[list[Any]]:
    for block in rows.blocks():
        # As NumPy writes a float32: the fewest digits that give the same number again.
        values = rows.read(block).astype("U32")
        columns = [column.values[block] for column in rows.columns]
        for i, embedding in enumerate(values.tolist()):
            yield [*(column[i] for column in columns), *embedding]


def _member_name(name: str) -> str:
    """Return a name for an array: without separators, which unpacking would make folders of."""
    return re.sub(r"[/\\:]", "_", printable(name)).lstrip(".") or "_"


def _write_column(archive: zipfile.ZipFile, name: str, column: Column) -> None:
    """Write a column; text in blocks, since an array of it takes four bytes per character."""
    values = column.values
    if column.kind != "text":
        missing = any(value is None for value in values)
        kind = np.float64 if missing else _TYPES[column.kind]
        _write_array(archive, name, np.array([np.nan if v is None else v for v in values], kind))
        return
    width = max((len(value) for value in values if value is not None), default=0)
    dtype = np.dtype(f"<U{max(1, width)}")
    with _member(archive, name) as member:
        _write_header(member, dtype, (len(values),))
        for start in range(0, len(values), _BLOCK_ROWS):
            block = [value or "" for value in values[start : start + _BLOCK_ROWS]]
            member.write(np.array(block, dtype).tobytes())


def _write_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with _member(archive, name) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # A fixed date, so that the same rows give the same bytes.
    info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
    return archive.open(info, "w", force_zip64=True)


def _write_header(file: IO[bytes], dtype: np.dtype[Any], shape: Sequence[int]) -> None:
    described = {
        "descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)
    }  # fmt: skip
    np.lib.format.write_array_header_1_0(file, described)


@contextlib.contextmanager
def _open_buffered(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing; it takes the place of `path` when the block ends."""
    with open_atomic(path, description="the exported file") as raw:
        buffered = io.BufferedWriter(raw, 2**20)
        yield buffered
        buffered.flush()
        buffered.detach()  # `open_atomic` syncs and closes the file


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open a file of UTF-8 text for writing; it takes the place of `path` when the block ends."""
    with _open_buffered(path) as buffered:
        text = io.TextIOWrapper(buffered, "utf-8", newline="")
        yield text
        text.detach()
