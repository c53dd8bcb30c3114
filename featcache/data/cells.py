"""Images in the cells of tables: the content of a file, or a path, as Hugging Face stores them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .._io.logs import get_logger
from ..errors import DatasetError
from ..images.image_file import BadImage, read_file
from .elements import IMAGE_KEYS, LABEL_KEYS
from .memory import copy_bytes
from .sources import Reserve, no_limit

log = get_logger(__name__)

# Further columns of such names would be confused with those of a data set.
RESERVED = frozenset({"boxes", "ids", "images", "label", "labels", "path", "paths", "split"})


def bytes_of_cell(cell: Any, reserve: Reserve = no_limit, *, open_paths: bool = True) -> bytes:
    """Return the content of the file in a cell.

    Parameters
    ----------
    cell : bytes or mapping
        Bytes, or ``{"bytes": ..., "path": ...}``, of which one may be None. If there are no
        bytes, the local file of that path is read.
    reserve : callable
        As for `ImageSource.read`.
    open_paths : bool
        False for cells of a file from elsewhere, which could name any file of this machine.

    Raises
    ------
    BadImage
        If the cell is empty, holds something else, or the file cannot be read.
    """
    data, path = cell, None
    if isinstance(cell, Mapping):
        data, path = cell.get("bytes"), cell.get("path")
    if isinstance(data, (bytes, memoryview)):
        return copy_bytes(data, reserve)
    if data is None and path is None:
        raise BadImage("is missing: the cell is empty")
    if data is None and not open_paths:
        raise BadImage("has no bytes but a path, which is not opened: a file could name any other")
    if data is None and isinstance(path, str):
        if not os.path.isabs(path):
            raise BadImage("has no bytes, and its path is not that of a local file", lasting=False)
        return read_file(path, reserve)[0]
    raise BadImage(f"is {type(data).__name__}; expected the bytes of a file")


def warn_of_unread_labels(types: Mapping[str, object], source: str) -> None:
    """Log columns whose names say labels, but whose type is not one of a label per image.

    Parameters
    ----------
    types : mapping
        Name and type of each column of data without labels.
    source : str
        What has these columns.
    """
    for name in LABEL_KEYS:
        if name in types:
            log.warning(
                "%s: the column %r is of type %s, not one label per image, and is not "
                "read. For one-hot rows, make a column of their classes.",
                source, name, types[name],
            )  # fmt: skip


def choose_column(names: Sequence[str], candidates: Sequence[str], what: str) -> str | None:
    """Return the only candidate, or the only one with a usual name; None without a candidate.

    Parameters
    ----------
    names : sequence of str
        All columns, for the message.
    candidates : sequence of str
        Columns of a type that fits.
    what : {"image", "label"}

    Raises
    ------
    DatasetError
        If several columns may be meant.

    Examples
    --------
    >>> choose_column(["image", "mask"], ["image", "mask"], "image")
    'image'
    """
    usual = [name for name in candidates if name in (*IMAGE_KEYS, *LABEL_KEYS)]
    if len(candidates) == 1 or len(usual) == 1:
        return usual[0] if usual else candidates[0]
    if not candidates:
        return None
    raise DatasetError(
        f"Several columns may have the {what}s: {', '.join(map(repr, usual or candidates))}. "
        f"Rename the one to use to {what!r}, and the others to something else or remove them.",
        received=list(candidates),
        expected=what,
    )
