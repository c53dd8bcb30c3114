"""What compressed DICOM files may cost: frames that are larger than the file declares."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest
from made_jpeg_2000 import jpeg_2000
from peak_memory import peak_of
from PIL import Image

from featcache.images.decode import decode
from featcache.images.image_file import BadImage


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
