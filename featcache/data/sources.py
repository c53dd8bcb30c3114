"""Where the bytes of a data set's images come from: files, or anything else that has images.

A source answers two questions for each of its images: which image is it (its id, the SHA-256 of its
bytes), and what are its bytes. The rest of featcache knows nothing else of it. To add one, subclass
`ImageSource`, and let `featcache.data.load` return a `Dataset` with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ..images.image_file import BadImage, content_id, read_file
from ..images.limits import MemoryBudget
from .file_index import FileIdentity, identify

# Called with a number of bytes before they are read; blocks until that memory is available.
Reserve = Callable[[int], None]
# Returns the bytes of the image at a position.
Read = Callable[[int, Reserve], bytes]


def no_limit(size: int) -> None:
    """Return at once: the memory for one image is always available."""


class ImageSource(ABC):
    """Images, in a fixed order.

    Several threads read at the same time. A source keeps no more in memory than a few images.
    """

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """What each image is called in tables and messages, such as its path."""

    @property
    def locations(self) -> Sequence[str] | None:
        """Paths and URLs under which another process reads the images; None if there are none.

        URLs may hold credentials, unlike `names`.
        """
        return None

    @abstractmethod
    def read(self, position: int, reserve: Reserve = no_limit) -> bytes:
        """Return the bytes of an image, as a file of its format would hold them.

        Parameters
        ----------
        position : int
        reserve : callable
            To be called with the number of bytes, before memory is taken for them.

        Raises
        ------
        BadImage
            With the reason; ``lasting=False`` if the image may be readable another time.
        """

    @abstractmethod
    def take(self, rows: Sequence[int]) -> ImageSource:
        """Return a source of the images at some positions, in that order."""

    def identify(
        self, index: Path, workers: int, on_read: Callable[[int], object] = lambda _: None
    ) -> list[FileIdentity]:
        """Return the image id of each image, or why it has none.

        Parameters
        ----------
        index : Path
            The folder of the cache in which ids are remembered, for sources that can tell
            without reading that an image is unchanged.
        workers : int
            Number of threads.
        on_read : callable
            Called with the number of images identified since the last call.
        """
        found = []
        budget = MemoryBudget()
        with self.reading(range(len(self))) as read:
            for position in range(len(self)):
                found.append(identity_of(partial(read, position), budget))
                on_read(1)
        return found

    @contextmanager
    def reading(self, positions: Sequence[int]) -> Iterator[Read]:
        """Context manager with a function like `read`, to read some images in about that order.

        A source whose reads take long, or that reads many images at once, reads ahead here.
        """
        yield self.read

    def __len__(self) -> int:
        return len(self.names)


def identity_of(read: Callable[[Reserve], bytes], budget: MemoryBudget) -> FileIdentity:
    """Return the id of the image that a function reads, or why it has none."""
    try:
        with budget.reservation() as held:
            return FileIdentity(content_id(read(held.for_file)))
    except BadImage as bad:
        return FileIdentity(None, bad.reason)


class FileSource(ImageSource):
    """Files on the local disk, or one that is mounted.

    Parameters
    ----------
    paths : sequence of str
        Absolute paths.
    root : str
        Their common folder, which names the file of remembered ids.
    """

    def __init__(self, paths: Sequence[str], root: str) -> None:
        self._paths, self._root = paths, root

    @property
    def names(self) -> Sequence[str]:
        """The paths."""
        return self._paths

    @property
    def locations(self) -> Sequence[str]:
        """The paths."""
        return self._paths

    def read(self, position: int, reserve: Reserve = no_limit) -> bytes:
        """Return the content of a file; see `featcache.images.image_file.read_file`."""
        return read_file(self._paths[position], reserve)[0]

    def take(self, rows: Sequence[int]) -> FileSource:
        """Return a source of some of the files."""
        return FileSource([self._paths[i] for i in rows], self._root)

    def identify(
        self, index: Path, workers: int, on_read: Callable[[int], object] = lambda _: None
    ) -> list[FileIdentity]:
        """Return the id of each file, reading only new and changed ones."""
        return identify(self._paths, self._root, index, workers=workers, on_read=on_read)
