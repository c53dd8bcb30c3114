"""Images that lie in files with many images each, such as archives and Parquet files.

The images are read in place. Their ids are remembered for as long as the container's file stays
unchanged, so that a second run reads none of them.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from .._io.atomic import read_memo, write_memo
from .._io.file_state import file_state, is_settled
from .._io.own_files import open_to_read
from ..errors import DatasetError, DatasetNotFound
from ..images.image_file import BadImage, is_content_id, reason_of
from ..images.limits import MemoryBudget
from .file_index import FileIdentity
from .sources import ImageSource, Reserve, identity_of, no_limit

_VERSION = 1
_ITEMS_PER_TASK = 64


class Container(ABC):
    """A file with many images.

    It is opened for each read, since a data set may have thousands of such files.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    path : Path
    size : int
    state : FileState
        Of the file when its images were listed.
    listed_at : int
        Time in nanoseconds before they were listed.
    in_order : bool
        Whether images are read much faster one after the other than by several threads.
    """

    in_order = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listed_at = time.time_ns()
        try:
            with self.opened() as handle:
                status = os.fstat(handle)
        except (OSError, ValueError) as error:
            raise DatasetNotFound(
                f"{path} cannot be opened: {reason_of(error)}.", path=path
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise DatasetError(f"{path} is not a regular file.", path=path)
        self.size, self.state = status.st_size, file_state(status)

    @abstractmethod
    def read(self, item: int, reserve: Reserve) -> bytes:
        """Return the bytes of an image; called by several threads. See `ImageSource.read`."""

    @property
    @abstractmethod
    def selection(self) -> str:
        """What distinguishes these images from others of the same file, such as a column."""

    @contextmanager
    def opened(self) -> Iterator[int]:
        """Context manager with the open file."""
        handle = open_to_read(self.path)
        try:
            yield handle
        finally:
            os.close(handle)

    def read_at(self, start: int, size: int) -> bytes:
        """Return up to `size` bytes of the file from an offset."""
        with self.opened() as handle:
            return pread(handle, start, min(size, max(0, self.size - start)))

    def is_unchanged(self) -> bool:
        """Return whether the file is as it was when its images were listed."""
        try:
            return file_state(os.stat(self.path)) == self.state
        except OSError:
            return False


def pread(handle: int, start: int, size: int) -> bytes:
    """Return up to `size` bytes of an open file from an offset; fewer at its end."""
    data = os.pread(handle, size, start)
    while len(data) < size and (more := os.pread(handle, size - len(data), start + len(data))):
        data += more
    return data


class OpenContainer(io.RawIOBase):
    """A container as a seekable binary file, which is closed with this object.

    Parameters
    ----------
    container : Container
    """

    def __init__(self, container: Container) -> None:
        self._size, self._position = container.size, 0
        self._handle = open_to_read(container.path)
        weakref.finalize(self, os.close, self._handle)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset from the start, the current position or the end; return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return the number of bytes read, 0 at the end."""
        data = pread(self._handle, self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class ContainerSource(ImageSource):
    """Images of one or several containers.

    Parameters
    ----------
    containers : sequence of Container
    rows : sequence of (int, int)
        Container and item of each image.
    names : sequence of str
    """

    def __init__(
        self,
        containers: Sequence[Container],
        rows: Sequence[tuple[int, int]],
        names: Sequence[str],
    ) -> None:
        self._containers, self._rows, self._names = containers, rows, names

    @property
    def names(self) -> Sequence[str]:
        """Path of the container and name in it."""
        return self._names

    def read(self, position: int, reserve: Reserve = no_limit) -> bytes:
        """Return the bytes of an image."""
        container, item = self._rows[position]
        return _read(self._containers[container], item, reserve)

    def take(self, rows: Sequence[int]) -> ContainerSource:
        """Return a source of some of the images."""
        return ContainerSource(
            self._containers, [self._rows[i] for i in rows], [self._names[i] for i in rows]
        )

    def identify(
        self, index: Path, workers: int, on_read: Callable[[int], object] = lambda _: None
    ) -> list[FileIdentity]:
        """Return the id of each image, reading those of new and changed containers only."""
        items: dict[int, set[int]] = {}
        for container, item in self._rows:
            items.setdefault(container, set()).add(item)
        found = {
            number: _identify(self._containers[number], sorted(some), index, workers, on_read)
            for number, some in items.items()
        }
        on_read(len(self._rows) - sum(map(len, items.values())))
        return [found[container][item] for container, item in self._rows]


def _read(container: Container, item: int, reserve: Reserve) -> bytes:
    try:
        return container.read(item, reserve)
    except OSError as error:
        raise BadImage(f"cannot be read: {reason_of(error)}", lasting=False) from error
    except BadImage as bad:
        # An image with an id was read before: what fails now is the container, not its content.
        raise BadImage(bad.reason, lasting=False) from bad


def _identify(
    container: Container,
    items: Sequence[int],
    index: Path,
    workers: int,
    on_read: Callable[[int], object],
) -> dict[int, FileIdentity]:
    """Return the id of some images of a container, and remember them."""
    text = f"{container.path}\0{container.selection}"
    file = index / f"{hashlib.sha256(os.fsencode(text)).hexdigest()[:24]}-images.json"
    known = _load(file, list(container.state)) if container.is_unchanged() else {}
    found = {item: FileIdentity(known[item]) for item in items if item in known}
    on_read(len(found))
    missing = [item for item in items if item not in found]
    parts = [missing[i : i + _ITEMS_PER_TASK] for i in range(0, len(missing), _ITEMS_PER_TASK)]
    budget = MemoryBudget()
    with ThreadPoolExecutor(1 if container.in_order else max(1, workers)) as pool:
        for part, ids in zip(
            parts, pool.map(lambda part: _ids(container, part, budget), parts), strict=True
        ):
            found.update(zip(part, ids, strict=True))
            on_read(len(part))
    # The items are those of the listing: ids of another state would belong to other images.
    if missing and container.is_unchanged() and is_settled(container.state, container.listed_at):
        known.update({i: one.image_id for i, one in found.items() if one.image_id})
        kept = {str(item): image_id for item, image_id in known.items()}
        body = {"version": _VERSION, "state": list(container.state), "ids": kept}
        write_memo(file, body, "the index of images")
    return found


def _ids(container: Container, items: Sequence[int], budget: MemoryBudget) -> list[FileIdentity]:
    return [identity_of(partial(_read, container, item), budget) for item in items]


def _load(file: Path, state: list[int]) -> dict[int, str]:
    """Return the remembered ids of a container in a state; none if it has changed."""
    memo: Any = read_memo(file)
    try:
        if memo is None or memo["version"] != _VERSION or memo["state"] != state:
            return {}
        ids = {int(item): image_id for item, image_id in memo["ids"].items()}
        return ids if all(map(is_content_id, ids.values())) else {}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}
