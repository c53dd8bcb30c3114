"""What images may cost to read and decode, each measured in a process of its own."""

from __future__ import annotations

import io
import mmap
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import make_tiny_model, photo
from featcache import Store, extract
from featcache._io import file_state
from featcache.data import file_index
from featcache.images import av1, boxes
from featcache.images.decode import decode, load_pixels
from featcache.images.image_file import BadImage, content_id
from featcache.images.limits import MemoryBudget, working_bytes

_CHILD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from featcache.images.image_file import BadImage, content_id
from featcache.images import decode as images
from featcache.images.limits import MemoryBudget

budget = MemoryBudget(int(sys.argv[1])) if sys.argv[1] != "0" else MemoryBudget()

def peak():
    return next(int(s.split()[1]) // 1024 for s in open('/proc/self/status') if 'VmHWM' in s)

def one(pair):
    try:
        images.load_pixels(pair[0], (8, 8), "stretch", pair[1], budget=budget)
    except BadImage as bad:
        return bad.reason

before = peak()
pairs = list(zip(sys.argv[2::2], sys.argv[3::2]))
with ThreadPoolExecutor(len(pairs)) as pool:
    reasons = list(pool.map(one, pairs))
print(peak() - before, reasons)
"""


def peak_of(files: list[Path], total: int = 0) -> tuple[int, str]:
    """MiB that reading and decoding files at once takes on top, and the reasons given.

    `total` bytes are shared by the threads; 0 means what the package allows.
    """
    named = [part for f in files for part in (str(f), content_id(f.read_bytes()))]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(total), *named],
        capture_output=True,
        text=True,
        check=True,
    )
    taken, reasons = done.stdout.split(" ", 1)
    return int(taken), reasons


def tiff_with_tile(side: int) -> bytes:
    """A deflated TIFF of 16 x 16 pixels whose one tile has `side` x `side`."""
    packed = zlib.compressobj(1)
    row = bytes(side * 3)
    data = b"".join(packed.compress(row) for _ in range(side)) + packed.flush()
    tags = [(256, 16), (257, 16), (258, 8), (259, 8), (262, 2), (277, 3), (284, 1)]
    tags += [(322, side), (323, side), (324, 8), (325, len(data))]
    directory = struct.pack("<H", len(tags))
    directory += b"".join(_tag(*tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def _tag(number: int, value: int) -> bytes:
    return struct.pack("<HHII", number, 4, 1, value)


def test_a_small_tiff_with_a_large_tile_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    small = tiff_with_tile(32)
    for tag in (322, 323):
        small = small.replace(_tag(tag, 32), _tag(tag, 25_600))
    file.write_bytes(small)
    taken, reasons = peak_of([file])
    assert "would take 1,966 MB to decode (16 x 16" in reasons
    assert taken < 100


def test_tiles_count_in_the_memory_that_threads_share(tmp_path: Path) -> None:
    files = []
    for i in range(4):
        files.append(tmp_path / f"{i}.tif")
        files[-1].write_bytes(tiff_with_tile(5000))  # 75 MB each: one after the other
    taken, reasons = peak_of(files, 100_000_000)
    assert reasons.strip() == str([None] * 4)
    assert 60 < taken < 130


def test_the_bytes_of_files_count_in_the_memory_that_threads_share(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(start := io.BytesIO(), "JPEG")
    files = []
    for i in range(4):
        files.append(tmp_path / f"{i}.jpg")
        with open(files[-1], "wb") as file:
            file.write(start.getvalue())
            file.truncate(60_000_000)  # a hole: no disk is taken
            file.seek(-1, 2)
            file.write(bytes([i]))
    taken, reasons = peak_of(files, 100_000_000)
    assert reasons.strip() == str([None] * 4)
    assert 50 < taken < 110


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"alpha": True}])
def test_what_decoding_a_webp_takes_is_counted(tmp_path: Path, options: dict[str, Any]) -> None:
    image = Image.new("RGBA" if options.pop("alpha", False) else "RGB", (4000, 4000), "red")
    file = tmp_path / "a.webp"
    image.save(file, method=0, **options)
    with Image.open(file) as opened:
        expected = working_bytes(opened) / 2**20
    taken, reasons = peak_of([file])
    assert "None" in reasons
    assert 0.6 * expected < taken < 1.2 * expected


def test_a_strip_of_a_whole_tiff_is_counted() -> None:
    image = Image.new("RGB", (2000, 1000))
    sizes = {}
    for rows in (1, 1000):
        image.save(out := io.BytesIO(), "TIFF", compression="tiff_lzw", tiffinfo={278: rows})
        sizes[rows] = working_bytes(Image.open(out))
    assert sizes == {1: 8_000_000, 1000: 8_000_000 + 6_000_000}


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


@pytest.mark.parametrize("options", [{}, {"own_tile": True}, {"boxes": True}])
def test_a_jpeg_2000_of_too_many_precincts_is_refused_before_it_is_decoded(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    file = tmp_path / "a.jp2"
    file.write_bytes(jpeg_2000(500, precinct=1, **options))
    taken, reasons = peak_of([file])
    assert "500 x 500 pixels into 750,000 JPEG 2000 precincts and 750,000 code blocks" in reasons
    assert taken < 50


def test_the_precincts_of_a_jpeg_2000_count_in_the_memory_that_threads_share(
    tmp_path: Path,
) -> None:
    files = []
    for i in range(4):
        files.append(tmp_path / f"{i}.j2k")
        files[-1].write_bytes(jpeg_2000(350, precinct=1) + bytes([i]))
    alone, reasons = peak_of(files[:1])
    assert 150 < alone < 350
    taken, reasons = peak_of(files, 600_000_000)
    assert "into" not in reasons
    assert taken < alone + 100


def test_a_jpeg_2000_of_too_many_layers_is_refused() -> None:
    with pytest.raises(BadImage, match=r"3,072,000 JPEG 2000 packets in 1,000 layers"):
        decode(jpeg_2000(64, precinct=2, layers=1000))


def test_a_jpeg_2000_larger_than_its_boxes_declare_is_refused() -> None:
    with pytest.raises(BadImage, match=r"declares 64 x 64 .* codestream has 3,000 x 3,000"):
        decode(jpeg_2000(3000, boxes=True, declared=64))


@pytest.mark.parametrize(
    "options",
    [
        {"tile_size": (32, 48), "tile_offset": (3, 5), "offset": (7, 9)},
        {"quality_layers": [40, 20, 1], "quality_mode": "rates", "progression": "RPCL"},
        {"precinct_size": (64, 64), "codeblock_size": (16, 16), "num_resolutions": 3},
        {"plt": True, "irreversible": True, "no_jp2": True, "comment": "a"},
    ],
)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_jpeg_2000_files_of_all_layouts_are_decoded(mode: str, options: dict[str, Any]) -> None:
    image = Image.effect_noise((200, 120), 60).convert(mode)
    image.save(out := io.BytesIO(), "JPEG2000", **options)
    assert decode(out.getvalue()).size == Image.open(out).size


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


def dicom_of(frame: bytes, syntax: str, side: int = 16) -> bytes:
    """A DICOM file in colour of `side` x `side` pixels around one compressed frame."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

    file, meta = Dataset(), FileMetaDataset()
    file.file_meta = meta
    meta.MediaStorageSOPClassUID = file.SOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    file.Rows = file.Columns = side
    file.SamplesPerPixel, file.PlanarConfiguration, file.NumberOfFrames = 3, 0, 1
    file.PhotometricInterpretation = "YBR_FULL_422" if syntax == JPEG else "RGB"
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    file.PixelData = encapsulate([frame])
    file["PixelData"].VR = "OB"
    out = io.BytesIO()
    file.save_as(out, enforce_file_format=True)
    return out.getvalue()


def jpeg(side: int, format_: str = "JPEG", **options: Any) -> bytes:
    Image.new("RGB", (side, side), (9, 99, 200)).save(out := io.BytesIO(), format_, **options)
    return out.getvalue()


JPEG, JPEG_2000, RLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.5"


def rle_frame(length: int) -> bytes:
    """Three segments of white that unpack to `length` bytes each, or to a run more."""
    segment = b"\x81\xff" * -(-length // 128)
    segment += bytes(len(segment) % 2)
    starts = [64 + i * len(segment) for i in range(3)]
    return struct.pack("<4I", 3, *starts).ljust(64, b"\0") + 3 * segment


@pytest.mark.parametrize(
    ("frame", "syntax", "reason"),
    [
        (jpeg(4000, quality=1), JPEG, "declares 16 x 16 pixels, but its compressed DICOM frame"),
        (jpeg(2000, "JPEG2000"), JPEG_2000, "frame has 2,000 x 2,000"),
        (jpeg(2000, "JPEG2000"), JPEG, "frame has 2,000 x 2,000"),
        (jpeg(2000, "JPEG2000", no_jp2=True), JPEG_2000, "frame has 2,000 x 2,000"),
        (jpeg_2000(2000, boxes=True, declared=16), JPEG_2000, "codestream has 2,000 x 2,000"),
        (rle_frame(50_000_000), RLE, "unpacks to more than 1,256 bytes per segment"),
    ],
    ids=["jpeg", "jp2", "other syntax", "j2k", "other box", "rle"],
)
def test_a_large_frame_in_a_small_dicom_file_is_refused_before_it_is_decoded(
    tmp_path: Path, frame: bytes, syntax: str, reason: str
) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(dicom_of(frame, syntax))
    taken, reasons = peak_of([file])
    assert reason in reasons
    assert taken < 60  # pydicom itself takes most of that


def test_a_dicom_frame_of_too_many_precincts_or_scans_is_refused() -> None:
    with pytest.raises(BadImage, match="into 750,000 JPEG 2000 precincts"):
        decode(dicom_of(jpeg_2000(500, precinct=1), JPEG_2000, 500))
    data = jpeg(3000, quality=1, progressive=True)
    start = data.index(b"\xff\xda")
    scan = data[start : data.index(b"\xff", start + 12)]
    with pytest.raises(BadImage, match=r"3,000 x 3,000 pixels in [0-9,]+ scans"):
        decode(dicom_of(data[:start] + 1000 * scan + data[start:], JPEG, 3000))


@pytest.mark.parametrize(
    ("frame", "syntax"),
    [
        (jpeg(64), JPEG),
        (jpeg(64, progressive=True, comment=b"a\xff\xda"), JPEG),
        (jpeg(64, "JPEG2000"), JPEG_2000),
        (jpeg(64, "JPEG2000", no_jp2=True), JPEG_2000),
        (rle_frame(64 * 64), RLE),
    ],
    ids=["jpeg", "progressive", "jp2", "j2k", "rle"],
)
def test_compressed_dicom_files_are_decoded(frame: bytes, syntax: str) -> None:
    assert decode(dicom_of(frame, syntax, 64)).size == (64, 64)


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


@pytest.mark.parametrize("value", [0, 2**32 - 1])
def test_senseless_sizes_of_tiles_give_a_reason(value: int) -> None:
    data = tiff_with_tile(32)
    changed = data.replace(_tag(322, 32), _tag(322, value))
    assert changed != data
    with pytest.raises(BadImage):
        decode(changed)


def test_threads_that_hold_a_file_and_wait_to_decode_it_do_not_wait_for_each_other() -> None:
    room, peak, used = MemoryBudget(100), [0], [0]
    lock = threading.Lock()

    def one(_: int) -> None:
        with room.reservation() as held:
            held.for_file(30)
            time.sleep(0.005)  # so that three hold a file before one decodes
            held.for_decoding(30, 90)
            with lock:
                used[0] += 90
                peak[0] = max(peak[0], used[0])
            time.sleep(0.001)
            with lock:
                used[0] -= 90

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(60), timeout=30))
    assert peak[0] == 90
    assert room._used == 0


