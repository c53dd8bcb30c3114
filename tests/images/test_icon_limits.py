"""What icons may cost: pictures that are larger than the icon declares, or too many."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from peak_memory import peak_of
from PIL import Image

from featcache.images.decode import decode
from featcache.images.image_file import BadImage


def icon(picture: bytes, count: int = 1) -> bytes:
    """An icon whose directory declares 16 x 16 pixels, whatever its picture has."""
    start = 6 + 16 * count
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(picture), start)
    return struct.pack("<HHH", 0, 1, count) + count * entry + picture


def png_chunk(kind: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


def png_with_other_size(side: int, before: bytes = b"") -> bytes:
    """A PNG of `side` x `side` pixels in front of whose size stands another chunk."""
    Image.new("RGBA", (side, side)).save(out := io.BytesIO(), "PNG", compress_level=1)
    return out.getvalue()[:8] + before + out.getvalue()[8:]


SMALL_SIZE = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 6, 0, 0, 0))


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (b"", "icon with a picture of more than 1,048,576 pixels: 4,000 x 4,000"),
        (png_chunk(b"tEXt", b"a\0IDAT"), "1,048,576 pixels: 4,000 x 4,000"),
        (SMALL_SIZE, "declares 2 sizes"),
        (SMALL_SIZE + png_chunk(b"tEXt", b"a\0IDAT"), "declares 2 sizes"),
    ],
)
def test_an_icon_with_a_large_picture_is_refused_before_it_is_opened(
    tmp_path: Path, before: bytes, reason: str
) -> None:
    file = tmp_path / "a.ico"
    file.write_bytes(icon(png_with_other_size(4000, before)))
    taken, reasons = peak_of([file])
    assert reason in reasons
    assert taken < 30


def test_an_icon_with_a_large_bitmap_or_too_many_pictures_is_refused() -> None:
    Image.new("RGB", (1200, 1200)).save(out := io.BytesIO(), "DIB")
    with pytest.raises(BadImage, match="1,048,576 pixels: 1,200 x 1,200"):
        decode(icon(out.getvalue()))
    with pytest.raises(BadImage, match="icon of 1,001 pictures"):
        decode(icon(png_with_other_size(16), 1001))


@pytest.mark.parametrize("format_", ["png", "bmp"])
@pytest.mark.parametrize("mode", ["RGBA", "RGB", "P", "L", "1"])
def test_icons_of_all_kinds_are_decoded(mode: str, format_: str) -> None:
    image = Image.effect_noise((256, 256), 60).convert(mode)
    image.save(out := io.BytesIO(), "ICO", bitmap_format=format_)
    assert decode(out.getvalue()).size == (256, 256)
