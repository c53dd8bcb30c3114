"""JPEG 2000 files of a small size whose precincts, layers or boxes declare more."""

from __future__ import annotations

import io
import struct

from PIL import Image


def jpeg_2000(
    side: int,
    *,
    precinct: int = 64,
    layers: int = 1,
    own_tile: bool = False,
    boxes: bool = False,
    declared: int = 0,
) -> bytes:
    """A JPEG 2000 of 64 x 64 pixels whose headers are edited.

    Parameters
    ----------
    side : int
        Of the image and of its one tile.
    precinct : int
        Side of the precincts, a power of two.
    layers : int
    own_tile : bool
        Whether the tile's header, not the image's, says how it is coded.
    boxes : bool
        Whether the codestream stands in JP2 boxes.
    declared : int
        Side that these boxes declare, if not the codestream's.
    """
    Image.new("RGB", (64, 64), (9, 99, 200)).save(
        out := io.BytesIO(), "JPEG2000", no_jp2=not boxes, num_resolutions=1,
        precinct_size=(64, 64), codeblock_size=(4, 4),
    )  # fmt: skip
    data = bytearray(out.getvalue())
    if boxes:
        start = data.index(b"ihdr") + 4
        struct.pack_into(">II", data, start, declared or side, declared or side)
    start = data.index(b"\xff\x51")  # SIZ
    for offset in (6, 22):
        struct.pack_into(">II", data, start + offset, side, side)
    start = data.index(b"\xff\x52")  # COD
    whole = bytes(data[start : start + 2 + struct.unpack_from(">H", data, start + 2)[0]])
    edited = bytearray(whole)
    struct.pack_into(">H", edited, 6, layers)
    edited[-1] = (precinct.bit_length() - 1) * 17
    if not own_tile:
        return bytes(data).replace(whole, edited)
    tile = data.index(b"\xff\x90")  # SOT
    length = struct.unpack_from(">I", data, tile + 6)[0]
    struct.pack_into(">I", data, tile + 6, length + len(edited))
    return bytes(data[: tile + 12] + edited + data[tile + 12 :])