def edit_through_a_map(path: Path, data: bytes) -> None:
    """Change a file's bytes and leave size, times and inode as they were."""
    before = path.stat()
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:] = data
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_image_edited_between_the_look_and_the_decoding_gets_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's state is made equal, as a write through a memory map can leave it."""
    model = make_tiny_model()
    first = photo(tmp_path / "photos" / "a.bmp", 1)
    photo(tmp_path / "photos" / "b.bmp", 2)
    other = photo(tmp_path / "other.bmp", 3).read_bytes()
    original = first.read_bytes()
    identify = file_index.identify
    state = file_index.file_state(first.stat())

    def edited_after_it(*arguments: Any, **options: Any) -> Any:
        found = identify(*arguments, **options)
        edit_through_a_map(first, other)
        return found

    monkeypatch.setattr("featcache.extraction.prepare.identify", edited_after_it)
    monkeypatch.setattr(
        "featcache.images.image_file.file_state", lambda _: state._replace(size=len(other))
    )
    monkeypatch.setattr(file_state, "_RACY_NS", 0)
    time.sleep(0.02)
    features = extract(model, tmp_path / "photos", cache_dir=tmp_path / "cache")
    assert [q.reason for q in features.quarantined] == [
        "was replaced since it was listed; run again"
    ]
    assert not Store(features.summary.folder).contains([content_id(original)])[0]


def test_pixels_are_those_of_the_bytes_that_were_hashed(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.bmp", 1)
    planned = content_id(path.read_bytes())
    edit_through_a_map(path, photo(tmp_path / "b.bmp", 2).read_bytes())
    with pytest.raises(BadImage, match="replaced"):
        load_pixels(path, (8, 8), "stretch", planned)
    edit_through_a_map(path, photo(tmp_path / "c.bmp", 1).read_bytes())
    assert np.asarray(load_pixels(path, (8, 8), "stretch", planned)).shape == (8, 8, 3)
