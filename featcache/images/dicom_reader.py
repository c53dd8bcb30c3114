"""Reading of a DICOM file's elements with a limit on their number.

pydicom makes objects of a kilobyte for elements of eight bytes. The reads that it makes are
counted: there is one for each element at least, at any depth of sequences.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from .image_file import BadImage

MAX_READS = 400_000
_BLOCK = 10_000
_BYTES_PER_READ = 1500  # of an empty item of a sequence, which is the largest per read
# Sequences whose items are used; pydicom parses them when they are accessed.
_SEQUENCES = ("ModalityLUTSequence", "VOILUTSequence")


class _CountedBytes(io.BytesIO):
    """Bytes that count the reads, and reserve memory for what is made of them."""

    def __init__(self, data: bytes, reserve: Callable[[int], None], reads: int = 0) -> None:
        super().__init__(data)
        self._reserve, self.reads = reserve, reads

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise _too_many()
        if self.reads % _BLOCK == 0:
            self._reserve(_BLOCK * _BYTES_PER_READ)
        return super().read(size)


def read_dicom(data: bytes, reserve: Callable[[int], None]) -> Any:
    """Return a DICOM file as pydicom reads it.

    Parameters
    ----------
    data : bytes
    reserve : function of int
        Called with a number of bytes before that much more memory is used.

    Raises
    ------
    BadImage
        If it takes more than `MAX_READS` reads.
    """
    from pydicom import dcmread

    source = _CountedBytes(data, reserve)
    try:
        file = dcmread(source)
        for name in _SEQUENCES:
            _count_sequence(file, name, source)
    except Exception as error:
        if source.reads > MAX_READS:  # pydicom raises errors of its own in between
            raise _too_many() from error
        raise
    return file


def _count_sequence(file: Any, name: str, source: _CountedBytes) -> None:
    """Parse a sequence within the limit if pydicom has not parsed it yet."""
    from pydicom.dataelem import RawDataElement
    from pydicom.filereader import read_sequence

    raw = file.get_item(name) if name in file else None
    if not isinstance(raw, RawDataElement) or not raw.value:
        return
    inner = _CountedBytes(raw.value, source._reserve, source.reads)
    try:
        read_sequence(inner, raw.is_implicit_VR, raw.is_little_endian, len(raw.value), ["iso8859"])
    finally:
        source.reads = inner.reads


def _too_many() -> BadImage:
    return BadImage(
        f"is a DICOM file of too many elements: reading them takes more than {MAX_READS:,} "
        "reads, which is the limit"
    )
