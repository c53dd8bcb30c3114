"""Images of a stream, kept in a temporary file until they are computed.

A stream can be iterated once, but which images are missing is known only after all ids are. The
images therefore go to a file below the cache folder. It has no name, so that nothing of it stays
after a crash, and it is closed with the last data set that reads it.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from .._io.atomic import make_folder, make_write_error
from .._io.disk_space import check_free_bytes
from ..images.image_file import BadImage, content_id
from .containers import pread
from .file_index import FileIdentity
from .sources import ImageSource, Reserve, no_limit

_CHECK_BYTES = 64 * 2**20
_SPARE_BYTES = 64 * 2**20  # of the disk, for the rows that are computed from the images
_ADVICE = "Free some space, choose another cache folder, or save the images as files"


class Entry(NamedTuple):
    """Where an image lies in the file, or why it cannot be used."""

    found: FileIdentity
    start: int = 0
    size: int = 0


class Spool:
    """A temporary file without a name that images are appended to; each content is kept once.

    Parameters
    ----------
    folder : Path
        The folder of such files, below the cache folder. Created when the first image comes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._size = self._checked = 0
        self._entries: dict[str, Entry] = {}

    def append(self, data: bytes) -> Entry:
        """Keep the bytes of an image.

        Raises
        ------
        StoreWriteError
            If the disk has too little space, or refuses.
        """
        image_id = content_id(data)
        known = self._entries.get(image_id)
        if known is not None:
            return known
        entry = Entry(FileIdentity(image_id), self._size, len(data))
        try:
            file = self._open()
            if self._size + len(data) > self._checked:
                needed = len(data) + _CHECK_BYTES + _SPARE_BYTES
                check_free_bytes(self._folder, needed, "The images of the stream need", _ADVICE)
                self._checked = self._size + len(data) + _CHECK_BYTES
            file.write(data)
        except OSError as error:
            raise make_write_error(error, self._folder / "images", "a stream's images") from error
        self._size += len(data)
        self._entries[image_id] = entry
        return entry

    def finish(self) -> None:
        """Write what is buffered, so that it can be read; forget the ids of what is kept."""
        self._entries = {}
        if self._file is not None:
            try:
                self._file.flush()
            except OSError as error:
                raise make_write_error(
                    error, self._folder / "images", "a stream's images"
                ) from error

    def read(self, entry: Entry, reserve: Reserve) -> bytes:
        """Return the bytes of an image.

        Raises
        ------
        BadImage
            If it cannot be used, or the disk fails.
        """
        if entry.found.reason is not None or self._file is None:
            raise BadImage(entry.found.reason or "was not kept")
        reserve(entry.size)
        try:
            data = pread(self._file.fileno(), entry.start, entry.size)
        except OSError as error:
            raise BadImage(f"cannot be read again: {error.strerror}", lasting=False) from error
        if len(data) < entry.size:
            raise BadImage("was lost: the temporary file is cut off", lasting=False)
        return data

    def _open(self) -> IO[bytes]:
        if self._file is None:
            make_folder(self._folder, private=True)
            handle, path = tempfile.mkstemp(dir=self._folder)
            os.unlink(path)  # at once, so that nothing stays after a crash
            self._file = os.fdopen(handle, "w+b")
            weakref.finalize(self, self._file.close)
        return self._file


class SpoolSource(ImageSource):
    """Images of a stream that was iterated.

    Parameters
    ----------
    spool : Spool
    entries : sequence of Entry
    names : sequence of str
    """

    def __init__(self, spool: Spool, entries: Sequence[Entry], names: Sequence[str]) -> None:
        self._spool, self._entries, self._names = spool, entries, names

    @property
    def names(self) -> Sequence[str]:
        """What the images are called, by their place in the stream."""
        return self._names

    def read(self, position: int, reserve: Reserve = no_limit) -> bytes:
        """Return the bytes of an image from the temporary file."""
        return self._spool.read(self._entries[position], reserve)

    def take(self, rows: Sequence[int]) -> SpoolSource:
        """Return a source of some of the images, which keeps the temporary file open."""
        return SpoolSource(
            self._spool, [self._entries[i] for i in rows], [self._names[i] for i in rows]
        )

    def identify(
        self, index: Path, workers: int, on_read: Callable[[int], object] = lambda _: None
    ) -> list[FileIdentity]:
        """Return the ids that were computed while the stream was iterated."""
        on_read(len(self))
        return [entry.found for entry in self._entries]
