"""What is known of a data set that others publish: archives with their hashes, and a reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..images.image_file import Box


@dataclass(frozen=True)
class Archive:
    """A file to fetch.

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
        """Its name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Example:
    """A row of the table that a fetched data set is read from.

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
    """A data set that others publish.

    Attributes
    ----------
    name, title : str
        For commands and for people.
    archives : tuple of Archive
    folders : tuple of str
        What is unpacked: files whose names begin with one of these.
    keep : tuple of str
        Folders that stay once the table is written.
    read : callable
        From the folder with everything unpacked to examples.
    """

    name: str
    title: str
    archives: tuple[Archive, ...]
    folders: tuple[str, ...]
    keep: tuple[str, ...]
    read: Callable[[Path], Iterable[Example]]

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(archive.size for archive in self.archives)


def people_name(name: str) -> str:
    """Make a folder's name one for people.

    Examples
    --------
    >>> people_name("Afghan_hound"), people_name("shih-tzu"), people_name("american_bulldog")
    ('Afghan hound', 'Shih-tzu', 'American bulldog')
    """
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def share_of(box: Box, size: tuple[int, int]) -> str:
    """Return the side of the square of a box's area, as a share of that of the photo's.

    Examples
    --------
    >>> share_of((0, 0, 50, 50), (100, 100))
    '0.5000'
    """
    area = (box[2] - box[0]) * (box[3] - box[1])
    return f"{min(1.0, (area / max(1, size[0] * size[1])) ** 0.5):.4f}"
