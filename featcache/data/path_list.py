"""Lists of images: absolute paths, their common folder, and URLs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .._io.paths import absolute_path
from ..errors import DatasetError
from .dataset import Dataset
from .labels import is_missing
from .remote import remote_source
from .urls import check_url, is_url


def from_paths(paths: Iterable[Any], labels: Any = None) -> Dataset:
    """Return a `Dataset` of a list of image files."""
    absolute = absolute_paths(paths, "", "the list of paths")
    if not absolute:
        raise DatasetError("The list of paths is empty; name at least one image.")
    source = remote_source(absolute)
    if source is not None:
        return Dataset(source.names, labels, images=source)
    return Dataset(
        paths=absolute,
        labels=labels,
        root=common_root(absolute),
        name=Path(common_root(absolute)).name or "images",
    )


def absolute_paths(paths: Iterable[Any], base: str | os.PathLike[str], source: str) -> list[str]:
    """Return absolute paths and URLs; raise `DatasetError` with the row of a missing one."""
    found = []
    for row, path in enumerate(paths, start=1):
        is_path = isinstance(path, (str, os.PathLike))
        if not is_path or is_missing(str(path)):
            raise DatasetError(
                f"{source}: the path of row {row} is {_fault(path)}", row=row, received=path
            )
        if is_url(path):
            found.append(check_url(str(path)))
            continue
        found.append(str(absolute_path(path, base)))
    return found


def _fault(value: Any) -> str:
    """Return what is wrong with a value that is no path, and what to do."""
    remedy = "Give each row the path of its image, or leave the row out."
    if isinstance(value, (str, os.PathLike)) or is_missing(value):
        return f"empty. {remedy}"
    if isinstance(value, (bytes, np.ndarray, Mapping, Image.Image)):
        return (  # without its value, which may be long
            f"of type {type(value).__name__}, which is not a path. Images themselves are passed "
            "as a list, with their labels as labels=."
        )
    return f"{value!r}, which is not a path. {remedy}"


def common_root(paths: Sequence[str]) -> str:
    """Return the folder that contains all files; "" if they lie on different drives."""
    folders = {os.path.dirname(path) for path in paths}
    try:
        return os.path.commonpath(folders)
    except ValueError:  # different drives
        return ""
