"""The directory of a zip archive, read within limits, and the members that it lists.

`zipfile` keeps an object of half a kilobyte for each entry that an archive declares, and reads
members through one file. Here an entry takes a tuple, and each member is read on its own.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..images.image_file import MAX_BYTES, BadImage
from .sources import Reserve

Read = Callable[[int, int], bytes]  # up to a number of bytes from an offset

MAX_ENTRIES = 10_000_000
_MAX_RATIO = 1000  # deflate reaches 1032; no image that is worth a row does
_RATIO_FROM = 16 * 2**20  # bytes of a member below which its ratio does not matter
_END = struct.Struct("<4s4H2LH")
_END64_PLACE = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s2B4HL2L2H")
_MAX_ENTRY = _ENTRY.size + 3 * 65_535
_WINDOW = 1 << 20
_MAX_COMMENT = 1 << 16
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF8 = 1, 1 << 11
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 99: "AES"}


class Entry(NamedTuple):
    """A member of an archive, as its directory describes it."""

    name: str
    method: int
    flags: int
    crc: int
    packed: int
    size: int
    start: int
    is_file: bool


def read_directory(read: Read, size: int) -> Iterator[Entry]:
    """Yield the entries of a zip archive, in the order of its directory.

    Parameters
    ----------
    read : callable
    size : int
        Of the archive.

    Raises
    ------
    ValueError
        If it is no zip archive, damaged, or has too many entries.
    """
    count, length, start, shift = _find_directory(read, size)
    if count > MAX_ENTRIES:
        raise ValueError(f"it lists {count:,} members; the limit is {MAX_ENTRIES:,}")
    if not 0 <= start <= start + length <= size:
        raise ValueError("its directory lies outside the file")
    window, at, end = b"", start, start + length
    base = start  # offset of the window in the file
    for _ in range(count):
        if at - base + _MAX_ENTRY > len(window):
            window, base = read(at, min(_WINDOW, end - at)), at
        place = at - base
        if len(window) - place < _ENTRY.size:
            raise ValueError("its directory is cut off")
        fields = _ENTRY.unpack_from(window, place)
        at += _ENTRY.size + sum(fields[12:15])
        if fields[0] != b"PK\1\2" or at > base + len(window):
            raise ValueError("its directory is damaged")
        yield _entry(fields, window[place : at - base], shift)


def _find_directory(read: Read, size: int) -> tuple[int, int, int, int]:
    """Return number of entries, length and offset of the directory, and what precedes the zip."""
    tail_start = max(0, size - _MAX_COMMENT - _END.size)
    tail = read(tail_start, size - tail_start)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise ValueError("it has no directory, as a file that is cut off")
    _, _, _, _, count, length, start, _ = _END.unpack_from(tail, at)
    end = tail_start + at
    if end >= _END64_PLACE.size:
        place = read(end - _END64_PLACE.size, _END64_PLACE.size)
        if place[:4] == b"PK\6\7":
            at64 = end - _END64_PLACE.size - _END64.size
            record = read(max(0, at64), _END64.size)
            if record[:4] != b"PK\6\6" or len(record) < _END64.size:
                raise ValueError("its directory is damaged")
            count, length, start = _END64.unpack(record)[7:10]
            end = at64
    shift = end - length - start  # of bytes before the archive, such as a program
    return count, length, start + shift, shift


def _entry(fields: tuple[int, ...], window: bytes, shift: int) -> Entry:
    flags, method = fields[5], fields[6]
    crc, packed, size, name_length, extra_length = fields[9:14]
    attributes, start = fields[17], fields[18]
    raw = window[_ENTRY.size : _ENTRY.size + name_length]
    if 0xFFFFFFFF in (packed, size, start):
        extra = window[_ENTRY.size + name_length : _ENTRY.size + name_length + extra_length]
        size, packed, start = _large(extra, size, packed, start)
    name = raw.decode("utf-8" if flags & _UTF8 else "cp437", "replace")
    kind = stat.S_IFMT(attributes >> 16)
    is_file = not name.endswith("/") and kind in (0, stat.S_IFREG)
    return Entry(name, method, flags, crc, packed, size, start + shift, is_file)


def _large(extra: bytes, size: int, packed: int, start: int) -> tuple[int, int, int]:
    """Return sizes and offset with those of 64 bits, which lie in an extra field."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{length // 8}Q", extra[4 : 4 + length // 8 * 8]))
            found = [
                next(values, number) if number == 0xFFFFFFFF else number
                for number in (size, packed, start)
            ]
            return found[0], found[1], found[2]
        extra = extra[4 + length :]
    return size, packed, start


def read_member(entry: Entry, read: Read, reserve: Reserve) -> bytes:
    """Return the content of a member.

    Raises
    ------
    BadImage
        If it is encrypted, compressed by another method than deflate, too large, or damaged.
    """
    reason = refusal(entry)
    if reason is not None:
        raise BadImage(reason)
    reserve(entry.size + (entry.packed if entry.method == _DEFLATED else 0))
    header = read(entry.start, _LOCAL.size)
    if len(header) < _LOCAL.size or header[:4] != b"PK\3\4":
        raise BadImage("is damaged: it has no header in the archive")
    name, extra = _LOCAL.unpack(header)[-2:]
    data = read(entry.start + _LOCAL.size + name + extra, entry.packed)
    if len(data) < entry.packed:
        raise BadImage("is cut off: the archive ends before it")
    if entry.method == _DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, entry.size + 1)
        except zlib.error as error:
            raise BadImage(f"is damaged: {error}") from error
    if len(data) != entry.size:
        raise BadImage(f"is damaged: it does not have the {entry.size:,} bytes that are declared")
    if zlib.crc32(data) != entry.crc:
        raise BadImage("is damaged: its checksum is wrong")
    return data


def refusal(entry: Entry) -> str | None:
    """Return why a member is not read, by what is declared; None if it may be."""
    if entry.flags & _ENCRYPTED:
        return "is encrypted; unpack the archive with its password"
    if entry.method not in (_STORED, _DEFLATED):
        method = _METHODS.get(entry.method, f"number {entry.method}")
        return f"is compressed by {method}; only deflate is supported"
    if max(entry.size, entry.packed) > MAX_BYTES:
        return f"is {max(entry.size, entry.packed):,} bytes; the limit is {MAX_BYTES:,}"
    if entry.method == _STORED and entry.packed != entry.size:
        return "is damaged: its two sizes differ"
    if entry.size > _RATIO_FROM and entry.size > _MAX_RATIO * entry.packed:
        return f"would unpack {entry.packed:,} bytes to {entry.size:,}"
    return None
