"""Archives of images, zip and tar, read in place; also shards of WebDataset.

Nothing is written: names in an archive, also absolute ones and those with "..", are text.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .._io.paths import absolute_path
from .._io.wording import first_line, format_count
from ..errors import DatasetError
from ..images.formats import SUFFIXES as IMAGE_SUFFIXES
from ..images.formats import is_readable
from ..images.image_file import BadImage, check_size
from . import zip_directory
from .columns import label_values
from .containers import Container, ContainerSource, OpenContainer, pread
from .dataset import Dataset
from .elements import LABEL_KEYS
from .folder import arrange, split_of
from .listing import is_clutter, other_files
from .sources import Reserve
from .zip_directory import MAX_ENTRIES

SUFFIXES = (".zip", ".tar")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_LABEL_FILES = ("cls", "json", "txt")  # of WebDataset, the best first
_JSON_KEYS = (*LABEL_KEYS, "cls", "class", "class_name")
_MAX_LABEL_BYTES = 1 << 20
_MAX_LABEL_CHARACTERS = 100  # a longer text is a description
_MAX_NAME_CHARACTERS = 4096
_MAX_SHARDS = 100_000
# Archives of photos hardly shrink; members that share their bytes unpack to any size.
_MAX_RATIO, _FREE_BYTES = 100, 2**30
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_archive(path: object) -> bool:
    """Return whether a value is the path of an archive, by its ending."""
    return isinstance(path, (str, os.PathLike)) and str(path).lower().endswith(
        (*SUFFIXES, *_COMPRESSED)
    )


def expand_braces(path: str) -> list[str]:
    """Return the paths that a path with ranges of numbers stands for.

    Raises
    ------
    DatasetError
        If these are too many, or a range is empty.

    Examples
    --------
    >>> expand_braces("shard-{08..10}.tar")
    ['shard-08.tar', 'shard-09.tar', 'shard-10.tar']
    """
    texts, count = _RANGE.split(path), 1
    choices: list[Sequence[str]] = []
    for first, last in zip(texts[1::3], texts[2::3], strict=True):
        numbers = range(int(first), int(last) + 1)
        count *= len(numbers)
        if not 0 < count <= _MAX_SHARDS:
            raise DatasetError(
                f"{path} stands for {count:,} files; expected 1 to {_MAX_SHARDS:,}.", received=path
            )
        choices.append([str(number).zfill(len(first)) for number in numbers])
    fixed = texts[::3]
    return [
        "".join(itertools.chain(*zip(fixed, (*chosen, ""), strict=True)))
        for chosen in itertools.product(*choices)
    ]


class Member(NamedTuple):
    """A regular file in an archive: its name, and its number there."""

    name: str
    item: int


def from_archives(paths: Sequence[str | os.PathLike[str]]) -> Dataset:
    """Return the data set of archives.

    Classes and split are those of the folders in the archives, as for a folder. If the images
    have members ``.cls`` beside them, or ``.json`` or ``.txt`` without any folders, as in
    WebDataset, these have the labels.

    Raises
    ------
    DatasetNotFound
        If an archive does not exist.
    DatasetError
        If one is damaged, would unpack to too much, or there is no image.
    """
    archives = [open_archive(absolute_path(path)) for path in paths]
    root = archives[0].path if len(archives) == 1 else archives[0].path.parent
    sorted_members = [_sort(archive) for archive in archives]
    images = [(n, m) for n, found in enumerate(sorted_members) for m in found.images]
    ignored = [name for found in sorted_members for name in found.ignored]
    labels = [
        label
        for archive, found in zip(archives, sorted_members, strict=True)
        for label in _labels(archive, found)
    ]
    if any(label is not None for label in labels):
        # Parts of a sample, such as "0001.mask.png", are no photos of their own.
        keep = [i for i, (_, member) in enumerate(images) if _is_whole_sample(member.name)]
        images, labels = [images[i] for i in keep], [labels[i] for i in keep]
    if not images:
        raise DatasetError(f"No image was found in {root}.{other_files(ignored)}", path=root)
    names = [f"{archives[n].path}/{member.name}" for n, member in images]
    source = ContainerSource(archives, [(n, member.item) for n, member in images], names)
    if any(label is not None for label in labels):
        return Dataset(
            names, _typed(labels), root=str(root), name=root.stem, ignored=ignored, images=source
        )
    parts = _below_common_folder([_parts(member.name) for _, member in images])
    return arrange(root, names, parts, ignored, source)


def open_archive(path: Path) -> Archive:
    """Open an archive and list its members."""
    if str(path).lower().endswith(_COMPRESSED):
        raise DatasetError(
            f"{path} is compressed as a whole, so that its images cannot be read in place. Unpack "
            "it, or decompress it to a .tar.",
            path=path,
        )
    return ZipArchive(path) if path.suffix.lower() == ".zip" else TarArchive(path)


class Archive(Container):
    """An archive, whose items are its regular files."""

    @property
    @abstractmethod
    def members(self) -> Sequence[Member]:
        """The regular files, in the order of the archive."""


class ZipArchive(Archive):
    """A zip archive."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            with self.opened() as handle:
                entries = zip_directory.read_directory(partial(pread, handle), self.size)
                self._entries = [one for one in entries if one.is_file]
        except (ValueError, OSError) as error:
            raise _damaged(path, error) from error
        total = sum(entry.size for entry in self._entries)
        if total > _MAX_RATIO * self.size + _FREE_BYTES:
            raise DatasetError(
                f"{path} has {self.size:,} bytes and would unpack to {total:,}, which no archive "
                "of images does. Nothing was read.",
                path=path,
            )

    @property
    def selection(self) -> str:
        """The kind of archive."""
        return "zip-1"

    @property
    def members(self) -> Sequence[Member]:
        """The regular files."""
        return [Member(entry.name, item) for item, entry in enumerate(self._entries)]

    def read(self, item: int, reserve: Reserve) -> bytes:
        """Return the content of a member."""
        entry = self._entries[item]
        if entry.start + entry.packed > self.size:  # else so much memory would be taken
            raise BadImage("is cut off: it lies beyond the end of the archive")
        with self.opened() as handle:
            return zip_directory.read_member(entry, partial(pread, handle), reserve)


