"""Paths as users write them, made absolute."""

from __future__ import annotations

import os
from pathlib import Path


def absolute_path(path: str | os.PathLike[str], base: str | os.PathLike[str] = "") -> Path:
    """Return a path with its user's home filled in and without "..", links as they are.

    A link is not resolved: what it leads to may change, and messages should show the path
    that was given.

    Parameters
    ----------
    path : path
    base : path
        Where a relative path starts. Default: the current folder.

    Examples
    --------
    >>> absolute_path("dogs/../cats", base="/photos").as_posix()
    '/photos/cats'
    """
    return Path(os.path.abspath(os.path.join(base, os.path.expanduser(os.fspath(path)))))
