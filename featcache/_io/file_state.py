"""What tells a changed file from an unchanged one without reading it."""

from __future__ import annotations

import os
from typing import NamedTuple

# A file changed this shortly before it was read may change again within one tick of the
# clock, with the same size and times; its state does not stand for what was read.
_RACY_NS = 2_000_000_000


class FileState(NamedTuple):
    """What a `stat` tells of a file; while it is the same, so is the content.

    But for writes through a memory map: their time is noted when the page becomes writable or
    when it is written back, on some file systems never.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def file_state(status: os.stat_result) -> FileState:
    """Pick the fields of a `stat` result that tell a changed file from an unchanged one."""
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def is_settled(state: FileState, read_at_ns: int) -> bool:
    """Tell whether any change since a file was read shows in its state."""
    return max(state.mtime_ns, state.ctime_ns) < read_at_ns - _RACY_NS
