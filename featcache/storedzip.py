"""Zip archives from elsewhere whose members are stored as they are, as ours and Keras' are."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path


def check_plain(path: Path) -> None:
    """Raise `ValueError` for a pipe or device, which could be waited for, or read, for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is not a plain file")


def check_stored(archive: zipfile.ZipFile, path: Path, needed: Iterable[str]) -> None:
    """Make sure that reading an archive costs no more than its file has bytes.

    Parameters
    ----------
    archive : ZipFile
        Open for reading.
    path : Path
        Its file.
    needed : iterable of str
        Members that have to be there.

    Raises
    ------
    ValueError
        If a member is compressed, encrypted, there twice, missing, or larger than the file.
    """
    size = os.stat(path).st_size
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise ValueError("a name occurs twice")
    missing = sorted(set(needed) - set(names))
    if missing:
        raise ValueError(f"it has no {missing[0]}")
    for member in members:
        # Stored as they are: what claims to be larger than the file is a bomb.
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise ValueError(f"{member.filename!r} is compressed or encrypted")
        if member.file_size > size or member.file_size != member.compress_size:
            raise ValueError(f"{member.filename!r} claims {member.file_size:,} bytes")
