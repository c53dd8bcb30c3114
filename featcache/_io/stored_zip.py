"""Zip archives from elsewhere whose members are stored as they are, as ours and Keras' are."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any


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


class StoredMember(io.RawIOBase):
    """A stored member of an archive, as a file of its own.

    That of `zipfile` reads from the member's start again whenever it seeks back: HDF5, which
    seeks all the time, would read a file of 800 MB a hundred times over.

    Parameters
    ----------
    file : binary file
        The archive; it stays open as long as this is used.
    member : ZipInfo
        As `check_stored` let through.

    Raises
    ------
    ValueError
        If the archive ends before the member does.
    """

    def __init__(self, file: IO[bytes], member: zipfile.ZipInfo) -> None:
        self._file, self._size, self._place = file, member.file_size, 0
        file.seek(member.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4).ljust(4, b"\0"))
        self._start = member.header_offset + 30 + name + extra
        if file.seek(0, os.SEEK_END) < self._start + self._size:
            raise ValueError(f"{member.filename!r} ends after the archive")

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place, counted from the start, from here or from the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the member goes; return how many bytes that are."""
        count = min(len(buffer), max(0, self._size - self._place))
        self._file.seek(self._start + self._place)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
