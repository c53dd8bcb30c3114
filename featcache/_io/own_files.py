"""Small files of the cache, read as what they should be: regular files of a bounded size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)  # a link may lead to any file of the machine
    | getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait for ever
    | getattr(os, "O_BINARY", 0)
)


def open_own_file(path: Path) -> int:
    """Open a file that this library wrote, for reading; return its handle.

    Raises
    ------
    OSError
        If the system refuses, or with EINVAL if it is a link, a pipe or a device.
    """
    if path.is_symlink():  # also where the system has no flag for it
        raise OSError(errno.EINVAL, "it is a link, which is not followed", str(path))
    handle = os.open(path, _FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    except OSError:
        os.close(handle)
        raise
    return handle


def read_own_file(path: Path, most_bytes: int) -> bytes:
    """Return the bytes of a file that this library wrote.

    Raises
    ------
    OSError
        If the system refuses, or with EINVAL if it is a link, a pipe, a device or larger than
        `most_bytes`: nothing that was written here.
    """
    with open(open_own_file(path), "rb") as file:
        if os.fstat(file.fileno()).st_size > most_bytes:
            raise OSError(errno.EINVAL, f"it is larger than {most_bytes:,} bytes", str(path))
        return file.read(most_bytes + 1)


def whole_number(value: object, least: int, most: int) -> int:
    """Return an integer of a JSON text as it is; raise `ValueError` for anything else.

    True, "256" and 256.0 are no such number: whoever wrote them did not write the rest either.
    """
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{str(value)[:40]!r} is not a whole number from {least} to {most}")
    return value
