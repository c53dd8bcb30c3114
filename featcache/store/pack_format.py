"""The header of a packed store and the check of every byte behind it; plain calls, no HDF5.

A packed store is an HDF5 file behind a user block, which HDF5 passes over. The block begins
with one line: format version, SHA-256 of everything behind the line, bytes of the whole file.
Then comes what a reader has to know, as JSON. A reader compares the digest first and then takes
the rows from their offsets, so that HDF5 never parses a file that came from elsewhere.
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
from ..hdf5.shard_metadata import ID_BYTES

PACK_VERSION = 2
_LINE = re.compile(
    rb"featcache-pack (?P<version>[0-9]{4}) sha256 (?P<digest>[0-9a-f]{64}) "
    rb"bytes (?P<size>[0-9]{20})\n"
)
LINE_BYTES = len(b"featcache-pack 0000 sha256  bytes \n") + 64 + 20
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MOST_HEAD_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 18


@dataclass(frozen=True)
class PackHeader:
    """What a packed store says of itself.

    Attributes
    ----------
    spec : dict
        The components of the `BackboneSpec`.
    about : dict of str to str
    rows, width : int
    embeddings, image_id : int
        Offsets of the values in the file: float32 (rows, width) and uint8 (rows, 32).
    """

    spec: dict[str, Any]
    about: dict[str, str]
    rows: int
    width: int
    embeddings: int = 0
    image_id: int = 0

    def user_block(self) -> int:
        """Return the bytes that line and header take: 512 or a power of two beyond it."""
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
    """Return the line that a packed store begins with.

    >>> len(first_line("0" * 64, 1)) == LINE_BYTES
    True
    """
    return f"featcache-pack {PACK_VERSION:04d} sha256 {digest} bytes {size:020d}\n".encode()


class PackReader:
    """An open packed store of which every byte was found to be the written one.

    `contextlib.closing` closes it.

    Attributes
    ----------
    header : PackHeader

    Raises
    ------
    StoreError
        If there is no such file, or the system refuses to read it.
    StoreFormatError
        If another version of this library wrote it.
    StoreCorrupt
        If it is anything but an intact packed store.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise StoreError(f"There is no file {path}. Name one that `pack` wrote.", path=path)
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115  closed by `close`
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            self._check_bytes()
            self.header = self._read_head()
        except OSError as error:
            self.close()
            raise self._unreadable(error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; calling it twice does no harm."""
        self._file.close()

    def blocks(self, count: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        """Yield rows (n, width) and ids (n, 32), `count` at a time.

        Raises
        ------
        StoreCorrupt
            If the file has changed since its bytes were checked.
        """
        header = self.header
        for start in range(0, header.rows, count):
            stop = min(start + count, header.rows)
            rows = np.empty((stop - start, header.width), "<f4")
            ids = np.empty((stop - start, ID_BYTES), np.uint8)
            self._fill(rows, header.embeddings + start * 4 * header.width)
            self._fill(ids, header.image_id + start * ID_BYTES)
            if file_state(os.fstat(self._file.fileno())) != self._state:
                raise self._corrupt("it was changed while it was read")
            yield rows, ids

    def _check_bytes(self) -> None:
        """Compare version, size and digest, in this order; nothing else is looked at before."""
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise self._corrupt("it is not a regular file")
        self._state = file_state(status)
        line = self._file.read(LINE_BYTES) or b""
        found = _LINE.fullmatch(line)
        if found is None:
            raise self._unknown(line)
        if int(found["version"]) != PACK_VERSION:
            raise self._other_version(str(int(found["version"])))
        if int(found["size"]) != status.st_size:
            raise self._corrupt(f"it has {status.st_size:,} bytes, not {int(found['size']):,}")
        if self._digest() != found["digest"].decode():
            raise self._corrupt("its SHA-256 is not the one that was written")

    def _digest(self) -> str:
        """Return the SHA-256 of everything behind the first line."""
        digest = hashlib.sha256()
        block = memoryview(bytearray(_BLOCK_BYTES))
        while count := self._file.readinto(block):
            digest.update(block[:count])
        return digest.hexdigest()

    def _read_head(self) -> PackHeader:
        """Read the header, and make sure that all values lie in the file."""
        self._file.seek(LINE_BYTES)
        text, end, _ = (self._file.read(_MOST_HEAD_BYTES) or b"").partition(b"\n")
        try:
            header = _checked(json.loads(text) if end else None)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._corrupt("its header is malformed") from error
        for offset, row_bytes in (
            (header.embeddings, 4 * header.width),
            (header.image_id, ID_BYTES),
        ):
            if not LINE_BYTES <= offset <= self._state.size - header.rows * row_bytes:
                raise self._corrupt("a part of its rows lies outside the file")
        return header

    def _fill(self, values: NDArray[Any], offset: int) -> None:
        view = values.data.cast("B")
        self._file.seek(offset)
        while view:  # a raw read may be short
            try:
                count = self._file.readinto(view)
            except OSError as error:
                raise self._unreadable(error) from error
            if not count:
                raise self._corrupt("it was changed while it was read")
            view = view[count:]

    def _unknown(self, line: bytes) -> StoreError:
        if line.startswith(_HDF5):
            return self._other_version("1")
        return self._corrupt("it does not begin as one")

    def _other_version(self, version: str) -> StoreFormatError:
        return StoreFormatError(
            f"{self._path} is not a packed store of format version {PACK_VERSION}, but of version "
            f"{version} or another HDF5 file. Pack the store again with this version of featcache "
            "(or unpack it with the version that packed it).",
            path=self._path,
            version=int(version),
        )

    def _corrupt(self, reason: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self._path} is not an intact packed store: {reason}. "
            "Copy the file again from where it was made, or pack the store again.",
            path=self._path,
            reason=reason,
        )

    def _unreadable(self, error: OSError) -> StoreError:
        reason = error.strerror or str(error)
        return StoreError(f"{self._path} cannot be read: {reason}.", path=self._path, reason=reason)


def _checked(said: Any) -> PackHeader:
    """Return a header that came as JSON; raise ValueError or TypeError for anything unusual."""
    header = PackHeader(**said)
    numbers = (header.rows, header.width, header.embeddings, header.image_id)
    if any(type(number) is not int for number in numbers) or header.rows < 1 or header.width < 1:
        raise ValueError("its numbers are malformed")
    if not isinstance(header.spec, dict) or not isinstance(header.about, Mapping):
        raise TypeError("its spec is not a JSON object")
    about = {str(name): str(value) for name, value in header.about.items()}
    return PackHeader(header.spec, about, *numbers)
