"""Images that would cost more to decode than their size and header suggest."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from PIL import ImageFile

from featcache.images import dicom_reader
from featcache.images.decode import decode
from featcache.images.image_file import BadImage


def _dicom_start() -> bytes:
    """Return the beginning of a DICOM file, to which elements can be appended."""
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2"
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _elements(count: int) -> bytes:
    elements = np.zeros(count, [("group", "<u2"), ("element", "<u2"), ("length", "<u4")])
    numbers = np.arange(count) + 0x00110000
    elements["group"], elements["element"] = numbers >> 16, numbers & 0xFFFF
    return elements.tobytes()


_ITEM = bytes.fromhex("feff00e000000000")  # without elements
_VOI = bytes.fromhex("28001030")  # the tag of the VOI LUT sequence


def _nested(count: int) -> bytes:
    """Return a sequence of undefined length with empty items."""
    return _VOI + b"\xff" * 4 + _ITEM * count + bytes.fromhex("feffdde000000000")


def _nested_of_known_length(count: int) -> bytes:
    return _VOI + (8 * count).to_bytes(4, "little") + _ITEM * count


@pytest.mark.parametrize("make", [_elements, _nested, _nested_of_known_length])
def test_a_dicom_file_of_too_many_elements_is_refused(
    make: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_reader, "MAX_READS", 2000)
    with pytest.raises(BadImage, match="without an image"):  # also imports what takes memory
        decode(_dicom_start() + make(10))
    data = _dicom_start() + make(10_000)
    tracemalloc.start()
    with pytest.raises(BadImage, match=r"more than 2,000 reads"):
        decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2000 * dicom_reader._BYTES_PER_READ + 4 * len(data)


@pytest.mark.parametrize("make", [_elements, _nested])
def test_the_memory_of_dicom_elements_is_reserved_while_they_are_read(
    make: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_reader, "_BLOCK", 1000)
    data = _dicom_start() + make(2500)
    reserved: list[int] = []
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    dicom_reader.read_dicom(data, reserved.append)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert len(reserved) >= 2
    assert peak < sum(reserved) + 1000 * dicom_reader._BYTES_PER_READ + 2 * len(data)


_SIDES = 4000, 3000  # beyond the limit for what Pillow decodes in Python


def _dds() -> bytes:
    """Return a DDS image of 8 bits per pixel, with a mask for each colour."""
    width, height = _SIDES
    head = struct.pack("<7I", 124, 0x1007, height, width, width, 0, 0) + bytes(44)
    form = struct.pack("<2I4s5I", 32, 0x40, b"\0\0\0\0", 8, 0xE0, 0x1C, 3, 0)
    return b"DDS " + head + form + struct.pack("<5I", 0x1000, 0, 0, 0, 0) + bytes(width * height)


def _compressed_bmp() -> bytes:
    """Return a BMP whose run lengths say nothing: all pixels are 0."""
    head = struct.pack("<IiiHHIIiiII", 40, *_SIDES, 1, 8, 1, 2, 0, 0, 256, 0)
    start = 14 + len(head) + 1024
    return struct.pack("<2sIII", b"BM", start + 2, 0, start) + head + bytes(1024) + b"\0\1"


@pytest.mark.parametrize(
    "data",
    [
        b"P5 %d %d 200\n" % _SIDES + bytes(_SIDES[0] * _SIDES[1]),
        b"P6 %d %d 200\n" % _SIDES + bytes(3 * _SIDES[0] * _SIDES[1]),
        b"P2 %d %d 255\n" % _SIDES,
        _dds(),
        _compressed_bmp(),
    ],
    ids=["P5 of 200 values", "P6 of 200 values", "P2", "DDS of 8 bits", "BMP of run lengths"],
)
def test_a_large_image_that_pillow_decodes_in_python_is_refused_before_it_is_decoded(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object) -> None:
        raise AssertionError("it is decoded")

    monkeypatch.setattr(ImageFile.PyDecoder, "setimage", started)
    with pytest.raises(BadImage, match="12,000,000 pixels; the limit for this format is"):
        decode(data)


def test_a_large_image_that_pillow_decodes_in_c_is_decoded() -> None:
    image = decode(b"P5 %d %d 255\n" % _SIDES + bytes(_SIDES[0] * _SIDES[1]))
    assert image.size == _SIDES
