"""Description of a published data set: archives with their hashes, and a reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..images.image_file import Box


@dataclass(frozen=True)
class Archive:
    """An archive to download.

    Attributes
    ----------
    url : str
    hash : str
        ``"sha256:..."`` or ``"md5:..."``.
    size : int
        Bytes.
    """

    url: str
    hash: str
    size: int

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Example:
    """A row of the table of a downloaded data set.

    Attributes
    ----------
    path : str
        Relative to the data set's folder.
    label, split : str
    box : Box
    more : mapping of str to str
        Further columns.
    """

    path: str
    label: str
    split: str
    box: Box
    more: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """A published data set.

    Attributes
    ----------
    name : str
        Name for commands.
    title : str
        Human-readable name.
    archives : tuple of Archive
    folders : tuple of str
        Prefixes of the names of files to unpack.
    keep : tuple of str
        Folders to keep after the table is written.
    read : callable
        Maps the folder of unpacked files to examples.
    """

    name: str
    title: str
    archives: tuple[Archive, ...]
    folders: tuple[str, ...]
    keep: tuple[str, ...]
    read: Callable[[Path], Iterable[Example]]

    @property
    def size(self) -> int:
        """Size of all archives in bytes."""
        return sum(archive.size for archive in self.archives)


def readable_name(name: str) -> str:
    """Return a human-readable class name for the name of a folder.

    Examples
    --------
    >>> readable_name("Afghan_hound"), readable_name("shih-tzu"), readable_name("american_bulldog")
    ('Afghan hound', 'Shih-tzu', 'American bulldog')
    """
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def side_fraction(box: Box, size: tuple[int, int]) -> str:
    """Return the square root of a box's area as a fraction of the image's, with four digits.

    Examples
    --------
    >>> side_fraction((0, 0, 50, 50), (100, 100))
    '0.5000'
    """
    area = (box[2] - box[0]) * (box[3] - box[1])
    return f"{min(1.0, (area / max(1, size[0] * size[1])) ** 0.5):.4f}"
