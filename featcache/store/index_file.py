"""The index file of a store: all rows of many shards in one sorted table on disk.

Opening a store reads the ids of each shard from its sidecar and keeps them in memory. A store of
many shards has an index file as well, so that opening reads only the file's head, and a look-up
one page of its table per row. It holds nothing that the sidecars do not, and can be deleted at any
time.

The file begins with a head: a magic number, the SHA-256 and the length of the rest of the head, the
key and width of the store, the shards (name, size, seconds) and the first key of each page. Pages
of 4,096 bytes follow, each with up to 93 rows (key, number of the shard, row in the shard) and a
CRC-32. A key is the image id and the view as a big-endian number, so that comparing bytes sorts
them. Other numbers are little-endian.

Pages are read with `os.pread` and not mapped into memory: a page that the disk cannot read, or a
file that becomes shorter, is an error there, and would end the process here.

Nothing in the file is believed that decides on a row: declared sizes are compared with the size of
the file, numbers are checked, and a store compares id and view with those in the sidecar of the
shard before it returns a row.
"""

from __future__ import annotations

import hashlib
import os
import struct
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._io.file_state import FileState, file_state
from .._io.own_files import open_own_file
from ..errors import StoreCorrupt
from ..hdf5.shard_name import rows_in_names
from .row_index import IdArray

NAME = "INDEX.bin"
PAGE_BYTES = 4096
ROW = np.dtype([("key", "S36"), ("shard", "<u4"), ("row", "<u4")])
ROWS_PER_PAGE = (PAGE_BYTES - 4) // ROW.itemsize
PAGE = np.dtype([("rows", ROW, ROWS_PER_PAGE), ("crc", "<u4")])

Keys = NDArray[np.bytes_]

_MAGIC = b"featcache-index1"
_START = struct.Struct("<16s32sQ")  # magic number, SHA-256 and length of the rest of the head
_FIELDS = struct.Struct("<32sQQQQ")  # key, width, shards, distinct rows, bytes of the names
_MAX_HEAD_BYTES = 2**31
_MAX_NUMBER = 2**31 - 1
_QUERIES_AT_ONCE = 512
_PAGES_AT_ONCE = 1024
# Rows that are stored twice are rare. Without a limit, a planted file could stop a process.
_MAX_DUPLICATES = 64


class IndexDamaged(StoreCorrupt):
    """An index file is not what was written, or contradicts the shards."""


@dataclass(frozen=True)
class IndexHead:
    """Head of an index file.

    Attributes
    ----------
    key : str
        That of the store's spec.
    width : int
        Length of an embedding.
    names : tuple of str
        The shards whose rows are in the table, sorted.
    sizes : ndarray (shards,), int64
        Bytes of each shard.
    seconds : ndarray (shards,), float64
        Wall time that computing each shard took.
    distinct : int
        Number of different (image, view) pairs.
    fences : ndarray (pages,), S36
        The first key of each page.
    """

    key: str
    width: int
    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    seconds: NDArray[np.float64]
    distinct: int
    fences: Keys

    def encode(self) -> bytes:
        """Return the bytes of the head, padded to whole pages."""
        text = "\n".join(self.names).encode()
        numbers = (self.width, len(self.names), self.distinct, len(text))
        body = b"".join([
            _FIELDS.pack(bytes.fromhex(self.key), *numbers), text,
            self.sizes.astype("<i8").tobytes(), self.seconds.astype("<f8").tobytes(),
            self.fences.tobytes(),
        ])  # fmt: skip
        data = _START.pack(_MAGIC, hashlib.sha256(body).digest(), len(body)) + body
        return data.ljust(_padded(len(data)), b"\0")


def make_keys(ids: IdArray, views: NDArray[np.int32]) -> Keys:
    """Return id and view of each row as bytes that sort like them."""
    keys = np.empty((len(ids), 36), np.uint8)
    keys[:, :32] = ids
    # Without its sign bit, a negative view would come after the others.
    shifted = np.ascontiguousarray(views, np.int32).view(np.uint32) ^ np.uint32(2**31)
    keys[:, 32:] = shifted.astype(">u4").view(np.uint8).reshape(-1, 4)
    return keys.view("S36").ravel()


