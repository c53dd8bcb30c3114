"""The HDF5 structure of a packed store, without its values.

HDF5 builds the structure in memory and never writes to disk, since it can crash on a full disk.
Each column is contiguous, at an offset that is known before values are written, so that the
caller writes the file sequentially with plain system calls.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import h5py
import numpy as np

_PAGE_BYTES = 4096


@dataclass(frozen=True)
class Column:
    """A data set of a packed store.

    Attributes
    ----------
    name : str
    dtype : str
        NumPy's notation, such as ``"<f4"``.
    shape : tuple of int
        At least one value.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=object))


class PackLayout:
    """Byte layout of a packed store.

    Parameters
    ----------
    columns : sequence of Column
    attributes : mapping of str to str or int
        Those of the file's root.
    user_block : int
        Bytes before the HDF5 file: 512 or a power of two beyond it.

    Attributes
    ----------
    offsets : dict of str to int
        First byte of each column's values, counted from the beginning of the whole file.
    size : int
        Bytes of the whole file.
    """

    def __init__(
        self, columns: Sequence[Column], attributes: Mapping[str, str | int], user_block: int
    ) -> None:
        self._structure = _SparseFile()
        self._start = user_block
        self._lengths = {column.name: column.nbytes for column in columns}
        with h5py.File(self._structure, "w", userblock_size=user_block) as file:
            file.attrs.update(attributes)
            self.offsets = {column.name: _allocate(file, column) for column in columns}
        self.size = self._structure.seek(0, os.SEEK_END)

    def blocks(self, values: Mapping[str, Iterable[bytes | memoryview]]) -> Iterator[memoryview]:
        """Yield the bytes of the file after the user block, in order.

        Parameters
        ----------
        values : mapping of str to iterable of bytes
            The values of each column, little-endian, in pieces of any size.

        Raises
        ------
        ValueError
            If a column's values are more or fewer bytes than it declares.
        """
        at = self._start
        for name in sorted(self.offsets, key=self.offsets.__getitem__):
            yield memoryview(self._structure.read_at(at, self.offsets[name] - at))
            left = self._lengths[name]
            for piece in values[name]:
                view = memoryview(piece).cast("B")
                left -= len(view)
                if left < 0:
                    break
                yield view
            if left:
                raise ValueError(f"column {name!r} has {-left} bytes more than it declares")
            at = self.offsets[name] + self._lengths[name]
        yield memoryview(self._structure.read_at(at, self.size - at))


def _allocate(file: h5py.File, column: Column) -> int:
    """Allocate contiguous space for a column; return the offset of its first byte."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_layout(h5py.h5d.CONTIGUOUS)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    settings.set_obj_track_times(False)  # the same rows make the same file
    kind = h5py.h5t.py_create(np.dtype(column.dtype), logical=True)
    space = h5py.h5s.create_simple(column.shape)
    data = h5py.h5d.create(file.id, column.name.encode(), kind, space, settings)
    return int(data.get_offset())


class _SparseFile(io.RawIOBase):
    """A file in memory that allocates only the pages that were written."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._position = self._size = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def flush(self) -> None:
        """Do nothing: the file is in memory. Defined because h5py calls it when it closes."""

    def truncate(self, size: int | None = None) -> int:
        self._size = self._position if size is None else size
        return self._size

    def write(self, data: object) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        for page, within, piece in _split_by_page(self._position, len(view)):
            kept = self._pages.setdefault(page, bytearray(_PAGE_BYTES))
            kept[within : within + len(piece)] = view[piece.start : piece.stop]
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        view[:] = self.read_at(self._position, len(view))
        self._position += len(view)
        return len(view)

    def read_at(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from an offset; zeros where nothing was written."""
        result = bytearray(count)
        for page, within, piece in _split_by_page(offset, count):
            if page in self._pages:
                kept = self._pages[page][within : within + len(piece)]
                result[piece.start : piece.stop] = kept
        return bytes(result)


def _split_by_page(offset: int, count: int) -> Iterator[tuple[int, int, range]]:
    """Yield the page number, the offset in the page and the range of bytes, page by page."""
    done = 0
    while done < count:
        page, within = divmod(offset + done, _PAGE_BYTES)
        length = min(count - done, _PAGE_BYTES - within)
        yield page, within, range(done, done + length)
        done += length
