"""Checks of the path of a file or folder that a user asks to write."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InvalidRequest
from .paths import absolute_path


def check_new_path(path: str | os.PathLike[str], *, overwrite: bool, folder: bool = False) -> Path:
    """Return the absolute path of something to write.

    Parameters
    ----------
    path : path
    overwrite : bool
        Whether an existing file or folder may be replaced.
    folder : bool
        Whether a folder is written, and not a file.

    Raises
    ------
    InvalidRequest
        If there is something that may not be replaced, or that is of the other kind.
    """
    if "\0" in os.fspath(path):
        raise InvalidRequest(
            f"{os.fspath(path)!r} cannot be the path of a file: it holds a null character.",
            received=os.fspath(path),
        )
    target = absolute_path(path)
    if not os.path.lexists(target):
        return target
    if not overwrite:
        raise InvalidRequest(
            f"{target} exists and is not overwritten; choose another path, or pass overwrite=True "
            "(--overwrite).",
            received=str(target),
        )
    if target.is_dir() and not folder:
        raise InvalidRequest(f"{target} is a folder; name a file.", received=str(target))
    if folder and not target.is_dir():
        raise InvalidRequest(f"{target} is a file; name a folder.", received=str(target))
    return target