class TarArchive(Archive):
    """An uncompressed tar archive."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._members: list[Member] = []
        self._places: list[tuple[int, int]] = []
        for name, start, size in self._list():
            self._members.append(Member(name, len(self._places)))
            self._places.append((start, size))

    def _list(self) -> Iterator[tuple[str, int, int]]:
        # Here, since a run that computes nothing imports neither.
        import tarfile

        from .._io.tar_entry import DAMAGE, TarEntry

        try:
            file: Any = io.BufferedReader(OpenContainer(self))
            with tarfile.open(fileobj=file, mode="r:", tarinfo=TarEntry) as tar:
                count = 0
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # a kilobyte for each
                    count += 1
                    if count > MAX_ENTRIES:
                        raise ValueError(f"it has more than {MAX_ENTRIES:,} members")
                    if member.isreg() and not member.issparse():
                        yield member.name, member.offset_data, member.size
        except (*DAMAGE, OSError) as error:
            raise _damaged(self.path, error) from error

    @property
    def selection(self) -> str:
        """The kind of archive."""
        return "tar-1"

    @property
    def members(self) -> Sequence[Member]:
        """The regular files."""
        return self._members

    def read(self, item: int, reserve: Reserve) -> bytes:
        """Return the content of a member."""
        start, size = self._places[item]
        check_size(size)
        reserve(size)
        data = self.read_at(start, size)
        if len(data) < size:
            raise BadImage("is cut off: the archive ends before it", lasting=False)
        return data


def _damaged(path: Path, error: BaseException) -> DatasetError:
    return DatasetError(
        f"{path} cannot be read as an archive: {first_line(error, 200)}. Get it again.", path=path
    )


class _Members(NamedTuple):
    images: list[Member]
    label_files: dict[str, dict[str, Member]]  # by kind and sample
    ignored: list[str]


def _sort(archive: Archive) -> _Members:
    """Return the members of an archive by what they are."""
    found = _Members([], {kind: {} for kind in _LABEL_FILES}, [])
    for member in archive.members:
        parts = _parts(member.name)
        if any(map(is_clutter, parts)):
            continue
        sample, kind = _sample(member.name)
        ending = os.path.splitext(member.name)[1].lower()
        hidden = any(part.startswith(".") for part in parts)
        if len(member.name) > _MAX_NAME_CHARACTERS:
            found.ignored.append(f"{member.name[:80]}...{ending}")
        elif ending in IMAGE_SUFFIXES and is_readable(ending) and not hidden:
            found.images.append(member)
        else:
            found.ignored.append(member.name)
            if kind in _LABEL_FILES:
                found.label_files[kind].setdefault(sample, member)
    return found


def _sample(name: str) -> tuple[str, str]:
    """Return key and field of a member, as WebDataset does: at the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    stem, _, kind = file.partition(".")
    return f"{folder}{slash}{stem}", kind.lower()


def _is_whole_sample(name: str) -> bool:
    return "." not in _sample(name)[1]


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def _below_common_folder(parts: list[list[str]]) -> list[list[str]]:
    """Return parts of names without a folder that holds all others, as most archives have."""
    while all(len(p) > 2 for p in parts) and len({p[0] for p in parts}) == 1:
        if split_of(parts[0][0]):
            break
        parts = [p[1:] for p in parts]
    return parts


def _labels(archive: Archive, found: _Members) -> list[Any]:
    """Return the label of each image that has one in a member of its own, else None."""
    flat = all(len(p) == 1 for p in _below_common_folder([_parts(m.name) for m in found.images]))
    kinds = _LABEL_FILES if flat else _LABEL_FILES[:1]
    labels: dict[str, Any] = {}
    result = []
    for image in found.images:
        sample = _sample(image.name)[0]
        if sample not in labels:
            labels[sample] = next(
                (
                    label
                    for kind in kinds
                    if (member := found.label_files[kind].get(sample)) is not None
                    and (label := _label(archive, member, kind)) is not None
                ),
                None,
            )
        result.append(labels[sample])
    return result


def _label(archive: Archive, member: Member, kind: str) -> Any:
    """Return the label in a member; None if there is none."""
    try:
        text = archive.read(member.item, _at_most_a_label).decode("utf-8-sig").strip()
        if kind == "json":
            value = json.loads(text)
            value = next((value[key] for key in _JSON_KEYS if key in value), None)
            return value if isinstance(value, (str, int, float)) else None
    except (BadImage, OSError, ValueError, TypeError, RecursionError):
        return None
    return text if len(text) <= _MAX_LABEL_CHARACTERS and "\n" not in text else None


def _at_most_a_label(size: int) -> None:
    if size > _MAX_LABEL_BYTES:
        raise BadImage(f"is {format_count(size, 'byte')}, which is no label")


def _typed(labels: Sequence[Any]) -> list[Any]:
    """Return labels as numbers if all of them are such, else as text."""
    if all(label is None or type(label) is int for label in labels):
        return list(labels)
    return label_values(["" if label is None else str(label) for label in labels])