class IndexFile:
    """An open index file whose head was checked.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    head : IndexHead
    rows : ndarray (shards,), int64
        Number of rows of each shard.
    state : FileState
        Of the open file.

    Raises
    ------
    FileNotFoundError
        If there is none.
    IndexDamaged
        If it cannot be read, or is not as it was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = open_own_file(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self.damage(error.strerror or str(error), error.errno) from error
        weakref.finalize(self, os.close, self._handle)
        self.state: FileState = file_state(os.fstat(self._handle))
        self.head, self.rows = self._read_head()
        self._count = int(self.rows.sum())

    def __len__(self) -> int:
        """Return the number of rows in the table, including duplicates."""
        return self._count

    def damage(self, reason: str, system_errno: int | None = None) -> IndexDamaged:
        """Return the error for a file that is not as it was written, or cannot be opened."""
        return IndexDamaged(
            f"The index {self.path} cannot be used: {reason}. No row is lost: the ids are read "
            "from the shards. `featcache repair` removes the file.",
            path=self.path,
            reason=reason,
            system_errno=system_errno,
        )

    def check_spec(self, key: str, width: int) -> None:
        """Raise `IndexDamaged` unless the file is of a store with this key and width."""
        if (self.head.key, self.head.width) != (key, width):
            raise self.damage("it is of another store")

    def find(
        self, keys: Keys, numbers: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return shard and row of each key, -1 where the table has none in a usable shard.

        Parameters
        ----------
        keys : ndarray (n,), S36
        numbers : ndarray (shards,), int64
            The numbers to return for the shards of the file; -1 for those that are not usable.

        Raises
        ------
        IndexDamaged
            If a page that is read is not as it was written, or contains an impossible number.
        """
        shard, row = np.full(len(keys), -1, np.int64), np.full(len(keys), -1, np.int64)
        last = np.searchsorted(self.head.fences, keys, "right") - 1
        first = np.searchsorted(self.head.fences, keys, "left") - 1
        # The rows of a key may begin at the end of the page before.
        first = np.maximum(np.maximum(first, last - 1), 0)
        order = np.argsort(last, kind="stable")
        order = order[np.searchsorted(last[order], 0) :]  # without those before the first key
        for start in range(0, len(order), _QUERIES_AT_ONCE):
            chosen = order[start : start + _QUERIES_AT_ONCE]
            rows = self._read_pages(np.union1d(first[chosen], last[chosen]))
            number, place = self._find_in(rows, keys[chosen], numbers)
            shard[chosen], row[chosen] = number, place
        return shard, row

    def _find_in(
        self, rows: NDArray[np.void], keys: Keys, numbers: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        shard, row = np.full(len(keys), -1, np.int64), np.full(len(keys), -1, np.int64)
        there = np.ascontiguousarray(rows["key"])
        position = np.searchsorted(there, keys, "left")
        open_ = np.arange(len(keys))
        for _ in range(_MAX_DUPLICATES):
            open_ = open_[position[open_] < len(there)]
            open_ = open_[there[position[open_]] == keys[open_]]
            if not len(open_):
                break
            found = rows[position[open_]]
            self._check_numbers(found)
            number = numbers[found["shard"]]
            usable = number >= 0
            shard[open_[usable]], row[open_[usable]] = number[usable], found["row"][usable]
            open_ = open_[~usable]
            position[open_] += 1
        return shard, row

    def blocks(self) -> Iterator[NDArray[np.void]]:
        """Yield all rows of the table in order, checked as `find` checks them."""
        pages = len(self.head.fences)
        for start in range(0, pages, _PAGES_AT_ONCE):
            rows = self._read_pages(np.arange(start, min(start + _PAGES_AT_ONCE, pages)))
            self._check_numbers(rows)
            yield rows

    def _check_numbers(self, rows: NDArray[np.void]) -> None:
        shard = rows["shard"]
        if (shard >= len(self.rows)).any() or (rows["row"] >= self.rows[shard]).any():
            raise self.damage("it contains a row that no shard has")

    def _read_pages(self, pages: NDArray[np.int64]) -> NDArray[np.void]:
        """Return the rows of pages, which are ascending, after checking each page."""
        ends = [*(np.flatnonzero(np.diff(pages) != 1) + 1).tolist(), len(pages)]
        parts, start = list[bytes](), 0
        for end in ends:  # pages that follow each other in one call
            offset = self._table + int(pages[start]) * PAGE_BYTES
            parts.append(self._read(offset, (end - start) * PAGE_BYTES))
            start = end
        data = b"".join(parts)
        found = np.frombuffer(data, PAGE)
        view, size = memoryview(data), PAGE_BYTES
        crcs = [zlib.crc32(view[at : at + size - 4]) for at in range(0, len(data), size)]
        if not np.array_equal(found["crc"], np.array(crcs, np.uint32)):
            raise self.damage("a part of it is not as it was written")
        rows = found["rows"].ravel()
        padding = -self._count % ROWS_PER_PAGE
        is_last = pages[-1] == len(self.head.fences) - 1
        return rows[: len(rows) - padding] if is_last else rows

    def _read(self, offset: int, size: int) -> bytes:
        parts = list[bytes]()
        while size:
            try:
                part = os.pread(self._handle, size, offset)
            except OSError as error:
                raise self.damage(f"the disk cannot read it ({error.strerror})") from error
            if not part:
                raise self.damage("it was truncated")
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def _read_head(self) -> tuple[IndexHead, NDArray[np.int64]]:
        if self.state.size < _START.size:
            raise self.damage("it was truncated")
        magic, digest, length = _START.unpack(self._read(0, _START.size))
        if magic != _MAGIC:
            raise self.damage("it is not an index of this version of featcache")
        if not _FIELDS.size <= length <= min(self.state.size - _START.size, _MAX_HEAD_BYTES):
            raise self.damage("it has another size than its head says")
        body = self._read(_START.size, length)
        if hashlib.sha256(body).digest() != digest:
            raise self.damage("its checksum does not fit its content")
        try:
            head, rows = _parse_body(body)
        except (ValueError, OverflowError) as error:
            raise self.damage(f"a field is wrong ({error})") from error
        self._table = _padded(_START.size + length)
        if self.state.size != self._table + len(head.fences) * PAGE_BYTES:
            raise self.damage("it has another size than its head says")
        return head, rows


def _parse_body(body: bytes) -> tuple[IndexHead, NDArray[np.int64]]:
    """Return the head and the rows of each shard; raise ValueError if it is malformed."""
    key, width, count, distinct, text = _FIELDS.unpack_from(body)
    names = tuple(body[_FIELDS.size :][:text].decode("ascii").split("\n"))
    rows = rows_in_names(names)
    if len(names) != count or not 0 < min(rows) <= max(rows) <= _MAX_NUMBER:
        raise ValueError("it lists a file whose name is not that of a shard")
    if not all(map(str.__lt__, names, names[1:])):
        raise ValueError("its shards are not sorted")
    pages = -(-sum(rows) // ROWS_PER_PAGE)
    if len(body) != _FIELDS.size + text + count * 16 + pages * 36 or distinct > sum(rows):
        raise ValueError("its number of rows is not that of its shards")
    start = _FIELDS.size + text
    sizes = np.frombuffer(body, "<i8", count, start).astype(np.int64)
    seconds = np.frombuffer(body, "<f8", count, start + count * 8).astype(np.float64)
    fences = np.frombuffer(body, "S36", pages, start + count * 16)
    if not np.isfinite(seconds).all() or (seconds < 0).any():
        raise ValueError("its seconds are not numbers")
    head = IndexHead(key.hex(), width, names, sizes, seconds, distinct, fences)
    return head, np.array(rows, np.int64)


def _padded(size: int) -> int:
    return -(-size // PAGE_BYTES) * PAGE_BYTES
