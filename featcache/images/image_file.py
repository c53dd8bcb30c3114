"""A photo's file, read whole, and what identifies the photo: the hash of its bytes."""

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
# Left, top, right and bottom edge in pixels of the upright image; right and bottom are outside.
Box = tuple[int, int, int, int]


class BadImage(Exception):
    """An image cannot be used; the message is the reason that its quarantine entry gives.

    Parameters
    ----------
    reason : str
        For people, in one sentence.
    lasting : bool
        Whether the same bytes would fail again. A missing permission is not lasting.
    """

    def __init__(self, reason: str, *, lasting: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lasting = lasting


def read_file(
    path: str | Path, reserve: Callable[[int], None] = lambda _: None
) -> tuple[bytes, FileState]:
    """Read a whole regular file.

    Parameters
    ----------
    path : path
    reserve : callable
        Given the number of bytes before any is read; waits until there is memory for them.

    Returns
    -------
    (bytes, FileState)
        The content, and the state that it was read in.

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
        # A file object would make nine system calls of these five, and let go of the
        # interpreter's lock at each.
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise BadImage("is not a regular file", lasting=False)
        if before.st_size > MAX_BYTES:
            raise BadImage(f"is {before.st_size:,} bytes; the limit is {MAX_BYTES:,}")
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
    """Read a file of that size, and a byte more if it has grown."""
    data = os.read(handle, size + 1)
    # A network's file system may hand over less at once.
    while len(data) < size and (more := os.read(handle, size + 1 - len(data))):
        data += more
    return data


def content_id(data: bytes) -> str:
    """Return an image's identity: the SHA-256 of its file's bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def is_content_id(value: object) -> bool:
    """Tell whether a value, from a file say, has the form of a content id."""
    return isinstance(value, str) and _CONTENT_ID.fullmatch(value) is not None


def example_id(content: str, box: Box | None) -> str:
    """Return the identity of a photo's part: that of the photo and of the box together.

    Parameters
    ----------
    content : str
        The photo's `content_id`.
    box : Box or None
        None means the whole photo, which is known by its content alone.

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
    """Return the `example_id` of each photo and box; "" stays "" for what cannot be read.

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
    """Read a file whose content must still be the one that was planned for.

    The bytes that are returned are the bytes that were hashed: no state of a file, whatever
    it holds, tells that a program which maps it into its memory has not changed it.

    Parameters
    ----------
    path : path
    expected_id : str
        The `content_id` that it must have.
    reserve : callable
        As for `read_file`.

    Raises
    ------
    BadImage
        As `read_file`, and if the content is another one.
    """
    data, _ = read_file(path, reserve)
    if content_id(data) != expected_id:
        raise BadImage("was replaced since it was listed; run again", lasting=False)
    return data


def reason_of(error: BaseException) -> str:
    """Return what an exception says, as the end of a sentence."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)
