"""200 malformed files among good ones: each a row or a reason, and the good ones unchanged."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import make_tiny_model, photo
from featcache import Dataset, extract
from featcache.images.decode import decode
from featcache.images.image_file import BadImage
from featcache.images.limits import MAX_PIXELS


def save(image: Image.Image, format_: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def noise(width: int = 40, height: int = 30, mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing: a bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + sum_

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def odd_files() -> Iterator[tuple[str, bytes, bool | None]]:
    """Yield name, bytes, and whether it is usable; None where either will do."""
    kinds = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF", "tif": "TIFF"}
    for suffix, format_ in kinds.items():
        data = save(noise(seed=len(suffix)), format_)
        yield f"whole.{suffix}", data, True
        yield f"empty.{suffix}", b"", False
        for tenth in range(1, 10):
            # A BMP or TIFF may have all its pixels before its end.
            cut = data[: len(data) * tenth // 10]
            yield f"cut{tenth}.{suffix}", cut, None if suffix == "tif" else False
        for other in kinds:
            if other != suffix:  # the content counts, not the name
                yield f"{suffix}-named.{other}", data, True
        for flip in range(8):
            spoiled = bytearray(data)
            spoiled[len(data) * (flip + 1) // 10] ^= 0xFF
            yield f"flipped{flip}.{suffix}", bytes(spoiled), None
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16", "CMYK", "YCbCr"):
        format_ = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
        image = noise().convert("L").convert("I;16") if mode == "I;16" else noise(mode=mode)
        yield f"mode-{mode.replace(';', '')}.{format_.lower()[:4]}", save(image, format_), True
    yield "cmyk.jpg", save(noise(mode="CMYK"), "JPEG"), True
    yield "float.tif", save(noise().convert("F"), "TIFF"), False
    palette = noise().convert("P")
    yield "palette-alpha.png", save(palette, "PNG", transparency=3), True
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"turned{orientation}.jpg", save(noise(), "JPEG", exif=exif), True
    for number, exif_bytes in enumerate(
        [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0" + os.urandom(40), b"\0" * 30]
    ):
        yield f"exif{number}.jpg", save(noise(), "JPEG", exif=exif_bytes), True
    yield "icc.jpg", save(noise(), "JPEG", icc_profile=b"no profile at all"), True
    yield "comment.jpg", save(noise(), "JPEG", comment=b"\xff" * 60_000), True
    yield "xmp.webp", save(noise(), "WEBP", xmp=b"<broken"), True
    frames = [noise(seed=i) for i in range(4)]
    for suffix, format_ in (("gif", "GIF"), ("png", "PNG"), ("webp", "WEBP"), ("mpo", "MPO")):
        data = save(frames[0], format_, save_all=True, append_images=frames[1:])
        yield f"moving.{suffix}", data, True
    for width, height in ((1, 1), (1, 20_000), (20_000, 1), (3, 7)):
        yield f"size{width}x{height}.png", save(noise(width, height), "PNG"), True
    for number, (width, height) in enumerate(
        [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (MAX_PIXELS + 1, 1), (0, 5), (5, 0)]
    ):
        yield f"bomb{number}.png", png_header(width, height), False
    for number, data in enumerate(
        [
            b"\0" * 100,
            b"GIF89a",
            b"\xff\xd8\xff",
            b"%PDF-1.7",
            b"<svg/>",
            b"<html>",
            os.urandom(500),
        ]
    ):
        yield f"nothing{number}.jpg", data, False


NAMES = (
    "new\nline.png",
    "tab\t.png",
    "emoji 🐕.png",
    "quote'\".png",
    "-dash.png",
    "a" * 200 + ".png",
)


@pytest.mark.timeout(600)
def test_every_odd_file_is_a_row_or_a_reason(tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    usable: dict[str, bool | None] = {}
    for name, data, good in odd_files():
        (odd / name).write_bytes(data)
        usable[str(odd / name)] = good
    for i, name in enumerate(NAMES):
        usable[str(photo(odd / name, 500 + i))] = True
    raw = os.fsencode(str(odd)) + b"/caf\xe9.png"  # a name that is no UTF-8
    Path(os.fsdecode(raw)).write_bytes(save(noise(seed=99), "PNG"))
    usable[os.fsdecode(raw)] = True
    (odd / "loop1.png").symlink_to("loop2.png")
    (odd / "loop2.png").symlink_to("loop1.png")
    (odd / "dangling.png").symlink_to("nowhere.png")
    os.mkfifo(odd / "pipe.png")
    (odd / "folder.png").mkdir()
    for name in ("loop1.png", "loop2.png", "dangling.png", "pipe.png", "folder.png"):
        usable[str(odd / name)] = False
    usable["/dev/zero"] = usable["/dev/null"] = usable[str(odd / "missing.png")] = False
    assert len(usable) >= 200
    good = [str(photo(tmp_path / "good" / f"{i}.png", i)) for i in range(10)]
    # Good ones first, in the middle and last.
    paths = [*good[:4], *list(usable)[::2], *good[4:7], *list(usable)[1::2], *good[7:]]
    features = extract(make_tiny_model(), Dataset(paths, name="odd"), batch_size=16)
    reasons = {bad.path: bad.reason for bad in features.quarantined}
    assert set(features.paths) | set(reasons) == set(paths)
    assert not set(features.paths) & set(reasons)
    wrong = {
        Path(path).name: reasons.get(path, "it has a row")
        for path, good in usable.items()
        if good is not None and good == (path in reasons)
    }
    assert not wrong
    assert all(len(reason) > 5 and "Traceback" not in reason for reason in reasons.values())
    # Each good one has the row that it has alone.
    alone = extract(make_tiny_model(), good, cache_dir=tmp_path / "alone")
    rows = dict(zip(features.paths, np.asarray(features.X), strict=True))
    for path, row in zip(alone.paths, np.asarray(alone.X), strict=True):
        assert np.allclose(rows[path], row, rtol=1e-5, atol=1e-5)
    # What is known to be bad is not tried again.
    again = extract(make_tiny_model(), Dataset(paths, name="odd"), batch_size=16)
    assert again.summary.computed == 0
    assert {bad.path for bad in again.quarantined} == set(reasons)


def test_a_file_that_vanishes_or_shrinks_meanwhile_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import featcache.extraction.extract

    paths = [photo(tmp_path / "p" / f"{i}.png", i) for i in range(6)]
    prepare = featcache.extraction.extract.prepare_layers

    def then_things_change(*arguments: Any, **options: Any) -> Any:
        job = prepare(*arguments, **options)
        paths[1].unlink()
        paths[3].write_bytes(paths[3].read_bytes()[:100])
        return job

    monkeypatch.setattr(featcache.extraction.extract, "prepare_layers", then_things_change)
    features = extract(make_tiny_model(), tmp_path / "p")
    assert len(features) == 4
    told = {Path(bad.path).name: bad.reason for bad in features.quarantined}
    assert "cannot be opened" in told["1.png"]
    assert "was replaced" in told["3.png"]


def scanned(times: int) -> bytes:
    """A progressive JPEG whose first scan stands in it many times over."""
    data = save(Image.new("L", (6000, 6000)), "JPEG", progressive=True)
    start = data.index(b"\xff\xda")
    scan = data[start : data.index(b"\xff", start + 12)]
    return data[:start] + times * scan + data[start:]


def test_a_jpeg_of_endless_scans_is_refused_by_count() -> None:
    assert decode(scanned(0)).size == (6000, 6000)
    with pytest.raises(BadImage, match=r"6,000 x 6,000 pixels in [0-9,]+ scans"):
        decode(scanned(1000))


@pytest.mark.parametrize("mode", ["RGBA", "I;16", "LA", "P", "CMYK", "1"])
def test_a_tall_image_converted_in_strips_is_what_it_is_in_one(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    from featcache.images import decode as images

    source = noise(40, 33, "RGBA")
    if mode == "I;16":
        values = np.asarray(source.convert("L")).astype(np.uint16) * 257
        data = save(Image.fromarray(values), "PNG")
    else:
        step = source.convert("RGB") if mode in ("P", "CMYK") else source
        data = save(step.convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    whole = np.asarray(decode(data))
    monkeypatch.setattr(images, "_STRIP_PIXELS", 100)
    assert np.array_equal(np.asarray(decode(data)), whole)


_PEAK = """
import sys
from concurrent.futures import ThreadPoolExecutor
from featcache.images.image_file import BadImage
from featcache.images.decode import pixels_of
from featcache.images.limits import MemoryBudget
budget = MemoryBudget()
def load(path):
    try:
        with budget.reservation() as held:
            return pixels_of(open(path, 'rb').read(), (64, 48), 'stretch', None, held).shape
    except BadImage as bad:
        return str(bad)
