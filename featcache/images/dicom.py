"""Decoding of DICOM images to 8 bits with pydicom (the extra ``dicom``)."""

# pydicom.pixels does not list its public functions in __all__.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import dicom_frames, formats, limits
from .dicom_reader import read_dicom
from .image_file import BadImage

# pydicom would inflate the whole file at once, without a limit.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_BYTES_PER_SAMPLE = 24  # float64, and the copies that pydicom makes


def open_dicom(data: bytes, held: limits.Reservation) -> tuple[Any, int]:
    """Return an opened DICOM file, and the bytes of memory that decoding it needs.

    The memory of its elements is reserved while they are read.

    Raises
    ------
    BadImage
        Without pydicom, or if the file is too large, has no image or too many elements, or has
        a compression that no installed package decodes.
    """
    formats.require("pydicom", "a DICOM file")
    if _DEFLATED in data:
        raise BadImage("is a DICOM file of the deflated transfer syntax, whose size is unknown")
    file = read_dicom(data, lambda count: held.for_decoding(len(data), count))
    return file, _check(file)


def render_dicom(file: Any) -> Image.Image:
    """Decode the first frame of a DICOM file.

    Grey values go through the modality's rescaling and the first window or VOI LUT that the
    file names (PS3.3 C.11.2); without one, the frame's smallest value is black and its largest
    white. ``MONOCHROME1`` is inverted. Colours are converted to RGB.

    Returns
    -------
    PIL.Image.Image
        Grey ("L") or RGB.
    """
    from pydicom import pixels

    values = pixels.pixel_array(file, index=0)
    if file.PhotometricInterpretation == "PALETTE COLOR":
        values = pixels.apply_color_lut(values, file)
        return Image.fromarray(_scale_to_uint8(values[..., :3], 8 * values.itemsize))
    if values.ndim == 3:
        return Image.fromarray(_scale_to_uint8(values, int(file.BitsStored)))
    grey = _apply_window(pixels.apply_rescale(values, file), file)
    if file.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
    return Image.fromarray(np.rint(grey * 255).astype(np.uint8))


def _check(file: Any) -> int:
    """Return the bytes that decoding needs; raise `BadImage` beyond a limit or if impossible."""
    from pydicom import pixels

    if "PixelData" not in file:
        raise BadImage("is a DICOM file without an image")
    rows, columns = int(file.Rows), int(file.Columns)
    needed = rows * columns * int(file.SamplesPerPixel) * _BYTES_PER_SAMPLE
    if rows < 1 or columns < 1 or needed > limits.MAX_WORKING_BYTES:
        raise BadImage(
            f"has {columns:,} x {rows:,} pixels; the limit for DICOM is "
            f"{limits.MAX_WORKING_BYTES // _BYTES_PER_SAMPLE:,} values"
        )
    syntax = file.file_meta.TransferSyntaxUID
    if syntax.is_compressed and not pixels.get_decoder(syntax).is_available:
        raise BadImage(
            f"is compressed as {syntax.name}; pip install 'pylibjpeg[all]' reads it", lasting=False
        )
    if syntax.is_encapsulated:
        needed += dicom_frames.frame_bytes(_first_frame(file), (columns, rows))
        if needed > limits.MAX_WORKING_BYTES:
            raise BadImage(
                f"would take {needed / 1e6:,.0f} MB to decode as DICOM; the limit is "
                f"{limits.MAX_WORKING_BYTES / 1e6:,.0f} MB"
            )
    return needed


def _first_frame(file: Any) -> bytes:
    """Return the compressed bytes of the first frame, located as pydicom does."""
    from pydicom.encaps import get_frame

    tables = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    frame: bytes = get_frame(
        file.PixelData,
        0,
        extended_offsets=tuple(file[t].value for t in tables) if tables[0] in file else None,
        number_of_frames=int(file.get("NumberOfFrames") or 1),
    )
    return frame


def _apply_window(values: NDArray[Any], file: Any) -> NDArray[np.float64]:
    """Map grey values to 0..1 by the file's first VOI LUT or window."""
    from pydicom import pixels

    if "VOILUTSequence" in file:
        bits = int(file.VOILUTSequence[0].LUTDescriptor[2])
        mapped = np.asarray(pixels.apply_voi(values, file), np.float64)
        return np.asarray(np.clip(mapped / (2**bits - 1), 0, 1))
    center, width = _first(file.get("WindowCenter")), _first(file.get("WindowWidth"))
    x = np.asarray(values, np.float64)
    if center is None or width is None:
        low, high = x.min(), x.max()
        return (x - low) / (high - low) if high > low else np.zeros_like(x)
    how = str(file.get("VOILUTFunction") or "LINEAR")
    if how == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (x - center) / width, -700, 700))))
    if how == "LINEAR":
        center, width = center - 0.5, width - 1
    if width <= 0:  # a window of one value: a threshold
        return (x > center).astype(np.float64)
    return np.asarray(np.clip((x - center) / width + 0.5, 0, 1))


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value if isinstance(value, (int, float, str)) else value[0])


def _scale_to_uint8(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if bits <= 8:
        return values.astype(np.uint8)
    most = 2**bits - 1
    return np.asarray((values.astype(np.int64) * 255 + most // 2) // most, np.uint8)
