"""From bytes to pixels: every format right, every bad file a reason."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featcache.images import decode as images
from featcache.images.decode import decode, load_pixels, resize
from featcache.images.image_file import MAX_BYTES, BadImage, content_id, read_file


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def ramp(width: int = 8, height: int = 4) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 30, y * 60, x * 0 + 90], -1).astype(np.uint8))


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_pixels_that_were_saved(format_: str) -> None:
    assert np.array_equal(decode(encoded(ramp(), format_)), ramp())


def test_lossless_webp_gives_the_pixels_that_were_saved() -> None:
    assert np.array_equal(decode(encoded(ramp(), "WEBP", lossless=True)), ramp())


def test_jpeg_is_what_pillow_decodes() -> None:
    data = encoded(ramp(64, 64), "JPEG")
    assert np.array_equal(decode(data), Image.open(io.BytesIO(data)).convert("RGB"))


def test_gif_gives_its_first_frame() -> None:
    red, blue = Image.new("RGB", (5, 5), "red"), Image.new("RGB", (5, 5), "blue")
    data = encoded(red, "GIF", save_all=True, append_images=[blue])
    assert decode(data).getpixel((2, 2)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation: int) -> None:
    upright = np.asarray(ramp())
    turns = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turns[orientation]))
    assert np.array_equal(decode(encoded(stored, "PNG", exif=exif)), upright)


def test_broken_exif_does_not_spoil_sound_pixels() -> None:
    data = encoded(ramp(), "PNG", exif=b"Exif\x00\x00MM\x00*garbage")
    assert np.array_equal(decode(data), ramp())


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    assert [decode(encoded(image, "PNG")).getpixel((x, 0)) for x in (0, 1)] == [
        (255, 255, 255),
        (0, 0, 0),
    ]


def test_a_palette_with_a_transparent_entry_is_laid_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    got = decode(encoded(image, "PNG", transparency=0))
    assert [got.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (40, 50, 60)]


def test_grey_with_alpha_is_laid_on_white() -> None:
    assert decode(encoded(Image.new("LA", (1, 1), (7, 0)), "PNG")).getpixel((0, 0)) == (255,) * 3


def test_cmyk_jpeg_keeps_its_colours() -> None:
    data = encoded(Image.new("RGB", (16, 16), (200, 30, 60)).convert("CMYK"), "JPEG", quality=95)
    assert np.allclose(np.asarray(decode(data)), (200, 30, 60), atol=6)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (257, 1), (32896, 128), (65535, 255)])
def test_sixteen_bits_are_scaled_not_clipped(value: int, expected: int) -> None:
    image = Image.fromarray(np.full((2, 2), value, np.uint16))
    assert decode(encoded(image, "PNG")).getpixel((0, 0)) == (expected,) * 3


def test_one_bit_images_are_black_and_white() -> None:
    assert decode(encoded(Image.new("1", (3, 3), 1), "PNG")).getpixel((0, 0)) == (255,) * 3


def test_float_tiff_is_refused_since_its_range_is_unknown() -> None:
    with pytest.raises(BadImage, match="floating-point"):
        decode(encoded(Image.new("F", (3, 3), 0.5), "TIFF"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, this is text", "not an image of a known format"),
        (encoded(ramp(), "PNG")[:40], "damaged"),
        (encoded(ramp(99, 99), "JPEG")[:600], "damaged"),
    ],
)
def test_bad_bytes_give_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(data)


@pytest.mark.parametrize("share", [i / 10 for i in range(10)])
def test_a_jpeg_cut_off_anywhere_is_never_taken_for_whole(share: float) -> None:
    data = encoded(Image.effect_noise((80, 80), 90).convert("RGB"), "JPEG")
    with pytest.raises(BadImage):
        decode(data[: int(len(data) * share)])


def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images.limits, "MAX_PIXELS", 1000)
    with pytest.raises(BadImage, match="the limit is 1,000"):
        decode(encoded(Image.new("1", (100, 11)), "PNG"))


def test_an_image_beyond_the_limit_of_pillow_has_too_many_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # an error from twice as many
    with pytest.raises(BadImage, match="has too many pixels; the limit is"):
        decode(encoded(Image.new("1", (100, 11)), "PNG"))


def test_other_formats_that_pillow_knows_are_refused() -> None:
    with pytest.raises(BadImage, match="known format"):
        decode(encoded(ramp(), "EPS"))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadImage, match="not a regular file"):
        read_file(tmp_path / "pipe.jpg")


@pytest.mark.parametrize("name", ["missing.jpg", "nul\0byte.jpg"])
def test_an_unopenable_path_is_a_reason_that_does_not_last(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadImage) as raised:
        read_file(f"{tmp_path}/{name}")
    assert not raised.value.lasting


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with open(tmp_path / "photo.jpg", "wb") as file:
        file.truncate(MAX_BYTES + 1)  # takes no space on the disk
    reserved: list[int] = []
    with pytest.raises(BadImage, match=f"is {MAX_BYTES + 1:,} bytes; the limit is {MAX_BYTES:,}"):
        read_file(tmp_path / "photo.jpg", reserved.append)
    assert reserved == []


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="only Linux has this file")
def test_a_file_that_the_system_cannot_read_has_a_reason_that_does_not_last() -> None:
    # Its first bytes belong to no page: a regular file whose reading fails.
    with pytest.raises(BadImage, match=r"cannot be read: .*Input/output error") as raised:
        read_file("/proc/self/mem")
    assert not raised.value.lasting


def test_a_file_that_comes_in_parts_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(1000)
    (tmp_path / "photo.jpg").write_bytes(data)
    at_once = os.read
    monkeypatch.setattr(os, "read", lambda handle, size: at_once(handle, min(size, 300)))
    assert read_file(tmp_path / "photo.jpg")[0] == data


@pytest.mark.parametrize("length", [500, 1500])
def test_a_file_that_shrinks_or_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(os.urandom(1000))
    at_once = os.read

    def read(handle: int, size: int) -> bytes:
        os.truncate(photo, length)
        return at_once(handle, size)

    monkeypatch.setattr(os, "read", read)
    with pytest.raises(BadImage, match="changed while it was being read") as caught:
        read_file(photo)
    assert not caught.value.lasting


def test_a_file_replaced_since_it_was_listed_is_not_stored_under_the_old_name(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(ramp(), "PNG"))
    planned = content_id(path.read_bytes())
    assert load_pixels(path, (4, 8), "stretch", planned).shape == (4, 8, 3)
    path.write_bytes(encoded(ramp(9, 9), "PNG"))
    with pytest.raises(BadImage, match="replaced"):
        load_pixels(path, (4, 8), "stretch", planned)


def test_resizing_stretches_crops_or_pads() -> None:
    wide = Image.new("RGB", (40, 20), "white")
    wide.paste("red", (0, 0, 10, 20))
    shapes = {how: resize(wide, (20, 20), how) for how in images.RESIZES}
    assert {pixels.shape for pixels in shapes.values()} == {(20, 20, 3)}
    assert shapes["stretch"][10, 2].tolist() == [255, 0, 0]
    assert shapes["crop"][10, 2].tolist() == [255, 255, 255]  # the red margin is cut off
    assert shapes["pad"][1, 10].tolist() == [0, 0, 0]


def test_resizing_is_pillows_antialiased_bilinear() -> None:
    noise = Image.effect_noise((50, 50), 90).convert("RGB")
    expected = np.asarray(noise.resize((13, 9), Image.Resampling.BILINEAR))
    assert np.array_equal(resize(noise, (9, 13)), expected)
