"""Size of the frames in an AVIF file, from the headers of its AV1 streams.

The boxes of the file declare a size, but the decoder uses the header of each AV1 stream: it
decodes a frame in the frame's own size and then resizes it to that of the boxes. Streams follow
the AV1 specification, 5.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .boxes import Declared, Piece, Size, read_boxes
from .image_file import BadImage

_MAX_UNITS = 100_000  # OBUs, the parts of a stream
_MAX_HEADER = 1000  # bytes of a sequence header, which has at most some hundred
_SEQUENCE_HEADER, _FRAMES = 1, (3, 6)  # kinds of OBUs


class Stream(NamedTuple):
    """The sizes in an AV1 sequence header.

    Attributes
    ----------
    size : (int, int)
        The largest width and height that it declares.
    bound : (int, int)
        The largest that a frame's own header can still name.
    frames : int
        How many the stream holds; a decoder may keep several.
    """

    size: Size
    bound: Size
    frames: int


def excess(data: bytes) -> str | None:
    """Return why an AVIF file contradicts its boxes; None if it does not."""
    declared, streams = read_streams(data)
    return declared.excess([stream.size for stream in streams])


def coded_pixels(data: bytes) -> int:
    """Return the number of pixels to decode: the largest frames, and the composed image."""
    declared, streams = read_streams(data)
    frames = max(s.bound[0] * s.bound[1] * max(1, s.frames) for s in streams)
    return frames + max((width * height for width, height in declared.canvases), default=0)


def read_streams(data: bytes) -> tuple[Declared, list[Stream]]:
    """Read the sizes in an AVIF file's boxes, and in the streams that they point to.

    Raises
    ------
    BadImage
        If the file is damaged, or the size of its frames is unknown.
    """
    declared = read_boxes(data, streams=True)
    try:
        streams = [stream for part in declared.streams for stream in _streams(part)]
    except IndexError as error:
        raise BadImage("is damaged: its AV1 picture is cut off") from error
    if not streams:
        raise BadImage("holds no AV1 sequence header, so that its size is unknown")
    return declared, streams


def _streams(data: Piece) -> list[Stream]:
    """Return what each sequence header in an AV1 stream declares."""
    at = units = frames = 0
    headers = []
    while at < len(data):
        units += 1
        if units > _MAX_UNITS:
            raise BadImage(f"holds an AV1 picture in more than {_MAX_UNITS:,} parts")
        header = data[at]
        kind = header >> 3 & 15
        at += 2 if header & 4 else 1
        length = len(data) - at
        if header & 2:
            length, at = _leb128(data, at)
        if kind == _SEQUENCE_HEADER:
            headers.append(_sequence(data[at : at + min(length, _MAX_HEADER)]))
        frames += kind in _FRAMES
        at += length
    return [Stream(size, bound, frames) for size, bound in headers]


def _leb128(data: Piece, at: int) -> tuple[int, int]:
    """Return a number of seven bits per byte, and where the next one begins."""
    value = 0
    for i in range(8):
        value |= (data[at + i] & 127) << 7 * i
        if data[at + i] < 128:
            return value, at + i + 1
    raise BadImage("is damaged: a part of its AV1 picture has no length")


class _Bits:
    """Reads bits, the most significant first."""

    def __init__(self, data: Piece) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        if count > self._left:
            raise IndexError
        self._left -= count
        return self._value >> self._left & (1 << count) - 1

    def skip(self, counts: Sequence[int]) -> None:
        for count in counts:
            self.read(count)

    def skip_uvlc(self) -> None:
        zeros = 0
        while not self.read(1):
            zeros += 1
        if zeros < 32:
            self.read(zeros)


def _sequence(data: Piece) -> tuple[Size, Size]:
    """Return the size in a sequence header, and the largest of any frame (AV1 5.5.1)."""
    bits = _Bits(data)
    bits.skip((3, 1))
    reduced = bits.read(1)
    if reduced:
        bits.skip((5,))
    else:
        _skip_operating_points(bits)
    wide, high = bits.read(4) + 1, bits.read(4) + 1
    size = bits.read(wide) + 1, bits.read(high) + 1
    # Except with a reduced header, a frame can declare its own size, in as many bits.
    return size, size if reduced else (1 << wide, 1 << high)


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.read(1):  # timing
        bits.skip((32, 32))
        if bits.read(1):
            bits.skip_uvlc()
        if bits.read(1):  # decoder model
            delay_bits = bits.read(5) + 1
            bits.skip((32, 5, 5))
    display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.skip((12,))
        if bits.read(5) > 7:
            bits.skip((1,))
        if delay_bits and bits.read(1):
            bits.skip((delay_bits, delay_bits, 1))
        if display_delay and bits.read(1):
            bits.skip((4,))
