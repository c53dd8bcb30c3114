"""What the frames of an AVIF file take to decode, by the headers of the AV1 streams in it.

The boxes of the file declare a size, and each AV1 stream has a header of its own, by which the
decoder goes: a frame is decoded in its own size and only then brought to that of the boxes.
Boxes are those of ISO/IEC 14496-12 and 23008-12, streams those of the AV1 specification, 5.5.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from typing import NamedTuple

from .image_file import BadImage

_MAX_BOXES = 100_000
_MAX_UNITS = 100_000  # OBUs, the parts of a stream
_MAX_ITEMS = 20_000
_MAX_HEADER = 1000  # bytes of a sequence header, which has at most some hundred
_SEQUENCE_HEADER, _FRAMES = 1, (3, 6)  # kinds of OBUs
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"iprp", b"ipco")
_LAYERS = (b"lsel", b"a1lx", b"a1op")  # an image may be a smaller layer of its stream

Extents = tuple[tuple[int, int], ...]
Size = tuple[int, int]


class Declared(NamedTuple):
    """What an AVIF file declares.

    Attributes
    ----------
    boxes : set of (int, int)
        Width and height that the boxes give to any picture.
    streams : list of Stream
        One per sequence header.
    canvases : list of (int, int)
        Width and height that pictures are put together to.
    layered : bool
        Whether a picture may be a layer of its stream that has another size.
    """

    boxes: set[Size]
    streams: list[Stream]
    canvases: list[Size]
    layered: bool


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
    """Say why an AVIF file is not what its boxes declare; None if it is."""
    declared = read_headers(data)
    for width, height in (*(s.size for s in declared.streams), *declared.canvases):
        if (width, height) not in declared.boxes and not declared.layered:
            outer = max(declared.boxes, default=(0, 0))
            return (
                f"declares {outer[0]:,} x {outer[1]:,} pixels, but holds an AV1 picture of "
                f"{width:,} x {height:,}"
            )
    return None


def coded_pixels(data: bytes) -> int:
    """Return the pixels of a stream's frames, and of what they are put together to."""
    declared = read_headers(data)
    frames = max(s.bound[0] * s.bound[1] * max(1, s.frames) for s in declared.streams)
    return frames + max((width * height for width, height in declared.canvases), default=0)


def read_headers(data: bytes) -> Declared:
    """Read the sizes in an AVIF file's boxes and in the streams that they point to.

    Raises
    ------
    BadImage
        If the file is damaged, or the size of its frames cannot be told.
    """
    try:
        return _Reader(data).read()
    except (struct.error, IndexError) as error:
        raise BadImage("is damaged: it starts as an AVIF file, but is cut off") from error


