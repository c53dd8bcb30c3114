"""Header and verification of packed stores, without HDF5.

A packed store is an HDF5 file after a user block, which HDF5 skips. The block begins with one
line: format version, SHA-256 of everything after the line, and size of the whole file. A JSON
header with the offsets of the rows follows. A reader verifies the digest first and then reads
rows by their offsets, so that HDF5 never parses an untrusted file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.file_state import file_state
from ..errors import StoreCorrupt, StoreError, StoreFormatError
from ..hdf5.row_dtype import Rows, row_dtype
from ..hdf5.shard_metadata import ID_BYTES

PACK_VERSION = 2
_LINE = re.compile(
    rb"featcache-pack (?P<version>[0-9]{4}) sha256 (?P<digest>[0-9a-f]{64}) "
    rb"bytes (?P<size>[0-9]{20})\n"
)
LINE_BYTES = len(b"featcache-pack 0000 sha256  bytes \n") + 64 + 20
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MAX_HEADER_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 18


@dataclass(frozen=True)
class PackHeader:
    """Header of a packed store.

    Attributes
    ----------
    spec : dict
        The components of the `BackboneSpec`.
    about : dict of str to str
    rows, width : int
    embeddings, image_id : int
        Offsets of the values in the file: (rows, width) of `dtype`, and uint8 (rows, 32).
    """

    spec: dict[str, Any]
    about: dict[str, str]
    rows: int
    width: int
    embeddings: int = 0
    image_id: int = 0

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        """The dtype of the rows; ValueError if the spec names an unknown one."""
        return row_dtype(self.spec)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * self.width

    def user_block(self) -> int:
        """Return the size of the user block in bytes: 512 or a larger power of two."""
        size, needed = 512, LINE_BYTES + len(self._text()) + 2 * 20
        while size < needed:
            size *= 2
        return size

    def encode(self, user_block: int) -> bytes:
        """Return the user block without its first line."""
        return self._text().ljust(user_block - LINE_BYTES, b"\0")

    def _text(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode() + b"\n"


def first_line(digest: str, size: int) -> bytes:
    """Return the first line of a packed store.

    >>> len(first_line("0" * 64, 1)) == LINE_BYTES
    True
    """
    return f"featcache-pack {PACK_VERSION:04d} sha256 {digest} bytes {size:020d}\n".encode()


class PackReader:
    """An open packed store whose digest has been verified; close it with `close`.

    Attributes
    ----------
    header : PackHeader

    Raises
    ------
    StoreError
        If the file does not exist, or the system refuses to read it.
    StoreFormatError
        If another version of this library wrote it.
    StoreCorrupt
        If it is not an intact packed store.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise StoreError(f"There is no file {path}. Name one that `pack` wrote.", path=path)
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115  closed by `close`
        except OSError as error:
            raise self._read_error(error) from error
        try:
            self._verify_bytes()
            self.header = self._read_header()
        except OSError as error:
            self.close()
            raise self._read_error(error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file. Can be called several times."""
        self._file.close()

    def blocks(self, count: int) -> Iterator[tuple[Rows, NDArray[np.uint8]]]:
        """Yield rows (n, width), as they are stored, and ids (n, 32), uint8, `count` at a time.

        Raises
        ------
        StoreCorrupt
            If the file has changed since it was verified.
        """
        header = self.header
        for start in range(0, header.rows, count):
            stop = min(start + count, header.rows)
            rows = np.empty((stop - start, header.width), header.dtype)
            ids = np.empty((stop - start, ID_BYTES), np.uint8)
            self._fill(rows, header.embeddings + start * header.row_bytes)
            self._fill(ids, header.image_id + start * ID_BYTES)
            if file_state(os.fstat(self._file.fileno())) != self._state:
                raise self._corrupt_error("it was changed while it was read")
            yield rows, ids

    def _verify_bytes(self) -> None:
        """Check version, size and digest, in this order, before anything else is read."""
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise self._corrupt_error("it is not a regular file")
        self._state = file_state(status)
        line = self._file.read(LINE_BYTES) or b""
        found = _LINE.fullmatch(line)
        if found is None:
            raise self._unknown_format_error(line)
        if int(found["version"]) != PACK_VERSION:
            raise self._other_version_error(found, status.st_size)
        if int(found["size"]) != status.st_size:
            raise self._corrupt_error(
                f"it has {status.st_size:,} bytes, not {int(found['size']):,}"
            )
        if self._digest() != found["digest"].decode():
            raise self._corrupt_error("its SHA-256 is not the one that was written")

    def _other_version_error(self, line: re.Match[bytes], size: int) -> StoreError:
        """Return the error for another version's number, which may be a damaged one of ours.

        The digest does not cover the number. A file that is intact, and read as this version
        writes it, is of this version: another one would have another header.
        """
        try:
            if int(line["size"]) == size and self._digest() == line["digest"].decode():
                self._read_header()
                return self._corrupt_error("its version number is damaged")
        except StoreCorrupt:
            pass
        return self._version_error(str(int(line["version"])))

    def _digest(self) -> str:
        """Return the SHA-256 of everything after the first line."""
        digest = hashlib.sha256()
        block = memoryview(bytearray(_BLOCK_BYTES))
        while count := self._file.readinto(block):
            digest.update(block[:count])
        return digest.hexdigest()

    def _read_header(self) -> PackHeader:
        """Read the header and check that all values lie within the file."""
        self._file.seek(LINE_BYTES)
        text, end, _ = (self._file.read(_MAX_HEADER_BYTES) or b"").partition(b"\n")
        try:
            header = _parse_header(json.loads(text) if end else None)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._corrupt_error("its header is malformed") from error
        for offset, row_bytes in (
            (header.embeddings, header.row_bytes),
            (header.image_id, ID_BYTES),
        ):
            if not LINE_BYTES <= offset <= self._state.size - header.rows * row_bytes:
                raise self._corrupt_error("a part of its rows lies outside the file")
        return header

    def _fill(self, values: NDArray[Any], offset: int) -> None:
        view = values.data.cast("B")
        self._file.seek(offset)
        while view:  # a raw read may be short
            try:
                count = self._file.readinto(view)
            except OSError as error:
                raise self._read_error(error) from error
            if not count:
                raise self._corrupt_error("it was changed while it was read")
            view = view[count:]

    def _unknown_format_error(self, line: bytes) -> StoreError:
        if line.startswith(_HDF5):
            return self._version_error("1")
        return self._corrupt_error("its first line is not that of a packed store")

    def _version_error(self, version: str) -> StoreFormatError:
        return StoreFormatError(
            f"{self._path} is not a packed store of format version {PACK_VERSION}, but of version "
            f"{version} or another HDF5 file. Pack the store again with this version of featcache "
            "(or unpack it with the version that packed it).",
            path=self._path,
            version=int(version),
        )

    def _corrupt_error(self, reason: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self._path} is not an intact packed store: {reason}. "
            "Copy the file again from its source, or pack the store again.",
            path=self._path,
            reason=reason,
        )

    def _read_error(self, error: OSError) -> StoreError:
        reason = error.strerror or str(error)
        return StoreError(f"{self._path} cannot be read: {reason}.", path=self._path, reason=reason)


def _parse_header(record: Any) -> PackHeader:
    """Return a header from parsed JSON; raise ValueError or TypeError if it is malformed."""
    header = PackHeader(**record)
    numbers = (header.rows, header.width, header.embeddings, header.image_id)
    if any(type(number) is not int for number in numbers) or header.rows < 1 or header.width < 1:
        raise ValueError("its numbers are malformed")
    if not isinstance(header.spec, dict) or not isinstance(header.about, Mapping):
        raise TypeError("its spec is not a JSON object")
    row_dtype(header.spec)  # raises ValueError for an unknown one
    about = {str(name): str(value) for name, value in header.about.items()}
    return PackHeader(header.spec, about, *numbers)
