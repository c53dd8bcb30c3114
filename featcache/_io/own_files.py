"""Read files of the cache: regular files of a bounded size, never links, pipes or devices."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)  # a link may lead to any file of the machine
    | getattr(os, "O_NONBLOCK", 0)  # opening a pipe would block forever
    | getattr(os, "O_BINARY", 0)
)


def open_own_file(path: Path) -> int:
    """Open a file that this library wrote, for reading, and return its descriptor.

    Raises
    ------
    OSError
        If the system refuses, or with EINVAL if it is a link, a pipe or a device.
    """
    if path.is_symlink():  # also on systems without O_NOFOLLOW
        raise OSError(errno.EINVAL, "it is a link, which is not followed", str(path))
    handle = os.open(path, _FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    except OSError:
        os.close(handle)
        raise
    return handle


def read_own_file(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a file that this library wrote.

    Raises
    ------
    OSError
        If the system refuses, or with EINVAL if it is a link, a pipe, a device or larger than
        `max_bytes`: this library writes no such file.
    """
    with open(open_own_file(path), "rb") as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise OSError(errno.EINVAL, f"it is larger than {max_bytes:,} bytes", str(path))
        return file.read(max_bytes + 1)


def check_integer(value: object, minimum: int, maximum: int) -> int:
    """Return a value of parsed JSON if it is an integer in a range; else raise `ValueError`.

    True, "256" and 256.0 are refused: this library never writes them for an integer.
    """
    if type(value) is not int or not minimum <= value <= maximum:
        raise ValueError(f"{str(value)[:40]!r} is not an integer from {minimum} to {maximum}")
    return value
