"""Construction of a `Dataset` from a folder, a table or a list, without decoding images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._io.cache_dirs import cache_folder, spool_folder
from .._io.paths import absolute_path
from ..errors import DatasetError, DatasetNotFound
from ..images.formats import looks_like_image
from .archive import expand_braces, from_archives, is_archive
from .boxes import Crop, cropped
from .dataset import Dataset
from .folder import from_folder
from .huggingface import from_hugging_face
from .labels import is_missing
from .memory import (
    MemorySource,
    ValueRange,
    check_value_range,
    images_of_array,
    is_array,
    is_image_in_memory,
)
from .parquet import from_parquet, is_parquet
from .path_list import from_paths
from .pipelines import from_pipeline
from .remote import from_url
from .tables import (
    COLUMNS_REASON,
    FIND,
    TableColumns,
    from_csv,
    from_frame,
    is_table,
    is_table_file,
)
from .urls import is_url

LABELS_REASON = "labels= goes with an array or a list of images; other data bring their own."


def describe(
    data: Any,
    labels: Iterable[object] | None = None,
    *,
    crop: Crop | None = None,
    margin: float = 0.0,
    value_range: ValueRange | None = None,
    columns: TableColumns = FIND,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Return a `Dataset` as `featcache.load_dataset` does, except for names of data sets."""
    black_white = check_value_range(value_range)
    if not columns.given and not isinstance(data, (Dataset, list, tuple, str, os.PathLike)):
        folder = spool_folder(cache_folder(cache_dir))
        found = from_hugging_face(data, labels, black_white, folder)
        if found is None:
            found = from_pipeline(data, labels, black_white, folder)
        if found is not None:
            return cropped(found, crop, margin)
    if labels is not None and not (is_array(data) or _is_list(data)):
        raise DatasetError(LABELS_REASON)
    if columns.given:
        return cropped(_from_table(data, columns), crop, margin)
    return cropped(_load(data, labels, black_white), crop, margin)


def _from_table(data: Any, columns: TableColumns) -> Dataset:
    """Return a `Dataset` of a table some of whose columns were named."""
    if is_table(data):
        return from_frame(data, columns)
    path = absolute_path(data) if isinstance(data, (str, os.PathLike)) else None
    if path is None or not is_table_file(path):
        raise DatasetError(COLUMNS_REASON)
    return from_csv(path, columns)


def _load(data: Any, labels: Iterable[object] | None, value_range: ValueRange | None) -> Dataset:
    if isinstance(data, Dataset):
        return data
    if isinstance(data, (str, os.PathLike)):
        if is_url(data):
            return from_url(str(data))
        path = absolute_path(data)
        if path.is_dir():
            return from_folder(path)
        shards = [] if path.exists() else expand_braces(str(data))
        if len(shards) > 1:
            return _from_list(shards, labels, value_range)
        if path.is_file() and is_archive(path):
            return from_archives([path])
        if path.is_file() and is_table_file(path):
            return from_csv(path)
        if path.is_file() and is_parquet(path):
            return from_parquet([path])
        if path.is_file() and looks_like_image(path):
            return from_paths([path])
        if path.is_file():
            raise DatasetError(
                f"{path} is neither a folder, nor a CSV file, nor an image, nor an archive or a "
                f"Parquet file. {_advice(path)}",
                received=str(path),
            )
        if path.exists():
            raise DatasetError(f"{path} is not a regular file.", received=str(path))
        raise DatasetNotFound(_not_found(path), received=str(path))
    if is_table(data):
        return from_frame(data)
    paths = _paths_of_column(data)
    if paths is not None:
        return _from_list(paths, labels, value_range)
    if is_array(data):
        return _from_memory(images_of_array(data, value_range), labels, value_range)
    if _is_list(data):
        return _from_list(list(data), labels, value_range)
    hint = " One image is a list of one: [x]." if is_image_in_memory(data) else ""
    raise DatasetError(
        f"Images can be a folder, a table, an archive, an array (n, h, w, 3), a pipeline, or a "
        f"list of paths, arrays, PIL images or bytes, not {type(data).__name__}.{hint}",
        received=type(data).__name__,
    )


def _paths_of_column(data: Any) -> list[Any] | None:
    """Return the paths in an array or a column of a table; None if it holds anything else."""
    if not is_array(data) or len(data.shape) != 1:
        return None
    items = np.asarray(data).tolist()
    only_paths = all(isinstance(item, (str, os.PathLike)) or is_missing(item) for item in items)
    return items if items and only_paths else None


def holds_several_images(item: object) -> bool:
    """Return whether an item is the path of an archive or a Parquet file, by its ending."""
    return (is_archive(item) or is_parquet(item)) and not is_url(item)


def are_containers(items: Sequence[object]) -> bool:
    """Return whether all items are archives, or all Parquet files.

    Such a list stands for the images in them, so that its length is not the number of images.
    """
    if not items or any(map(is_url, items)):
        return False
    return all(map(is_archive, items)) or all(map(is_parquet, items))


def _from_list(items: list[Any], labels: Any, value_range: ValueRange | None) -> Dataset:
    """Return a `Dataset` of a list of paths, or of images in memory."""
    if are_containers(items):
        if labels is not None:
            raise DatasetError(LABELS_REASON)
        return from_parquet(items) if is_parquet(items[0]) else from_archives(items)
    if items and isinstance(items[0], tuple):
        raise DatasetError(
            "The list holds tuples. Pass the images alone, and the labels as labels=: "
            "extract(..., [image for image, _ in data], labels=[label for _, label in data]).",
            received=type(items[0]).__name__,
        )
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


def _is_list(data: Any) -> bool:
    """Return whether data are a list of paths or images, or another iterable of them."""
    if isinstance(data, (str, os.PathLike, Mapping, Dataset)) or hasattr(data, "columns"):
        return False
    return isinstance(data, Iterable) and not is_image_in_memory(data)


def _advice(path: Path) -> str:
    """Return how images in a file of an unknown ending can be passed."""
    if path.suffix.lower() in (".npy", ".npz"):
        return "Load the array of images with numpy.load, and pass it."
    return "A table needs the ending .csv or .tsv and a column with paths."


def _not_found(path: Path) -> str:
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    names = sorted(p.name for p in parent.iterdir() if p.is_dir())[:8]
    there = f" It has the folders {', '.join(names)}." if names else ""
    return f"{path} does not exist. The nearest folder that does is {parent}.{there}"
