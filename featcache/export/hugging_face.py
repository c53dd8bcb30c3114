"""Folders that `datasets.load_from_disk` opens, by the package datasets of Hugging Face."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .._io.atomic import make_write_error, open_folder_atomic, temporary_path
from .._io.wording import install_hint
from ..errors import FeatcacheError, InvalidRequest, MissingExtra
from .parquet import EMBEDDING, table_of
from .rows import ExportedRows

_FILES = re.compile(r"dataset_info\.json|state\.json|data-\d+-of-\d+\.arrow")
_DTYPES = {"int": "int64", "float": "float64", "bool": "bool", "text": "string"}


def import_datasets() -> Any:
    """Import the package datasets, or raise `MissingExtra`."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(
            f"A folder for Hugging Face needs the package datasets: {install_hint('datasets')}.",
            package="datasets",
        ) from error
    return datasets


def check_replaceable(folder: Path) -> None:
    """Raise `InvalidRequest` unless a folder holds nothing but what `write_folder` writes."""
    if folder.is_symlink() or not folder.is_dir():
        raise InvalidRequest(
            f"{folder} is not a folder, so it cannot be replaced by one; choose another path.",
            received=str(folder),
        )
    others = sorted(name for name in os.listdir(folder) if not _FILES.fullmatch(name))
    if others:
        raise InvalidRequest(
            f"{folder} holds {others[0]!r}, which is not part of a saved data set, so the folder "
            "is not replaced; choose another path.",
            received=str(folder),
        )


def write_folder(rows: ExportedRows, path: Path) -> None:
    """Write a `datasets.Dataset`, with the labels as a ClassLabel."""
    datasets = import_datasets()
    import pyarrow as pa
    from datasets.arrow_writer import ArrowWriter

    rows.check_names([EMBEDDING])
    if not len(rows):
        raise InvalidRequest(
            "There are no rows to export: datasets.load_from_disk cannot open a data set without "
            "any. Select at least one row.",
            received=0,
        )
    features = _features(datasets, rows)
    replaced = _label_codes(rows)
    arrow = temporary_path(path.parent)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_write_errors(path))
        stack.enter_context(_no_progress_bars(datasets))
        stack.callback(arrow.unlink, missing_ok=True)
        with ArrowWriter(features=features, path=str(arrow)) as writer:
            for block in rows.blocks():
                more = {name: values[block] for name, values in replaced.items()}
                writer.write_table(table_of(pa, rows, block, features.arrow_schema, more))
            writer.finalize()
        text = "\n".join(f"{name}: {value}" for name, value in rows.metadata.items())
        info = datasets.DatasetInfo(features=features, description=f"Embeddings.\n{text}")
        saved = datasets.Dataset.from_file(str(arrow), info=info)
        with open_folder_atomic(path, replace=True) as work:
            saved.save_to_disk(str(work))


def _features(datasets: Any, rows: ExportedRows) -> Any:
    value = datasets.Value
    columns = {column.name: value(_DTYPES[column.kind]) for column in rows.columns}
    if rows.classes is not None:
        columns["label"] = datasets.ClassLabel(names=[str(name) for name in rows.classes.values])
    embedding = value(np.dtype(rows.X.dtype).name)
    columns[EMBEDDING] = datasets.Sequence(embedding, length=rows.width)
    return datasets.Features(columns)


def _label_codes(rows: ExportedRows) -> dict[str, Any]:
    if rows.codes is None:
        return {}
    return {"label": [None if np.isnan(code) else int(code) for code in rows.codes]}


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FeatcacheError:
        raise
    except OSError as error:
        raise make_write_error(error, path, "the data set") from error


@contextlib.contextmanager
def _no_progress_bars(datasets: Any) -> Iterator[None]:
    enabled = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if enabled:
            datasets.enable_progress_bars()
