"""Reading of image files, and the ids of images: the hash of their bytes."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from .._io.file_state import FileState, file_state
from .._io.own_files import open_to_read
from .._io.wording import first_line

MAX_BYTES = 512 * 2**20
_CONTENT_ID = re.compile(r"[0-9a-f]{64}")
# Left, top, right and bottom edge in pixels of the upright image; right and bottom are exclusive.
Box = tuple[int, int, int, int]


class BadImage(Exception):
    """An image cannot be used; the message is the reason, as stored in its quarantine entry.

    Parameters
    ----------
    reason : str
        Human-readable, continuing a sentence about the file, such as "is not a regular file".
    lasting : bool
        Whether the same bytes would fail again: False for a missing permission, for example.
    """

    def __init__(self, reason: str, *, lasting: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lasting = lasting


def read_file(
    path: str | Path, reserve: Callable[[int], None] = lambda _: None
) -> tuple[bytes, FileState]:
    """Read a regular file completely.

    Parameters
    ----------
    path : path
    reserve : callable
        Called with the size in bytes before reading; blocks until that memory is available.

    Returns
    -------
    (bytes, FileState)
        The content, and the file's state when it was read.

    Raises
    ------
    BadImage
        Not a regular file (opening a pipe would wait forever), unreadable, too large, or
        changed while it was read.
    """
    try:
        handle = open_to_read(path)
    except (OSError, ValueError) as error:
        raise BadImage(f"cannot be opened: {reason_of(error)}", lasting=False) from error
    try:
        # A file object would make nine system calls instead of five, and release the GIL at each.
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise BadImage("is not a regular file", lasting=False)
        check_size(before.st_size)
        reserve(before.st_size)
        data = _read(handle, before.st_size)
        after = file_state(os.fstat(handle))
    except OSError as error:
        raise BadImage(f"cannot be read: {reason_of(error)}", lasting=False) from error
    finally:
        os.close(handle)
    if after != file_state(before) or len(data) != after.size:
        raise BadImage("changed while it was being read", lasting=False)
    return data, after


def _read(handle: int, size: int) -> bytes:
    """Return up to `size` + 1 bytes: one more than the size reveals that the file has grown."""
    data = os.read(handle, size + 1)
    # A network file system may return fewer bytes per call.
    while len(data) < size and (more := os.read(handle, size + 1 - len(data))):
        data += more
    return data


def check_size(size: int) -> None:
    """Raise `BadImage` if the number of bytes of an image exceeds the limit."""
    if size > MAX_BYTES:
        raise BadImage(f"is {size:,} bytes; the limit is {MAX_BYTES:,}")


def content_id(data: bytes) -> str:
    """Return the image id of a file's bytes: SHA-256, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def is_content_id(value: object) -> bool:
    """Return whether an untrusted value has the form of an image id."""
    return isinstance(value, str) and _CONTENT_ID.fullmatch(value) is not None


def example_id(content: str, box: Box | None) -> str:
    """Return the example id of an image and a box.

    Parameters
    ----------
    content : str
        The image id.
    box : (int, int, int, int) or None
        None means the whole image, whose example id is its image id.

    Examples
    --------
    >>> example_id("ab" * 32, None) == "ab" * 32
    True
    >>> example_id("ab" * 32, (0, 0, 8, 8))[:8]
    'b8985dc7'
    """
    if box is None:
        return content
    edges = ",".join(str(int(edge)) for edge in box)
    return hashlib.sha256(f"featcache-box-1:{content}:{edges}".encode()).hexdigest()


def example_ids(contents: Sequence[str], boxes: Sequence[Box | None] | None) -> list[str]:
    """Return the example id of each image and box.

    Parameters
    ----------
    contents : sequence of str
        Image ids; "" for a file that cannot be read.
    boxes : sequence of ((int, int, int, int) or None), or None
        Box of each image, None for a whole image. None: whole images only.

    Returns
    -------
    list of str
        64 hexadecimal digits each; "" where the image id is "".

    Examples
    --------
    >>> example_ids(["ab" * 32, ""], None) == ["ab" * 32, ""]
    True
    """
    if boxes is None:
        return list(contents)
    pairs = zip(contents, boxes, strict=True)
    return [example_id(content, box) if content else "" for content, box in pairs]


def read_expected(
    path: str | Path, expected_id: str, reserve: Callable[[int], None] = lambda _: None
) -> bytes:
    """Read a file that must have a given image id.

    The returned bytes are the ones that were hashed: the state of a file does not reveal changes
    through a memory map.

    Parameters
    ----------
    path : path
    expected_id : str
        The image id that the file must have.
    reserve : callable
        As for `read_file`.

    Raises
    ------
    BadImage
        As `read_file`, and if the file has another id.
    """
    return check_content(read_file(path, reserve)[0], expected_id)


def check_content(data: bytes, expected_id: str) -> bytes:
    """Return bytes that must have a given image id; raise `BadImage` if they have another."""
    if content_id(data) != expected_id:
        raise BadImage("was replaced since it was listed; run again", lasting=False)
    return data


def reason_of(error: BaseException) -> str:
    """Return what an exception says, as the end of a sentence."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)