class _Reader:
    """Walks the boxes of one file, and collects what they declare.

    Attributes
    ----------
    scope : _Scope
        What the ``meta`` or ``stbl`` box around the current one has declared.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._boxes, self._layered = data, 0, False
        self._sizes: set[Size] = set()
        self._pictures: dict[Extents, None] = {}
        self._grids: dict[Extents, None] = {}
        self.scope = _Scope()

    def read(self) -> Declared:
        self._walk(0, len(self._data))
        canvases = [_canvas(part) for part in self._joined(self._grids)]
        streams = [s for part in self._joined(self._pictures) for s in _streams(part)]
        if not streams:
            raise BadImage("holds no AV1 sequence header, so that its size is unknown")
        return Declared(self._sizes, streams, canvases, self._layered)

    def _joined(self, parts: Collection[Extents]) -> list[bytes]:
        """Return the bytes of each part; several that overlap could be more than the file."""
        if sum(length for part in parts for _, length in part) > len(self._data):
            raise BadImage("is damaged: its AVIF pictures are more bytes than the file")
        return [b"".join(self._data[at : at + length] for at, length in part) for part in parts]

    def _scoped_walk(self, at: int, end: int) -> _Scope:
        """Read the boxes between two places; return what they alone declare."""
        outer, self.scope = self.scope, _Scope()
        self._walk(at, end)
        inner, self.scope = self.scope, outer
        return inner

    def _meta(self, at: int, end: int) -> None:
        """Read a ``meta`` box, and note the bytes of each picture that it lists."""
        inner = self._scoped_walk(at + 4, end)
        for item, (method, extents) in inner.items.items():
            kind = inner.kinds.get(item)
            if kind not in (b"av01", b"grid"):
                continue
            if method > 1:
                raise BadImage("holds an AVIF picture made of other items, whose size is unknown")
            base = inner.numbers.get(b"idat", 0) if method else 0
            places = tuple((base + start, length) for start, length in extents)
            (self._pictures if kind == b"av01" else self._grids)[places] = None

    def _track(self, at: int, end: int) -> None:
        """Read a ``stbl`` box, and note the first sample of its track; no other is decoded."""
        numbers = self._scoped_walk(at, end).numbers
        if b"stco" in numbers and b"stsz" in numbers:
            self._pictures[((numbers[b"stco"], numbers[b"stsz"]),)] = None

    def _walk(self, at: int, end: int) -> None:
        """Read the boxes between two places, and those in them that hold what is needed."""
        while at + 8 <= end:
            self._boxes += 1
            if self._boxes > _MAX_BOXES:
                raise BadImage(f"is an AVIF file of more than {_MAX_BOXES:,} boxes")
            length, kind = struct.unpack_from(">I4s", self._data, at)
            content = at + 8
            if length == 1:
                (length,) = struct.unpack_from(">Q", self._data, content)
                content += 8
            elif length == 0:
                length = end - at
            if length < content - at:
                raise BadImage("is damaged: it starts as an AVIF file, but a box has no length")
            self._box(kind, content, min(end, at + length))
            at += length

    def _box(self, kind: bytes, at: int, end: int) -> None:
        data = self._data
        self._layered |= kind in _LAYERS
        if kind in _PARENTS:
            self._walk(at, end)
        elif kind == b"meta":
            self._meta(at, end)
        elif kind == b"stbl":
            self._track(at, end)
        elif kind == b"iinf":
            self._walk(at + (6 if data[at] == 0 else 8), end)
        elif kind == b"infe":
            self._item_kind(at)
        elif kind == b"iloc":
            self._item_places(at)
        elif kind == b"ispe":
            self._sizes.add(struct.unpack_from(">II", data, at + 4))
        elif kind == b"stsd":
            self._sizes.add(struct.unpack_from(">HH", data, at + 40))
        elif kind == b"idat":
            self.scope.note(b"idat", at)
        elif kind == b"stsz":
            same, count = struct.unpack_from(">II", data, at + 4)
            own = struct.unpack_from(">I", data, at + 12)[0] if count and not same else same
            self.scope.note(b"stsz", own)
        elif kind in (b"stco", b"co64") and struct.unpack_from(">I", data, at + 4)[0]:
            form = ">I" if kind == b"stco" else ">Q"
            self.scope.note(b"stco", struct.unpack_from(form, data, at + 8)[0])

    def _item_kind(self, at: int) -> None:
        wide = self._data[at] == 3
        item, _, kind = struct.unpack_from(">IH4s" if wide else ">HH4s", self._data, at + 4)
        if item in self.scope.kinds:
            raise _ambiguous("an item")
        self.scope.kinds[item] = kind

    def _item_places(self, at: int) -> None:
        """Read ``iloc``: where the bytes of each item are."""
        version = self._data[at]
        widths = [self._data[at + 4] >> 4, self._data[at + 4] & 15, self._data[at + 5] >> 4]
        index = self._data[at + 5] & 15 if version else 0
        id_width = 4 if version > 1 else 2
        cursor = _Cursor(self._data, at + 6)
        count = cursor.number(id_width)
        if count > _MAX_ITEMS:
            raise BadImage(f"is an AVIF file of {count:,} items; the limit is {_MAX_ITEMS:,}")
        for _ in range(count):
            item = cursor.number(id_width)
            method = cursor.number(2) & 15 if version else 0
            cursor.number(2)
            base = cursor.number(widths[2])
            extents = []
            for _ in range(cursor.number(2)):
                cursor.number(index)
                start, length = base + cursor.number(widths[0]), cursor.number(widths[1])
                extents.append((start, length or len(self._data) - start))
                if len(extents) > _MAX_ITEMS:
                    raise BadImage("is an AVIF file with an item in too many parts")
            if item in self.scope.items:
                raise _ambiguous("an item")
            self.scope.items[item] = (method, tuple(extents))


class _Scope:
    """What the boxes in one ``meta`` or ``stbl`` box declare; nothing may be declared twice."""

    def __init__(self) -> None:
        self.kinds: dict[int, bytes] = {}
        self.items: dict[int, tuple[int, Extents]] = {}
        self.numbers: dict[bytes, int] = {}

    def note(self, name: bytes, value: int) -> None:
        if name in self.numbers:
            raise _ambiguous(f"{name.decode()!r}")
        self.numbers[name] = value


def _ambiguous(what: str) -> BadImage:
    return BadImage(f"is damaged: its AVIF boxes declare {what} more than once")


class _Cursor:
    """Reads numbers of any width one after the other."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def number(self, width: int) -> int:
        if self._at + width > len(self._data):
            raise IndexError
        self._at += width
        return int.from_bytes(self._data[self._at - width : self._at], "big")


def _canvas(grid: bytes) -> Size:
    """Return the width and height that a grid's cells are put together to."""
    return struct.unpack_from(">II" if grid[1] & 1 else ">HH", grid, 4)


def _streams(data: bytes) -> list[Stream]:
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


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits per byte, and where the next one begins."""
    value = 0
    for i in range(8):
        value |= (data[at + i] & 127) << 7 * i
        if data[at + i] < 128:
            return value, at + i + 1
    raise BadImage("is damaged: a part of its AV1 picture has no length")


class _Bits:
    """Reads bits, the most significant first."""

    def __init__(self, data: bytes) -> None:
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


def _sequence(data: bytes) -> tuple[Size, Size]:
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
    # Only the frame of a reduced header cannot name a size of its own, in as many bits.
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
