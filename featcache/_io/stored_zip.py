"""Safe reading of zip archives with uncompressed members, as featcache and Keras write them."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any


def check_regular_file(path: Path) -> None:
    """Raise `ValueError` for a pipe or a device: reading it might never end."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is not a regular file")


def check_stored(archive: zipfile.ZipFile, path: Path, needed: Iterable[str]) -> None:
    """Check that the members of an archive are uncompressed and no larger than its file.

    Parameters
    ----------
    archive : ZipFile
        Open for reading.
    path : Path
        The file of the archive.
    needed : iterable of str
        Names of required members.

    Raises
    ------
    ValueError
        If a member is compressed, encrypted, duplicated, missing, or larger than the file.
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
        # A stored member that declares more bytes than the file has would exhaust the memory.
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise ValueError(f"{member.filename!r} is compressed or encrypted")
        if member.file_size > size or member.file_size != member.compress_size:
            raise ValueError(f"{member.filename!r} declares {member.file_size:,} bytes")


class StoredMember(io.RawIOBase):
    """An uncompressed member of a zip archive as a seekable binary file.

    `zipfile` reads a member from its beginning again whenever it seeks backwards: HDF5, which
    seeks all the time, would read a file of 800 MB a hundred times over.

    Parameters
    ----------
    file : binary file
        The archive; must stay open while this object is used.
    member : ZipInfo
        A member that `check_stored` accepts.

    Raises
    ------
    ValueError
        If the archive ends before the member does.
    """

    def __init__(self, file: IO[bytes], member: zipfile.ZipInfo) -> None:
        self._file, self._size, self._position = file, member.file_size, 0
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
        """Move to an offset from the start, the current position or the end; return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return the number of bytes read, 0 at the end of the member."""
        count = min(len(buffer), max(0, self._size - self._position))
        self._file.seek(self._start + self._position)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
