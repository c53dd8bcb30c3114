"""Base class of HDF5 files that featcache writes, with the checks that all of them share."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import h5py

from .._io.wording import first_line
from ..errors import StoreCorrupt, StoreFormatError
from .shard_name import shard_error

FORMAT_VERSION = 1
CHUNK_BYTES = 1024 * 1024  # the cache that HDF5 gives a data set by default holds one
_FLETCHER32 = 3
_DTYPES_AND_RANKS = {
    "embeddings": (("<f4", "<f2"), 2),
    "image_id": (("|u1",), 2),
    "view": (("<i4",), 1),
}

Opened = TypeVar("Opened", bound="CheckedFile")


class CheckedFile(ABC):
    """An HDF5 file written by featcache, open for reading; a context manager.

    Parameters
    ----------
    path : Path
        Path of the file, also named in errors.
    file : binary file, optional
        Source of the bytes. Default: the file at `path`.
    """

    def __init__(self, path: Path, file: Any = None) -> None:
        self.path = path
        try:
            # No lock: a sealed file never changes, and locks fail on network disks.
            options = {"locking": False} if file is None else {}
            self._file = h5py.File(path if file is None else file, "r", **options)
        except FileNotFoundError:
            raise
        except OSError as error:
            # HDF5 opens the path twice: a shard merged in between is removed, not damaged.
            if file is None and not path.exists():
                raise FileNotFoundError(errno.ENOENT, "it was removed", str(path)) from error
            raise shard_error(path, f"HDF5 cannot open it ({first_line(error)})") from error
        try:
            self._check()
        except (StoreCorrupt, StoreFormatError, MemoryError):
            self.close()  # running out of memory does not mean that the file is damaged
            raise
        except Exception as error:  # h5py raises many kinds on damaged structures
            self.close()
            raise shard_error(path, f"its structure is damaged ({first_line(error)})") from error

    def __enter__(self: Opened) -> Opened:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Can be called several times."""
        self._file.close()

    @abstractmethod
    def _check(self) -> None:
        """Check the whole structure before any value is used; raise if it is not as written."""

    def _check_kind(self, kind: str) -> None:
        """Raise unless the file has the given format and the current format version."""
        if self._file.attrs.get("format") != kind:
            raise shard_error(self.path, f"it is not a {kind}")
        version = int(self._attribute("format_version"))
        if version != FORMAT_VERSION:
            raise StoreFormatError(
                f"{self.path} has format version {version}; this featcache reads version "
                f"{FORMAT_VERSION}. Upgrade featcache, or name another cache folder.",
                path=self.path,
                version=version,
            )

    def _attribute(self, name: str) -> Any:
        """Return an attribute of the file, which may be of any type."""
        return self._file.attrs[name]

    def _check_datasets(self, names: Sequence[str]) -> list[h5py.Dataset]:
        """Return data sets; check their links, types, filters and sizes, and read no value."""
        found: list[h5py.Dataset] = []
        # The size of the open file: another process may have merged it and removed its path.
        size = self._file.id.get_filesize()
        for name in names:
            dtypes, rank = _DTYPES_AND_RANKS[name]
            # The class of the link first: accessing an external link opens its target.
            if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
                raise shard_error(self.path, f"{name!r} is a link to another object")
            data = self._file[name]
            if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
                raise shard_error(self.path, f"{name!r} keeps its data outside the file")
            if data.dtype.str not in dtypes or len(data.shape) != rank:
                raise shard_error(
                    self.path, f"{name!r} has type {data.dtype} and shape {data.shape}"
                )
            settings = data.id.get_create_plist()
            filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
            if filters != [_FLETCHER32] or data.chunks is None:
                raise shard_error(self.path, f"{name!r} has unexpected filters: {filters}")
            if data.nbytes > size or data.id.get_storage_size() < data.nbytes:
                raise shard_error(self.path, f"{name!r} declares more data than the file holds")
            found.append(data)
        return found
