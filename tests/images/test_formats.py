"""Further formats: judged by content, whole or refused, and bounded in what they may cost."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import photo
from featcache import extract, load_dataset
from featcache.errors import DatasetError
from featcache.images import formats
from featcache.images.decode import DECODE_VERSION, decode
from featcache.images.image_file import BadImage


def noise(mode: str = "RGB", width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


LOSSLESS = {
    "jp2": ("JPEG2000", "RGB", {}), "ppm": ("PPM", "RGB", {}), "pgm": ("PPM", "L", {}),
    "pbm": ("PPM", "1", {}), "tga": ("TGA", "RGB", {}), "qoi": ("QOI", "RGB", {}),
    "rle.tga": ("TGA", "RGB", {"compression": "tga_rle"}), "sgi": ("SGI", "RGB", {}),
    "dds": ("DDS", "RGB", {}), "grey.tga": ("TGA", "L", {}), "palette.tga": ("TGA", "P", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_give_their_pixels_and_no_part_passes_for_the_whole(name: str) -> None:
    format_, mode, options = LOSSLESS[name]
    data = encoded(noise(mode), format_, **options)
    assert np.array_equal(decode(data), noise(mode).convert("RGB"))
    for tenth in range(1, 10):
        with pytest.raises(BadImage):
            decode(data[: len(data) * tenth // 10])


def test_avif_is_decoded_and_cut_ones_are_refused() -> None:
    ramp = Image.linear_gradient("L").convert("RGB")
    data = encoded(ramp, "AVIF", quality=95)
    assert np.abs(np.asarray(decode(data), int) - np.asarray(ramp, int)).max() < 8
    for tenth in range(1, 10):
        with pytest.raises(BadImage):
            decode(data[: len(data) * tenth // 10])


def test_sixteen_bit_grey_maps_are_scaled() -> None:
    image = Image.fromarray(np.full((4, 4), 32896, np.uint16))
    assert decode(encoded(image, "PPM")).getpixel((0, 0)) == (128,) * 3


def test_an_icon_gives_its_largest_picture() -> None:
    data = encoded(noise("RGBA", 64, 64), "ICO", sizes=[(16, 16), (64, 64)])
    assert decode(data).size == (64, 64)


def test_an_icon_that_hides_a_large_picture_is_refused() -> None:
    large = encoded(Image.new("1", (4000, 4000)), "PNG")
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(large), 22)
    with pytest.raises(BadImage, match="icon with a picture of more than"):
        decode(struct.pack("<HHH", 0, 1, 1) + entry + large)


@pytest.mark.parametrize(
    "data",
    [
        b"qoif" + struct.pack(">IIBB", 9000, 9000, 3, 0) + bytes(100),
        b"P3\n9000 9000\n255\n" + b"1 " * 100,
    ],
)
def test_formats_that_are_decoded_slowly_have_a_lower_limit(data: bytes) -> None:
    with pytest.raises(BadImage, match="limit for this format is 10,000,000"):
        decode(data)


def test_a_large_jpeg_2000_is_refused_by_its_codecs_memory() -> None:
    header = encoded(noise(), "JPEG2000", no_jp2=True)
    start = header.index(b"\xff\x51")  # SIZ: width and height follow 4 bytes after the length
    large = bytearray(header)
    struct.pack_into(">II", large, start + 6, 9000, 9000)
    struct.pack_into(">II", large, start + 22, 9000, 9000)
    with pytest.raises(BadImage, match=r"would take .* MB to decode"):
        decode(bytes(large))


def test_noise_is_never_an_image() -> None:
    generator = np.random.default_rng(1)
    for _ in range(500):
        with pytest.raises(BadImage, match="not an image of a known format"):
            decode(generator.bytes(200))


@pytest.mark.parametrize("format_", ["EPS", "PDF", "PCX", "MSP", "SPIDER", "TIFF-like raw"])
def test_formats_that_are_not_on_the_list_are_not_opened(format_: str) -> None:
    if format_ == "TIFF-like raw":
        assert not formats.is_readable(".nef")
        return
    modes = {"MSP": "1", "SPIDER": "F"}
    with pytest.raises(BadImage, match="not an image of a known format"):
        decode(encoded(noise(modes.get(format_, "RGB")), format_))


def test_a_new_format_changes_no_key() -> None:
    assert DECODE_VERSION == 1


def test_images_of_all_formats_become_rows(tmp_path: Path, tiny_model: Any) -> None:
    for name, (format_, mode, options) in LOSSLESS.items():
        (tmp_path / f"x.{name}").write_bytes(encoded(noise(mode), format_, **options))
    (tmp_path / "x.avif").write_bytes(encoded(noise(), "AVIF"))
    (tmp_path / "x.heic").write_bytes(heic(noise()))
    (tmp_path / "x.dcm").write_bytes(dicom(np.arange(64, dtype=np.uint16).reshape(8, 8)))
    features = extract(tiny_model, tmp_path)
    assert (len(features), features.quarantined) == (len(LOSSLESS) + 3, [])
    assert not features.summary.ignored


def heic(image: Image.Image, **options: Any) -> bytes:
    import pillow_heif

    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=95, **options)
    return out.getvalue()


def test_heic_is_decoded_upright_and_cut_ones_are_refused() -> None:
    ramp = Image.linear_gradient("L").convert("RGB")
    data = heic(ramp)
    assert formats.is_heif(data)
    assert np.abs(np.asarray(decode(data), int) - np.asarray(ramp, int)).max() < 12
    for tenth in range(1, 10):
        with pytest.raises(BadImage):
            decode(data[: len(data) * tenth // 10])


def test_a_heic_that_declares_a_huge_size_is_refused_before_it_is_decoded() -> None:
    large = bytearray(heic(noise()))
    for match in re.finditer(b"ispe", bytes(large)):  # the images' spatial extents
        struct.pack_into(">II", large, match.start() + 8, 30_000, 30_000)
    with pytest.raises(BadImage, match="900,000,000 pixels; the limit is"):
        decode(bytes(large))


def dicom(pixels: Any, photometric: str = "MONOCHROME2", bits: int = 16, **tags: Any) -> bytes:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = Dataset()
    file.file_meta = meta
    file.SOPClassUID, file.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    colour = pixels.ndim == 3
    file.Rows, file.Columns = pixels.shape[:2]
    file.SamplesPerPixel = 3 if colour else 1
    file.PhotometricInterpretation = photometric
    file.BitsAllocated = file.BitsStored = pixels.dtype.itemsize * 8
    file.HighBit, file.PixelRepresentation = file.BitsStored - 1, int(pixels.dtype.kind == "i")
    if colour:
        file.PlanarConfiguration = 0
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = pixels.tobytes()
    out = io.BytesIO()
    file.save_as(out, enforce_file_format=True)
    return out.getvalue()


def grey(data: bytes) -> Any:
    return np.asarray(decode(data))[..., 0]


def test_dicom_is_shown_in_the_window_that_the_file_names() -> None:
    values = np.array([[0, 100, 150, 200, 4000]], np.uint16)
    got = grey(dicom(values, WindowCenter=150.5, WindowWidth=101))
    assert got.tolist() == [[0, 0, 128, 255, 255]]
    exact = grey(dicom(values, WindowCenter=150, WindowWidth=100, VOILUTFunction="LINEAR_EXACT"))
    assert exact.tolist() == [[0, 0, 128, 255, 255]]
    several = grey(dicom(values, WindowCenter=[150.5, 2000], WindowWidth=[101, 4000]))
    assert several.tolist() == got.tolist()
    sigmoid = grey(dicom(values, WindowCenter=150, WindowWidth=100, VOILUTFunction="SIGMOID"))
    assert sigmoid[0, 2] == 128
    assert sigmoid[0, 1] == round(255 / (1 + np.e**2))


def test_dicom_values_are_rescaled_before_the_window() -> None:
    values = np.array([[0, 1024, 2048]], np.int16)
    got = grey(
        dicom(values, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=0.5, WindowWidth=2049)
    )
    assert got.tolist() == [[0, 128, 255]]


def test_dicom_without_a_window_goes_from_its_least_to_its_greatest_value() -> None:
    assert grey(dicom(np.array([[500, 600, 700]], np.uint16))).tolist() == [[0, 128, 255]]
    assert grey(dicom(np.full((2, 2), 9, np.uint16))).max() == 0


def test_monochrome1_is_inverted() -> None:
    values = np.array([[500, 600, 700]], np.uint16)
    assert grey(dicom(values, "MONOCHROME1")).tolist() == [[255, 128, 0]]


def test_a_dicom_lut_is_applied() -> None:
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 0, 8], struct.pack("<4H", 255, 128, 64, 0)
    values = np.arange(4, dtype=np.uint16).reshape(1, 4)
    assert grey(dicom(values, VOILUTSequence=[table])).tolist() == [[255, 128, 64, 0]]


def test_dicom_in_colour_and_the_first_of_several_frames() -> None:
    colours = np.asarray(noise("RGB", 6, 4))
    assert np.array_equal(decode(dicom(colours, "RGB")), colours)
    frames = np.stack([np.eye(4), 1 - np.eye(4)]).astype(np.uint16)
    data = dicom(frames[0], NumberOfFrames=1)
    both = dicom(frames.reshape(8, 4), NumberOfFrames=2, Rows=4)
    assert np.array_equal(decode(both), decode(data))


def test_damaged_and_huge_dicom_files_are_refused() -> None:
    data = dicom(np.arange(900, dtype=np.uint16).reshape(30, 30))
    for tenth in range(1, 10):
        with pytest.raises(BadImage):
            decode(data[: len(data) * tenth // 10])
    with pytest.raises(BadImage, match="the limit for DICOM"):
        decode(dicom(np.zeros((2, 2), np.uint16), Rows=60_000, Columns=60_000))
    with pytest.raises(BadImage, match="deflated"):
        decode(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99\0", 1))


@pytest.mark.parametrize(
    ("ending", "module", "extra"), [("heic", "pillow_heif", "heif"), ("dcm", "pydicom", "dicom")]
)
def test_without_the_extra_its_files_are_ignored_or_the_reason_names_it(
    tmp_path: Path,
    tiny_model: Any,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    module: str,
    extra: str,
) -> None:
    data = heic(noise()) if extra == "heif" else dicom(np.eye(8, dtype=np.uint16))
    photo(tmp_path / "a.png", 0)
    (tmp_path / f"b.{ending}").write_bytes(data)
    installed = formats._installed
    monkeypatch.setattr(formats, "_installed", lambda name: name != module and installed(name))
    features = extract(tiny_model, tmp_path)
    assert dict(features.summary.ignored) == {f".{ending}": 1}
    assert len(features) == 1
    hint = f"pip install -e '.[{extra}]' reads .{ending}"
    assert f"1 other file ignored: 1 .{ending}; {hint})" in str(features.summary)
    (tmp_path / "alone").mkdir()
    (tmp_path / f"b.{ending}").rename(tmp_path / "alone" / "unnamed.part2")
    assert list(extract(tiny_model, tmp_path).summary.hints) == [hint]
    with pytest.raises(DatasetError, match="No image was found") as caught:
        load_dataset(tmp_path / "alone")
    assert hint in str(caught.value)
    assert f".{ending}," not in str(caught.value)
    (tmp_path / "alone" / "unnamed.part2").rename(tmp_path / f"b.{ending}")
    listed = extract(tiny_model, [tmp_path / "a.png", tmp_path / f"b.{ending}"])
    assert f"pip install -e '.[{extra}]'" in listed.quarantined[0].reason
    monkeypatch.undo()
    # Nothing was remembered against the file: once the extra is there, so is the row.
    assert len(extract(tiny_model, [tmp_path / "a.png", tmp_path / f"b.{ending}"])) == 2
    assert len(load_dataset(tmp_path)) == 2


@pytest.mark.parametrize(
    ("format_", "mode"),
    [("BMP", "RGB"), ("PPM", "RGB"), ("PPM", "L"), ("PPM", "1"), ("DDS", "RGB")],
)
def test_images_without_a_known_ending_are_told_by_their_header(
    tmp_path: Path, format_: str, mode: str
) -> None:
    file = tmp_path / "scan.dat"
    file.write_bytes(encoded(noise(mode), format_))
    (tmp_path / "old").write_bytes(b"P2\n# by hand\n1 1\n255\n7\n")
    assert len(load_dataset(tmp_path)) == 2
    assert load_dataset(file).paths == [str(file)]


@pytest.mark.parametrize(
    "data", [b"BMW and others, in a list of cars", b"P2 is a processor", b"DDS in dentistry", b"P1"]
)
def test_texts_that_begin_as_images_do_are_none(tmp_path: Path, data: bytes) -> None:
    photo(tmp_path / "a.png", 0)
    (tmp_path / "notes").write_bytes(data)
    assert len(load_dataset(tmp_path)) == 1
