"""Parser of JPEG 2000 headers, and an estimate of the memory that OpenJPEG would allocate.

A codestream of a few kilobytes may divide its pixels into millions of precincts and code
blocks, for each of which the decoder allocates hundreds of bytes before it reads any data.
The markers follow ISO/IEC 15444-1, Annex A.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .image_file import BadImage

MAX_BLOCKS = 500_000
MAX_PACKETS = 2_000_000
_MAX_TILES = 20_000
_MAX_TILE_PARTS = 100_000
_MAX_STYLES = 32
_MAX_COMPONENTS = 4  # Pillow has no mode with more
_MAX_LEVELS = 32
# Measured: a precinct that holds one code block takes 550 bytes before it holds data.
_PRECINCT_BYTES, _BLOCK_BYTES = 400, 1000
_TILE_BYTES, _TILE_COMPONENT_BYTES = 6000, 1200  # parameters, kept for all tiles at once
_PACKET_BYTES = 2

_JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_START = b"\xff\x4f\xff\x51"  # SOC and SIZ, which must be its first markers
_COD, _COC, _SOT, _SOD, _EOC = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_WHOLE = 15  # exponent of a precinct where none is given


class Style(NamedTuple):
    """How one component is coded: exponents of its code blocks' and precincts' sizes.

    Attributes
    ----------
    block : (int, int)
        Of width and height.
    precincts : tuple of (int, int)
        Per resolution level, the smallest image first.
    """

    block: tuple[int, int]
    precincts: tuple[tuple[int, int], ...]


class Codestream(NamedTuple):
    """Content of a codestream's headers.

    Attributes
    ----------
    area : (int, int, int, int)
        Left, top, right and bottom edge on the reference grid.
    tiles : (int, int, int, int)
        Left and top edge of the first tile, width and height of all.
    steps : list of (int, int)
        Per component, the distance of its samples.
    styles : list of set of Style
        Per component, all that the main header or a tile's header names.
    layers : int
        The largest number that any header names.
    """

    area: tuple[int, int, int, int]
    tiles: tuple[int, int, int, int]
    steps: list[tuple[int, int]]
    styles: list[set[Style]]
    layers: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        left, top, right, bottom = self.area
        return right - left, bottom - top


class Partition(NamedTuple):
    """Number of parts into which a codestream divides its pixels.

    Attributes
    ----------
    tiles, precincts, blocks, packets : int
        Of the whole image. A precinct counts once for each of its sub-bands.
    needed : int
        Bytes that the decoder allocates for them, in addition to the samples.
    """

    tiles: int
    precincts: int
    blocks: int
    packets: int
    needed: int


def excess(data: bytes, size: tuple[int, int]) -> str | None:
    """Return why decoding a JPEG 2000 file exceeds a limit; None if it does not.

    Parameters
    ----------
    data : bytes
        The whole file: a codestream, or JP2 boxes around one.
    size : (int, int)
        Width and height that the image was opened with.
    """
    stream = read_codestream(data)
    if stream.size != size:
        return (
            f"declares {size[0]:,} x {size[1]:,} pixels, but its JPEG 2000 codestream has "
            f"{stream.size[0]:,} x {stream.size[1]:,}"
        )
    parts = partition(stream)
    if max(parts.precincts, parts.blocks) > MAX_BLOCKS:
        return (
            f"divides {size[0]:,} x {size[1]:,} pixels into {parts.precincts:,} JPEG 2000 "
            f"precincts and {parts.blocks:,} code blocks; the limit of each is {MAX_BLOCKS:,}"
        )
    if parts.packets > MAX_PACKETS:
        return (
            f"holds {parts.packets:,} JPEG 2000 packets in {stream.layers:,} layers; the limit "
            f"is {MAX_PACKETS:,}"
        )
    return None


def read_codestream(data: bytes) -> Codestream:
    """Read the headers of a codestream, including those of all tiles.

    Raises
    ------
    BadImage
        If they are damaged, or name more tiles or coding styles than any valid file has.
    """
    start = _codestream_start(data)
    if data[start : start + 4] != _START:
        raise _damaged("its codestream does not begin with a size")
    try:
        area, tiles, steps = _size(data, start + 4)
        styles: list[set[Style]] = [set() for _ in steps]
        layers = [0]
        for marker, segment in _segments(data, start + 2):
            if marker == _COD:
                layers.append(struct.unpack_from(">H", segment, 2)[0])
                for known in styles:
                    known.add(_style(segment, 5, segment[0] & 1))
            elif marker == _COC:
                wide = 2 if len(steps) > 256 else 1
                component = int.from_bytes(segment[:wide], "big")
                styles[component].add(_style(segment, wide + 1, segment[wide] & 1))
            if sum(map(len, styles)) > _MAX_STYLES:
                raise BadImage(f"names more than {_MAX_STYLES} JPEG 2000 coding styles")
    except (struct.error, IndexError) as error:
        raise _damaged("a header is cut off") from error
    if not all(styles):
        raise _damaged("it declares no coding style")
    return Codestream(area, tiles, steps, styles, max(layers))


def partition(stream: Codestream) -> Partition:
    """Count the parts of a codestream, of each component in the style that has the most."""
    columns, rows = (_tile_edges(stream, axis) for axis in (0, 1))
    tiles = len(columns[0]) * len(rows[0])
    precincts = blocks = places = largest = resolutions = 0
    for step, styles in zip(stream.steps, stream.styles, strict=True):
        counts = [_style_counts(style, step, columns, rows) for style in styles]
        precincts += max(count[0] for count in counts)
        blocks += max(count[1] for count in counts)
        places += max(count[2] for count in counts)
        largest = max(largest, *(count[3] for count in counts))
        resolutions = max(resolutions, *(len(style.precincts) for style in styles))
    # The decoder keeps a flag for each packet that a tile may have.
    marks = (stream.layers + 1) * largest * len(stream.steps) * resolutions
    needed = (
        tiles * (_TILE_BYTES + _TILE_COMPONENT_BYTES * len(stream.steps))
        + precincts * _PRECINCT_BYTES
        + blocks * _BLOCK_BYTES
        + marks * _PACKET_BYTES
    )
    return Partition(tiles, precincts, blocks, places * stream.layers, needed)


def _style_counts(
    style: Style,
    step: tuple[int, int],
    columns: tuple[NDArray[np.int64], NDArray[np.int64]],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> tuple[int, int, int, int]:
    """Return counts of precincts per band, code blocks and precincts, and the largest per tile.

    Columns and rows of tiles are independent, so that the sum over all tiles is the product of
    two sums.
    """
    levels = len(style.precincts) - 1
    in_bands = blocks = precincts = largest = 0
    for resolution, exponents in enumerate(style.precincts):
        down = levels - resolution
        each, cells = [], []
        for axis, edges in enumerate((columns, rows)):
            low, high = (_ceil(_ceil(edge, step[axis]), 1 << down) for edge in edges)
            each.append(_cells(low, high, exponents[axis]))
            # A band of a finer level has half the samples, and so its precincts half the size.
            halves = int(resolution > 0)
            exponent = min(style.block[axis], max(0, exponents[axis] - halves))
            cells.append(_cells(low >> halves, _ceil(high, 1 << halves), exponent))
        bands = 3 if resolution else 1
        here = int(each[0].sum()) * int(each[1].sum())
        precincts += here
        in_bands += here * bands
        blocks += int(cells[0].sum()) * int(cells[1].sum()) * bands
        largest = max(largest, int(each[0].max()) * int(each[1].max()))
    return in_bands, blocks, precincts, largest


def _tile_edges(stream: Codestream, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the columns (axis 0) or rows (axis 1) of tiles begin and end."""
    low, high = stream.area[axis], stream.area[axis + 2]
    first, side = stream.tiles[axis], stream.tiles[axis + 2]
    starts = first + side * np.arange(-((first - high) // side), dtype=np.int64)
    return np.maximum(starts, low), np.minimum(starts + side, high)


def _ceil(values: NDArray[np.int64], divisor: int) -> NDArray[np.int64]:
    return -(-values // divisor)


def _cells(low: NDArray[np.int64], high: NDArray[np.int64], exponent: int) -> NDArray[np.int64]:
    """Return how many cells of a grid with spacing 2**exponent each range intersects."""
    counts = _ceil(high, 1 << exponent) - (low >> exponent)
    return np.where(high > low, counts, 0)


def _size(
    data: bytes, start: int
) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int], list[tuple[int, int]]]:
    """Read SIZ, whose length is at `start`: the image's area, its tiles, and its components."""
    right, bottom, left, top, width, height, tile_left, tile_top, count = struct.unpack_from(
        ">8IH", data, start + 4
    )
    if not 1 <= count <= _MAX_COMPONENTS:
        raise BadImage(
            f"has {count:,} JPEG 2000 components; from 1 to {_MAX_COMPONENTS} are expected"
        )
    steps = [struct.unpack_from(">BB", data, start + 39 + 3 * i) for i in range(count)]
    inside = tile_left <= left < min(right, tile_left + width)
    inside &= tile_top <= top < min(bottom, tile_top + height)
    if not inside or not all(min(step) for step in steps):
        raise _damaged("its size is invalid")
    tiles = -((tile_left - right) // width) * -((tile_top - bottom) // height)
    if tiles > _MAX_TILES:
        raise BadImage(f"has {tiles:,} JPEG 2000 tiles; the limit is {_MAX_TILES:,}")
    return (left, top, right, bottom), (tile_left, tile_top, width, height), steps


def _style(segment: bytes, start: int, own_precincts: int) -> Style:
    """Read the coding style of a component from COD or COC."""
    levels, width, height = struct.unpack_from(">BBB", segment, start)
    if levels > _MAX_LEVELS or max(width, height) > 8:
        raise _damaged("its coding style is invalid")
    if own_precincts:
        sizes = segment[start + 5 : start + 6 + levels]
        if len(sizes) <= levels:
            raise _damaged("its precincts are cut off")
        precincts = tuple((size & 15, size >> 4) for size in sizes)
    else:
        precincts = ((_WHOLE, _WHOLE),) * (levels + 1)
    return Style((width + 2, height + 2), precincts)


def _segments(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment in the main header and the tile-parts' headers.

    `at` is where the first begins. What comes after the headers of a tile-part is skipped by
    the length that it declares, as the decoder does.
    """
    parts, part_end = 0, 0
    while at + 2 <= len(data):
        (marker,) = struct.unpack_from(">H", data, at)
        if marker == _EOC:
            return
        if marker == _SOD and part_end:
            at, part_end = part_end, 0
            continue
        if marker < 0xFF00 or (parts and not part_end and marker != _SOT):
            raise _damaged("a tile does not begin where the one before it ends")
        (length,) = struct.unpack_from(">H", data, at + 2)
        if length < 2:
            raise _damaged("a header has no length")
        if marker == _SOT:
            parts += 1
            if parts > _MAX_TILE_PARTS:
                raise BadImage(f"has more than {_MAX_TILE_PARTS:,} JPEG 2000 tile-parts")
            (whole,) = struct.unpack_from(">I", data, at + 6)
            part_end = at + whole if whole else len(data)
            if part_end <= at + length:
                raise _damaged("a tile-part has no length")
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def _codestream_start(data: bytes) -> int:
    """Return where the codestream begins, which may be inside boxes."""
    if not data.startswith(_JP2_SIGNATURE):
        return 0
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if length == 1 and at + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, at + 8)
            header = 16
        if kind == b"jp2c":
            return at + header
        if length < header:
            break
        at += length
    raise _damaged("it has no codestream")


def _damaged(what: str) -> BadImage:
    return BadImage(f"is damaged: it starts as a JPEG 2000 file, but {what}")
