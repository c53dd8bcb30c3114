"""What images may cost to read and decode: TIFF, WebP, and files that threads share memory for."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from peak_memory import peak_of
from PIL import Image

from featcache.images.decode import decode
from featcache.images.image_file import BadImage
from featcache.images.limits import MemoryBudget, working_bytes


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
