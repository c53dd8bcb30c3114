"""Small files of the cache, read as what they should be, and the files of a converted model."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

# Opening a pipe would wait for ever.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)

CONVERTED_FILES = ("model.xml", "model.bin")
CONVERTED_SEAL = "seal.json"
_KEYED_FOLDER = re.compile(r"[^.].*-[0-9a-f]{16}")


def open_to_read(path: str | os.PathLike[str], *, follow_links: bool = True) -> int:
    """Open whatever has a name, without waiting for it; return its handle.

    Parameters
    ----------
    path : path
    follow_links : bool
        Off for files of ours, since a link may lead to any file of the machine. On for a
        user's photos, which are often links.

    Raises
    ------
    OSError, ValueError
        If the system refuses, or the name cannot be one.
    """
    return os.open(path, _FLAGS if follow_links else _FLAGS | _NO_LINK)


def open_own_file(path: Path) -> int:
    """Open a file that this library wrote, for reading, and return its descriptor.

    Raises
    ------
    OSError
        If the system refuses, or with EINVAL if it is a link, a pipe or a device.
    """
    if path.is_symlink():  # also on systems without O_NOFOLLOW
        raise OSError(errno.EINVAL, "it is a link, which is not followed", str(path))
    handle = open_to_read(path, follow_links=False)
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


def is_keyed_name(name: str) -> bool:
    """Return whether a name is a backbone and 16 digits of a key, as of stores and models."""
    return _KEYED_FOLDER.fullmatch(name) is not None


def unexpected_converted_files(folder: Path) -> list[str]:
    """Return the sorted names of whatever in a folder is not a file of a converted model."""
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.name not in (*CONVERTED_FILES, CONVERTED_SEAL)
        or not entry.is_file(follow_symlinks=False)
    )


def check_integer(value: object, minimum: int, maximum: int) -> int:
    """Return a value of parsed JSON if it is an integer in a range; else raise `ValueError`.

    True, "256" and 256.0 are refused: this library never writes them for an integer.
    """
    if type(value) is not int or not minimum <= value <= maximum:
        raise ValueError(f"{str(value)[:40]!r} is not an integer from {minimum} to {maximum}")
    return value