with ThreadPoolExecutor(int(sys.argv[1])) as pool:
    print(list(pool.map(load, sys.argv[2:])))
# Not getrusage: that holds the size of the process which this one was forked from.
print(next(int(s.split()[1]) // 1024 for s in open('/proc/self/status') if 'VmHWM' in s))
"""


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_images_as_large_as_allowed_stay_within_memory(tmp_path: Path, workers: int) -> None:
    pages = {
        "alpha.png": ("RGBA", "PNG", {"compress_level": 1}),
        "sixteen.png": ("I;16", "PNG", {"compress_level": 1}),
        "progressive.jpg": ("RGB", "JPEG", {"progressive": True}),
        "inks.tif": ("CMYK", "TIFF", {"compression": "tiff_lzw"}),
    }
    for name, (mode, format_, options) in pages.items():
        Image.new(mode, (10_000, 10_000)).save(tmp_path / name, format_, **options)
    paths = [str(tmp_path / name) for name in pages]
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(workers), *paths],
        capture_output=True,
        text=True,
        check=True,
    )
    told, peak = done.stdout.splitlines()
    assert told.count("(64, 48, 3)") == 3
    assert "would take 1,000 MB to decode (10,000 x 10,000, RGB); the limit is 800 MB" in told
    assert int(peak) < 1000
