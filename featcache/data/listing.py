"""Files below a folder: which are images, and which are not and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import DatasetError
from ..images.formats import SUFFIXES, has_image_signature, is_readable, missing_extra_of

# Not images, and not worth a warning.
_SIDECARS = frozenset({
    ".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".html", ".py", ".mat",
    ".npy", ".npz", ".zip", ".tar", ".gz", ".log", ".gitkeep",
})  # fmt: skip
# Backups and incomplete downloads: duplicates or fragments of images.
_UNFINISHED = frozenset({".bak", ".crdownload", ".download", ".orig", ".part", ".swp", ".tmp"})
# Written by operating systems into folders.
_CLUTTER = frozenset({".ds_store", "thumbs.db", "desktop.ini", "__macosx"})


@dataclass
class Listing:
    """Image files and other files below a folder.

    Attributes
    ----------
    images : list of str
        Paths of image files, sorted.
    ignored : list of str
        Other files, and hidden folders, which end in a separator.
    """

    images: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def ignored_by_ending(paths: Iterable[str]) -> dict[str, int]:
    """Count files by ending; endings of possible images first, then by frequency.

    Examples
    --------
    >>> ignored_by_ending(["notes.txt", "b.txt", "a.HEIC", "notes", ".git/"])
    {'.heic': 1, '(no ending)': 1, '.txt': 2, '(hidden folder)': 1}
    >>> ignored_by_ending([".hidden.jpg"])
    {'(hidden file)': 1}
    """
    counts: Counter[str] = Counter()
    image_endings = set()
    for path in paths:
        ending = _ending(path) or "(no ending)"
        if _is_hidden(path):
            ending = "(hidden folder)" if path.endswith(os.sep) else "(hidden file)"
        counts[ending] += 1
        if _may_be_image(path):
            image_endings.add(ending)
    return dict(sorted(counts.items(), key=lambda item: (item[0] not in image_endings, -item[1])))


def worth_warning(ignored: Iterable[str]) -> bool:
    """Return whether any of the ignored files may be an image: neither text nor hidden."""
    return any(map(_may_be_image, ignored))


def is_clutter(name: str) -> bool:
    """Return whether operating systems write files or folders of a name into folders."""
    return name.lower() in _CLUTTER or name.startswith("._")


def _may_be_image(path: str) -> bool:
    return not _is_hidden(path) and _ending(path) not in _SIDECARS


def _is_hidden(path: str) -> bool:
    return os.path.basename(path.rstrip(os.sep)).startswith(".")


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def extras_for(ignored: Iterable[str]) -> list[str]:
    """Return the hints on how to install support for some of the ignored files."""
    hints = {missing_extra_of(path) for path in ignored if _may_be_image(path)}
    return sorted(hint for hint in hints if hint is not None)


def other_files(ignored: Sequence[str]) -> str:
    """Return a sentence on the ignored files of a folder and how to read them; "" for none."""
    if not ignored:
        return ""
    counts = ", ".join(f"{n} {ending}" for ending, n in ignored_by_ending(ignored).items())
    how = "".join(f" {hint}." for hint in extras_for(ignored))
    return f" It holds other files: {counts}.{how}"


def list_images(root: str) -> Listing:
    """List the files below a folder; reads the signature of files with an unknown ending.

    Raises
    ------
    DatasetError
        If a folder cannot be listed.
    """
    listing = Listing()
    _walk(root, set(), listing)
    listing.images.sort()
    listing.ignored.sort()
    return listing


def _walk(folder: str, seen: set[tuple[int, int]], listing: Listing) -> None:
    """Add the files below a folder; visits each folder once, so that loops of links end."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {error.strerror}.", path=folder) from error
    for entry in entries:
        if is_clutter(entry.name):
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:  # a loop of links; one named like an image fails when it is read
            is_folder = False
        if entry.name.startswith("."):
            listing.ignored.append(os.path.join(entry.path, "") if is_folder else entry.path)
        elif is_folder:
            _walk(entry.path, seen, listing)
        else:
            (listing.images if _is_image(entry.path) else listing.ignored).append(entry.path)


def _is_image(path: str) -> bool:
    """Return whether a file is an image, by its ending or, if that is unknown, its signature."""
    ending = _ending(path)
    if ending in SUFFIXES or ending in _SIDECARS | _UNFINISHED:
        return is_readable(ending)
    # Camera raw has the signature of TIFF, but its first image is a thumbnail.
    return has_image_signature(path, tiff=not ending)
