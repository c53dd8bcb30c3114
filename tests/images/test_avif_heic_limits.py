"""What AVIF and HEIC files may cost: pictures and grids that are larger than the boxes declare."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest
from peak_memory import peak_of
from PIL import Image

from featcache.images import av1, boxes
from featcache.images.decode import decode
from featcache.images.image_file import BadImage


def avif_file(side: int, declared: int, **options: Any) -> bytes:
    """An AVIF of `side` x `side` pixels whose boxes declare another size."""
    image = Image.new("RGB", (side, side), (9, 99, 200))
    image.save(out := io.BytesIO(), "AVIF", speed=10, quality=10, **options)
    extent = b"ispe\0\0\0\0"
    data = out.getvalue().replace(
        extent + struct.pack(">II", side, side), extent + struct.pack(">II", declared, declared)
    )
    track = b"av01" + bytes(7) + b"\1" + bytes(16)  # its sample entry, up to the size
    return data.replace(
        track + struct.pack(">HH", side, side), track + struct.pack(">HH", declared, declared)
    )


def test_a_large_picture_in_a_small_avif_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    file = tmp_path / "a.avif"
    file.write_bytes(avif_file(5000, 64))
    taken, reasons = peak_of([file])
    assert "declares 64 x 64 pixels, but holds a picture of 5,000 x 5,000" in reasons
    assert taken < 30


def test_a_large_frame_of_a_small_animated_avif_is_refused() -> None:
    frames = {"save_all": True, "append_images": [Image.new("RGB", (600, 600))] * 2}
    assert decode(avif_file(600, 600, **frames)).size == (600, 600)
    with pytest.raises(BadImage, match="64 x 64 pixels, but holds a picture of 600 x 600"):
        decode(avif_file(600, 64, **frames))


def test_a_frame_that_may_have_a_size_of_its_own_counts_as_the_largest_of_these() -> None:
    frames = {"save_all": True, "append_images": [Image.new("RGB", (300, 200))]}
    Image.new("RGB", (300, 200)).save(out := io.BytesIO(), "AVIF", **frames)
    assert av1.coded_pixels(out.getvalue()) == 512 * 256
    Image.new("RGB", (300, 200)).save(out := io.BytesIO(), "AVIF")
    assert av1.coded_pixels(out.getvalue()) == 300 * 200


def box(kind: bytes, content: bytes, *, full: bool = False) -> bytes:
    content = bytes(4 * full) + content
    return struct.pack(">I4s", 8 + len(content), kind) + content


def avif_boxes(items: list[tuple[bytes, bytes]], *sizes: tuple[int, int]) -> bytes:
    """The boxes of an AVIF whose items are all in its ``idat``, the kind of each before it."""
    infos, places, content = b"", b"", b""
    for number, (kind, data) in enumerate(items, 1):
        info = struct.pack(">HH4s", number, 0, kind) + b"\0"
        infos += box(b"infe", b"\2\0\0\0" + info)
        places += struct.pack(">HHHHII", number, 1, 0, 1, len(content), len(data))
        content += data
    extents = b"".join(box(b"ispe", struct.pack(">II", *size), full=True) for size in sizes)
    meta = box(b"iinf", struct.pack(">H", len(items)) + infos, full=True)
    meta += box(b"iloc", b"\1\0\0\0\x44\0" + struct.pack(">H", len(items)) + places)
    meta += box(b"iprp", box(b"ipco", extents)) + box(b"idat", content)
    return box(b"ftyp", b"avif\0\0\0\0avif") + box(b"meta", meta, full=True)


def av1_stream(width: int, height: int, frames: int = 1) -> bytes:
    """A reduced sequence header of AV1 with that size, and empty frames."""
    bits = f"000{1:b}{1:b}{0:05b}{15:04b}{15:04b}{width - 1:016b}{height - 1:016b}"
    bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
    header = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes([1 << 3 | 2, len(header)]) + header + frames * bytes([6 << 3 | 2, 0])


def test_the_frames_and_the_grid_of_an_avif_count() -> None:
    picture = av1_stream(100, 50)
    assert av1.coded_pixels(avif_boxes([(b"av01", picture)], (100, 50))) == 5000
    assert av1.coded_pixels(avif_boxes([(b"av01", av1_stream(100, 50, 7))], (100, 50))) == 35_000
    grid = b"\0\0\1\1" + struct.pack(">HH", 200, 100)
    items = [(b"grid", grid), (b"av01", picture)]
    assert av1.coded_pixels(avif_boxes(items, (200, 100), (100, 50))) == 25_000
    assert av1.excess(avif_boxes(items, (200, 100), (100, 50))) is None
    assert "picture of 200 x 100" in str(av1.excess(avif_boxes(items, (100, 50))))
    assert "picture of 100 x 50" in str(av1.excess(avif_boxes(items, (200, 100))))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda d: d.replace(b"av01", b"xv01"), "no AV1 sequence header"),
        (lambda d: d.replace(b"\0\1\0\1\0\0\0\1", b"\0\1\0\2\0\0\0\1"), "of other items"),
        (lambda d: d.replace(b"\0\2\0\1\0\0\0\1", b"\0\1\0\1\0\0\0\1"), "more than once"),
        (lambda d: d.replace(b"ispe", b"idat"), "'idat' more than once"),
        (lambda d: d[:-20], "is damaged"),
    ],
    ids=["no stream", "method", "item", "idat", "cut"],
)
def test_an_avif_whose_size_cannot_be_told_is_refused(edit: Any, reason: str) -> None:
    data = avif_boxes([(b"av01", av1_stream(100, 50)), (b"av01", av1_stream(100, 50))], (100, 50))
    assert av1.excess(data) is None
    assert edit(data) != data
    with pytest.raises(BadImage, match=reason):
        av1.read_streams(edit(data))


def heic_grid(side: int, cells: int, declared: int) -> bytes:
    """A HEIC that puts `cells` x `cells` pictures together, each of `side` x `side` pixels."""
    import pillow_heif

    image = Image.new("RGB", (side, side), (9, 99, 200))
    pillow_heif.from_pillow(image).save(out := io.BytesIO(), quality=10)
    data = out.getvalue()
    settings, picture = (
        data[at : at + struct.unpack_from(">I", data, at)[0]]
        for at in (data.index(b"hvcC") - 4, data.index(b"mdat") - 4)
    )
    grid = b"\0\1" + bytes([cells - 1] * 2) + struct.pack(">II", side * cells, side * cells)
    many, item = cells**2, picture[8:]
    info = box(b"infe", b"\2\0\0\0" + struct.pack(">HH5s", 1, 0, b"grid\0"))
    place = struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(grid))
    links, uses = struct.pack(">HH", 1, many), struct.pack(">IHBB", many + 1, 1, 1, 1)
    for number in range(2, many + 2):
        info += box(b"infe", b"\2\0\0\1" + struct.pack(">HH5s", number, 0, b"hvc1\0"))
        place += struct.pack(">HHHHII", number, 1, 0, 1, len(grid), len(item))
        links += struct.pack(">H", number)
        uses += struct.pack(">HBBB", number, 2, 2, 0x83)
    sizes = [box(b"ispe", struct.pack(">II", n, n), full=True) for n in (declared, side)]
    meta = box(b"hdlr", bytes(4) + b"pict" + bytes(13), full=True)
    meta += box(b"pitm", b"\0\1", full=True)
    meta += box(b"iinf", struct.pack(">H", many + 1) + info, full=True)
    meta += box(b"iloc", b"\1\0\0\0\x44\0" + struct.pack(">H", many + 1) + place)
    meta += box(b"iref", box(b"dimg", links), full=True)
    properties = box(b"ipco", b"".join(sizes) + settings)
    meta += box(b"iprp", properties + box(b"ipma", uses, full=True)) + box(b"idat", grid + item)
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", meta, full=True)


def test_a_heic_that_is_put_together_to_more_than_declared_is_refused(tmp_path: Path) -> None:
    assert decode(heic_grid(64, 3, 192)).size == (192, 192)
    file = tmp_path / "a.heic"
    file.write_bytes(heic_grid(512, 12, 64))
    taken, reasons = peak_of([file])
    assert "declares 512 x 512 pixels, but holds a picture of 6,144 x 6,144" in reasons
    assert taken < 30


def test_a_heic_size_in_a_box_of_another_layout_counts() -> None:
    long = struct.pack(">I4sQIII", 1, b"ispe", 28, 0, 300, 200)
    data = box(b"meta", box(b"iprp", box(b"ipco", long)), full=True)
    assert boxes.read_boxes(data, streams=False).sizes == {(300, 200)}


def test_a_heic_whose_boxes_declare_too_little_is_refused_before_it_is_decoded(
    tmp_path: Path,
) -> None:
    import pillow_heif

    image = Image.new("RGB", (1500, 1500), (9, 99, 200))
    pillow_heif.from_pillow(image).save(out := io.BytesIO(), quality=10)
    extent = b"ispe\0\0\0\0"
    sizes = struct.pack(">II", 1500, 1500), struct.pack(">II", 64, 64)
    data = out.getvalue().replace(*(extent + size for size in sizes))
    assert data != out.getvalue()
    file = tmp_path / "a.heic"
    file.write_bytes(data)
    taken, reasons = peak_of([file])
    assert "is damaged" in reasons
    assert taken < 30
