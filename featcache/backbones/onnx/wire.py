"""Limits on the encoding of an ONNX file, checked before it is parsed.

A message of two bytes takes a hundred bytes of memory when it is parsed, so a file of some
megabytes could exhaust the memory. Weights are plain numbers and take what they take in the file.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_DESCRIPTION_BYTES = 32 * 2**20
MAX_WEIGHTS = MAX_NODES = 100_000
_MAX_FIELDS = 1_000_000
_GRAPH, _NODE, _INITIALIZER = 7, 1, 5  # of ModelProto; of GraphProto
_NUMBERS = {4, 5, 9, 10}  # of TensorProto: float_data, int32_data, raw_data, double_data
_FIXED = {1: 8, 5: 4}  # bytes of a value, by wire type
_VARINT, _LENGTH = 0, 2


def check_encoding(data: bytes) -> None:
    """Raise `ValueError` for a file that takes far more memory than its bytes, or is no ONNX file.

    Everything but the numbers of weights may take 32 MiB, and there may be 100,000 weights and as
    many nodes.
    """
    description = weights = nodes = 0
    count = _Counter()
    for field, start, end in _fields(data, 0, len(data), count):
        if field != _GRAPH:
            description += end - start
            continue
        for inner, first, last in _fields(data, start, end, count):
            if inner == _INITIALIZER:
                weights += 1
                description += _description_of_weights(data, first, last, count)
            else:
                description += last - first
                nodes += inner == _NODE
        if nodes > MAX_NODES:
            raise ValueError(f"it has more than {MAX_NODES:,} nodes")
        if weights > MAX_WEIGHTS:
            raise ValueError(f"it has more than {MAX_WEIGHTS:,} weights")
    if description > MAX_DESCRIPTION_BYTES:
        raise ValueError(
            f"its graph takes {description:,} bytes without its weights; the limit is "
            f"{MAX_DESCRIPTION_BYTES:,} (large constants must be initializers)"
        )


class _Counter:
    """Counts fields, whose number is limited."""

    def __init__(self) -> None:
        self._seen = 0

    def add(self) -> None:
        self._seen += 1
        if self._seen > _MAX_FIELDS:
            raise ValueError("it has too many parts")


def _description_of_weights(data: bytes, start: int, end: int, count: _Counter) -> int:
    fields = _fields(data, start, end, count)
    return sum(last - first for field, first, last in fields if field not in _NUMBERS)


def _fields(data: bytes, start: int, end: int, count: _Counter) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of the fields of a message in Protocol Buffers' encoding."""
    at = start
    while at < end:
        count.add()
        tag, at = _varint(data, at, end)
        field, kind, first = tag >> 3, tag & 7, at
        if kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind == _LENGTH:
            length, first = _varint(data, at, end)
            at = first + length
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise ValueError("it is not an ONNX file")
        if at > end or not field:
            raise ValueError("it is not an ONNX file, or it is incomplete")
        yield field, first, at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("it is not an ONNX file, or it is incomplete")
