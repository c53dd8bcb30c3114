"""Parser of the boxes in AVIF and HEIC files: declared sizes and positions of pictures.

The boxes follow ISO/IEC 14496-12 and 23008-12.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import NamedTuple

from .image_file import BadImage

_MAX_BOXES = 100_000
_MAX_ITEMS = 20_000
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"iprp", b"ipco")
_LAYERS = (b"lsel", b"a1lx", b"a1op")  # an image may be a smaller layer of its stream
_AV1, _CANVASES = b"av01", (b"grid", b"iovl")

Extents = tuple[tuple[int, int], ...]
Size = tuple[int, int]
Piece = bytes | memoryview


class Declared(NamedTuple):
    """Content of a file's boxes.

    Attributes
    ----------
    sizes : set of (int, int)
        Width and height of all pictures, as the boxes declare them.
    streams : list of bytes or memoryview
        Each AV1 picture, and the first sample of each track.
    canvases : list of (int, int)
        Width and height of images composed of several pictures.
    layered : bool
        Whether a picture may be a layer of its stream that has another size.
    """

    sizes: set[Size]
    streams: list[Piece]
    canvases: list[Size]
    layered: bool

    def excess(self, pictures: Collection[Size]) -> str | None:
        """Return why pictures or canvases have other sizes than declared; None if they match."""
        for width, height in (*(() if self.layered else pictures), *self.canvases):
            if (width, height) not in self.sizes:
                outer = max(self.sizes, default=(0, 0))
                return (
                    f"declares {outer[0]:,} x {outer[1]:,} pixels, but holds a picture of "
                    f"{width:,} x {height:,}"
                )
        return None


def read_boxes(data: bytes, *, streams: bool) -> Declared:
    """Read the boxes of a file.

    Parameters
    ----------
    data : bytes
        The whole file.
    streams : bool
        Whether to return AV1 pictures.

    Raises
    ------
    BadImage
        If the file is damaged or ambiguous.
    """
    try:
        return _Reader(data).read(streams)
    except (struct.error, IndexError) as error:
        raise BadImage("is damaged: its boxes are cut off") from error


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
        self._canvases: dict[tuple[bytes, Extents], None] = {}
        self.scope = _Scope()

    def read(self, streams: bool) -> Declared:
        self._walk(0, len(self._data))
        parts = self._joined(self._pictures) if streams else []
        grids, overlays = (
            self._joined([places for kind, places in self._canvases if kind == wanted])
            for wanted in _CANVASES
        )
        canvases = [_canvas(grid, 4) for grid in grids]
        canvases += [_canvas(overlay, 10) for overlay in overlays]
        return Declared(self._sizes, parts, canvases, self._layered)

    def _joined(self, parts: Collection[Extents]) -> list[Piece]:
        """Return the bytes of each part, without a copy if it is contiguous.

        Raises `BadImage` if the parts, which may overlap, are more bytes than the file.
        """
        if sum(length for part in parts for _, length in part) > len(self._data):
            raise BadImage("is damaged: its pictures are more bytes than the file")
        view = memoryview(self._data)
        pieces = [[view[at : at + length] for at, length in part] for part in parts]
        return [some[0] if len(some) == 1 else b"".join(some) for some in pieces]

    def _scoped_walk(self, at: int, end: int) -> _Scope:
        """Read the boxes between two offsets into a scope of their own and return it."""
        outer, self.scope = self.scope, _Scope()
        self._walk(at, end)
        inner, self.scope = self.scope, outer
        return inner

    def _meta(self, at: int, end: int) -> None:
        """Read a ``meta`` box, and note the bytes of each picture that it lists."""
        inner = self._scoped_walk(at + 4, end)
        for item, (method, extents) in inner.items.items():
            kind = inner.kinds.get(item)
            if kind is None or kind not in (_AV1, *_CANVASES):
                continue
            if method > 1:
                raise BadImage("holds a picture made of other items, whose size is unknown")
            base = inner.numbers.get(b"idat", 0) if method else 0
            places = tuple((base + start, length) for start, length in extents)
            if kind == _AV1:
                self._pictures[places] = None
            else:
                self._canvases[kind, places] = None

    def _track(self, at: int, end: int) -> None:
        """Read a ``stbl`` box, and note the first sample of its track; no other is decoded."""
        numbers = self._scoped_walk(at, end).numbers
        if b"stco" in numbers and b"stsz" in numbers:
            self._pictures[((numbers[b"stco"], numbers[b"stsz"]),)] = None

    def _walk(self, at: int, end: int) -> None:
        """Read the boxes between two offsets, including the relevant nested ones."""
        while at + 8 <= end:
            self._boxes += 1
            if self._boxes > _MAX_BOXES:
                raise BadImage(f"is a file of more than {_MAX_BOXES:,} boxes")
            length, kind = struct.unpack_from(">I4s", self._data, at)
            content = at + 8
            if length == 1:
                (length,) = struct.unpack_from(">Q", self._data, content)
                content += 8
            elif length == 0:
                length = end - at
            if length < content - at:
                raise BadImage("is damaged: it starts as boxes, but one has no length")
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
            raise BadImage(f"is a file of {count:,} items; the limit is {_MAX_ITEMS:,}")
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
                    raise BadImage("is a file with an item in too many parts")
            if item in self.scope.items:
                raise _ambiguous("an item")
            self.scope.items[item] = (method, tuple(extents))


class _Scope:
    """Declarations in one ``meta`` or ``stbl`` box; duplicates raise `BadImage`."""

    def __init__(self) -> None:
        self.kinds: dict[int, bytes] = {}
        self.items: dict[int, tuple[int, Extents]] = {}
        self.numbers: dict[bytes, int] = {}

    def note(self, name: bytes, value: int) -> None:
        if name in self.numbers:
            raise _ambiguous(f"{name.decode()!r}")
        self.numbers[name] = value


def _ambiguous(what: str) -> BadImage:
    return BadImage(f"is damaged: its boxes declare {what} more than once")


class _Cursor:
    """Reads numbers of any width one after the other."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def number(self, width: int) -> int:
        if self._at + width > len(self._data):
            raise IndexError
        self._at += width
        return int.from_bytes(self._data[self._at - width : self._at], "big")


def _canvas(data: Piece, at: int) -> Size:
    """Return the width and height at an offset in a grid or an overlay."""
    return struct.unpack_from(">II" if data[1] & 1 else ">HH", data, at)
