"""Space that folders take on the disk, and space that is free there."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from ..errors import StoreWriteError


def folder_bytes(folder: Path) -> int:
    """Return the size of the files directly in a folder; files removed during the call count 0."""
    total = 0
    for file in folder.iterdir():
        with contextlib.suppress(OSError):  # merged or removed by another process
            total += file.stat().st_size if file.is_file() else 0
    return total


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk of a folder, which need not exist yet."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def check_free_bytes(folder: Path, needed: int, what: str, advice: str) -> None:
    """Raise `StoreWriteError` if the disk of a folder has less free space than is needed.

    Parameters
    ----------
    folder : Path
    needed : int
    what : str
        Subject of the message, with its verb: ``"Stanford Dogs needs"``.
    advice : str
        What to do, as a sentence.
    """
    free = free_bytes(folder)
    if free < needed:
        raise StoreWriteError(
            f"{what} {needed / 1e9:,.1f} GB at {folder}, which has {free / 1e9:,.1f} GB free. "
            f"{advice}",
            path=folder,
        )
