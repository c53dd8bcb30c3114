"""Detect changed files by their size, times and inode, without reading them."""

from __future__ import annotations

import os
from typing import NamedTuple

# A file that changed this shortly before it was read may change again within the resolution of
# its timestamps, with the same size and times: its state does not identify the bytes read.
_RACY_NS = 2_000_000_000


class FileState(NamedTuple):
    """Size, times and inode of a file; equal states mean equal content.

    Writes through a memory map are an exception: they update the time when the page becomes
    writable or is written back, and on some file systems never.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def file_state(status: os.stat_result) -> FileState:
    """Return the fields of a `stat` result that change when the content does."""
    return FileState(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def is_settled(state: FileState, read_at_ns: int) -> bool:
    """Return whether every change since the file was read is visible in its state."""
    return max(state.mtime_ns, state.ctime_ns) < read_at_ns - _RACY_NS
