"""What the pages of a Parquet file declare, read from their headers before they are unpacked.

The footer declares sizes of column chunks, but only the header of a page says how much memory is
taken for it, and the two may differ in a file that was made for that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from ..images.image_file import MAX_BYTES, BadImage

MAX_PAGE_BYTES = MAX_BYTES + 16 * 2**20
_MAX_PAGES = 1_000_000
_WINDOW = 1 << 16
_MAX_DEPTH = 8
_DELTA_BYTE_ARRAY = 7  # a value may repeat the one before it: a page unpacks to any size
# Fields of a page header, by their numbers in parquet.thrift.
_SIZE, _PACKED_SIZE, _DATA_V1, _DATA_V2 = 2, 3, 5, 8
_ENCODING_V1, _ENCODING_V2 = 2, 4


def check_pages(read: Callable[[int, int], bytes], start: int, end: int) -> None:
    """Raise `BadImage` if a page of a column chunk would take too much memory.

    Parameters
    ----------
    read : callable
        Returns up to a number of bytes of the file from an offset: ``read(offset, size)``.
    start, end : int
        Offsets of the chunk's first byte, and of the byte after it.
    """
    window, at = b"", start
    for _ in range(_MAX_PAGES):
        if start >= end:
            return
        if not at <= start < at + len(window) - _WINDOW // 2:
            window, at = read(start, _WINDOW), start
        try:
            header, length = _read_struct(window, start - at)
        except (IndexError, struct.error, ValueError) as error:
            raise BadImage("is damaged: the header of a page cannot be read") from error
        size, packed = header.get(_SIZE), header.get(_PACKED_SIZE)
        if not isinstance(size, int) or not isinstance(packed, int) or min(size, packed) < 0:
            raise BadImage("is damaged: a page has no size")
        if size > MAX_PAGE_BYTES:
            raise BadImage(f"lies in a page of {size:,} bytes; the limit is {MAX_PAGE_BYTES:,}")
        encodings = [
            header[field].get(encoding)
            for field, encoding in ((_DATA_V1, _ENCODING_V1), (_DATA_V2, _ENCODING_V2))
            if isinstance(header.get(field), dict)
        ]
        if _DELTA_BYTE_ARRAY in encodings:
            raise BadImage("is stored with the encoding DELTA_BYTE_ARRAY, which is not supported")
        start = length + at + packed
    raise BadImage(f"lies in a column of more than {_MAX_PAGES:,} pages")


def _read_struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """Return the integers and structs of a struct of Thrift's compact protocol, and its end."""
    if depth > _MAX_DEPTH:
        raise ValueError("too deep")
    fields: dict[int, Any] = {}
    number = 0
    while True:
        head = data[at]
        at += 1
        if not head:
            return fields, at
        if head >> 4:
            number += head >> 4
        else:
            number, at = _read_int(data, at)
        fields[number], at = _read_value(data, at, head & 15, depth)


def _read_value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # true, false
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _read_int(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:
        size, at = _read_varint(data, at)
        return None, at + size
    if kind == 12:
        return _read_struct(data, at, depth + 1)
    raise ValueError(f"type {kind}")  # lists and maps do not occur in page headers


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number of more than 64 bits")


def _read_int(data: bytes, at: int) -> tuple[int, int]:
    value, at = _read_varint(data, at)
    return (value >> 1) ^ -(value & 1), at
