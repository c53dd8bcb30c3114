"""Parquet files, by the package pyarrow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._io.atomic import open_atomic, write_all
from .._io.wording import install_hint
from ..errors import MissingExtra
from .rows import Column, ExportedRows

EMBEDDING = "embedding"


class _Sink:
    """A file for pyarrow, which would take a short write for a complete one."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.closed = False

    def write(self, data: Any) -> int:
        """Write all of `data`."""
        write_all(self._file, memoryview(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: the file is not buffered."""

    def tell(self) -> int:
        """Return the position in the file."""
        return int(self._file.tell())

    def close(self) -> None:
        """Do nothing: `open_atomic` syncs and closes the file."""
        self.closed = True


def import_pyarrow() -> Any:
    """Import pyarrow, or raise `MissingExtra`."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(
            f"Parquet files need pyarrow: {install_hint('parquet')}.", package="pyarrow"
        ) from error
    return pyarrow


def write_parquet(rows: ExportedRows, path: Path) -> None:
    """Write one row group per block of rows; embeddings are lists of a fixed size."""
    pa = import_pyarrow()
    rows.check_names([EMBEDDING])
    types = {column.name: _type_of(pa, column) for column in rows.columns}
    types[EMBEDDING] = pa.list_(pa.from_numpy_dtype(rows.X.dtype), rows.width)
    schema = pa.schema(types, metadata=dict(rows.metadata))
    with open_atomic(path, description="the Parquet file") as file:
        sink = pa.PythonFile(_Sink(file), mode="w")
        text = [column.name for column in rows.columns if column.kind == "text"]
        with pa.parquet.ParquetWriter(sink, schema, use_dictionary=text) as writer:
            for block in rows.blocks():
                writer.write_table(table_of(pa, rows, block, schema), block.stop - block.start)


def table_of(
    pa: Any, rows: ExportedRows, block: slice, schema: Any, more: Mapping[str, Any] | None = None
) -> Any:
    """Return the pyarrow table of a block of rows.

    Parameters
    ----------
    pa : module
    rows : ExportedRows
    block : slice
    schema : pyarrow.Schema
    more : mapping of str to sequence, optional
        Values in place of those of the column of that name.
    """
    values = {column.name: column.values[block] for column in rows.columns} | dict(more or {})
    arrays = {
        name: pa.array(values[name], schema.field(name).type) for name in schema.names
        if name != EMBEDDING
    }  # fmt: skip
    flat = pa.array(rows.read(block).ravel())
    arrays[EMBEDDING] = pa.FixedSizeListArray.from_arrays(flat, rows.width)
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def _type_of(pa: Any, column: Column) -> Any:
    types = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "text": pa.string()}
    return types[column.kind]
