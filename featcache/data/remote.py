"""Images behind URLs: object stores, web servers, archives."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .._io.atomic import read_memo, write_memo
from .._io.wording import first_line, format_count
from ..errors import DatasetError, DatasetNotFound, FeatcacheError
from ..images.formats import SUFFIXES, is_readable
from ..images.image_file import BadImage, content_id, is_content_id
from .dataset import Dataset
from .file_index import FileIdentity
from .folder import arrange
from .listing import is_clutter
from .sources import ImageSource, Read, Reserve, no_limit
from .urls import HTTP, check_url, clean_url, is_url, memo_key, scheme_of, without_secrets

if TYPE_CHECKING:
    from .fetched import Fetched
    from .read_ahead import ReadAhead

# The modules that open URLs are imported on use: asyncio takes a while to import.
_VERSION = 1
_CONTAINERS = (".csv", ".tsv", ".parquet", ".tar", ".zip", ".gz")


class RemoteSource(ImageSource):
    """Images behind URLs, also beside local files.

    Up to 64 requests are under way at a time. The id of an image is remembered together with
    the version that the server names (an ETag, or size and time), so that the next run asks for
    versions and reads nothing.

    Parameters
    ----------
    urls : sequence of str
        URLs and absolute paths. They may hold credentials; `names` do not.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._names = [clean_url(url) if is_url(url) else url for url in urls]

    @property
    def names(self) -> Sequence[str]:
        """The URLs without credentials."""
        return self._names

    @property
    def locations(self) -> Sequence[str]:
        """The URLs with their credentials, and absolute paths."""
        return self._urls

    def read(self, position: int, reserve: Reserve = no_limit) -> bytes:
        """Return the content of a URL; see `RemoteFiles`."""
        from .read_ahead import OpenGate
        from .remote_files import RemoteFiles

        files = RemoteFiles()
        try:
            found = files.start(self._urls[position], None, OpenGate()).result()
        finally:
            files.close()
        return _content(found, reserve)

    def take(self, rows: Sequence[int]) -> RemoteSource:
        """Return a source of some of the images."""
        return RemoteSource([self._urls[i] for i in rows])

    @contextmanager
    def reading(self, positions: Sequence[int]) -> Iterator[Read]:
        """Context manager with a function like `read` that has requests under way."""
        with self._ahead(positions, {}) as ahead:
            yield lambda position, reserve: _content(ahead.get(position), reserve)

    @contextmanager
    def _ahead(
        self, positions: Sequence[int], known: dict[int, str]
    ) -> Iterator[ReadAhead[Fetched]]:
        from .read_ahead import ReadAhead
        from .remote_files import RemoteFiles

        files = RemoteFiles()
        ahead = ReadAhead(positions, lambda i, gate: files.start(self._urls[i], known.get(i), gate))
        try:
            yield ahead
        finally:
            ahead.close()
            files.close()

    def identify(
        self, index: Path, workers: int, on_read: Callable[[int], object] = lambda _: None
    ) -> list[FileIdentity]:
        """Return the id of each image, reading only new and changed ones."""
        file = index / f"remote-{self._place()}.json"
        entries = _load(file)
        keys = [memo_key(url) if is_url(url) else None for url in self._urls]
        known = {i: entries[key][0] for i, key in enumerate(keys) if key in entries}
        found = []
        updates: dict[str, tuple[str, str]] = {}
        with self._ahead(range(len(keys)), known) as ahead:
            for position, key in enumerate(keys):
                try:
                    fetched = ahead.get(position)
                except BadImage as bad:
                    found.append(FileIdentity(None, bad.reason))
                else:
                    earlier = entries[key][1] if key in entries else ""
                    image_id = earlier if fetched.data is None else content_id(fetched.data)
                    found.append(FileIdentity(image_id))
                    if key is not None and fetched.version is not None:
                        updates[key] = (fetched.version, image_id)
                on_read(1)
        if any(entries.get(key) != entry for key, entry in updates.items()):
            entries.update(updates)
            _save(file, entries)
        return found

    def _place(self) -> str:
        """Return a name for the server of the images, or for all if there are several."""
        places = {"/".join(name.split("/")[:3]) for name in self._names if is_url(name)}
        place = places.pop() if len(places) == 1 else ""
        return hashlib.sha256(place.encode("utf-8", "replace")).hexdigest()[:24]


def _content(found: Fetched, reserve: Reserve) -> bytes:
    data = found.data if found.data is not None else b""
    reserve(len(data))
    return data


def _load(file: Path) -> dict[str | None, tuple[str, str]]:
    """Return version and image id of each URL; nothing if the file is missing or malformed."""
    memo = read_memo(file)
    try:
        if memo is None or memo["version"] != _VERSION:
            return {}
        entries = memo["entries"].items()
        return {
            key: (version, image_id)
            for key, (version, image_id) in entries
            if isinstance(version, str) and is_content_id(image_id)
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _save(file: Path, entries: dict[str | None, tuple[str, str]]) -> None:
    body = {key: list(entry) for key, entry in entries.items()}
    write_memo(file, {"version": _VERSION, "entries": body}, "the index of remote files")


def remote_source(paths: Sequence[str]) -> RemoteSource | None:
    """Return the source of paths some of which are URLs; None if none is.

    Raises
    ------
    DatasetError
        If a URL is of a kind that is not opened.
    MissingExtra
        If the library for one is not installed.
    """
    urls = [path for path in paths if is_url(path)]
    if not urls:
        return None
    from .remote_files import check_installed

    for url in {scheme_of(url): url for url in urls}.values():
        check_installed(url)
    return RemoteSource(paths)


def from_url(url: str) -> Dataset:
    """Return the data set of a URL: of an image, a folder, or a pattern with ``*``.

    Raises
    ------
    DatasetError, DatasetNotFound
        If there is no image, or it is a table.
    MissingExtra
        If the library for it is not installed.
    """
    from .remote_files import RemoteFiles, check_installed

    check_url(url)
    check_installed(url)
    name = clean_url(url)
    inner = name.partition("::")[0]
    if inner.lower().endswith(_CONTAINERS):
        in_place = f", or pass its images: zip://**::{name}" if inner.endswith(".zip") else ""
        raise DatasetError(
            f"{name} is a table or an archive. Download it{in_place}. The paths in a table may be "
            "URLs.",
            received=name,
        )
    files = RemoteFiles()
    try:
        pattern = "*" in inner and scheme_of(url) not in HTTP
        if pattern or files.is_folder(url):
            return _from_listing(files.list_files(url), name, pattern=pattern)
    except (FeatcacheError, BadImage):
        raise
    except Exception as error:  # of any library of fsspec
        reason = without_secrets(first_line(error), url)
        raise DatasetNotFound(f"{name} cannot be listed: {reason}.", received=name) from None
    finally:
        files.close()
    if inner.endswith("/"):
        raise DatasetError(
            f"{name} is a folder on a web server, which cannot be listed. Give the URLs of the "
            "images, as a list or in a table.",
            received=name,
        )
    return Dataset([name], root=name, name=_title(inner), images=RemoteSource([url]))


def _from_listing(files: Sequence[tuple[str, str]], name: str, *, pattern: bool) -> Dataset:
    """Return the data set of files: URL, and path below the folder `name`."""
    kept: list[str] = []
    ignored: list[str] = []
    parts: list[list[str]] = []
    for url, path in files:
        ending = os.path.splitext(path)[1].lower()
        if any(part.startswith(".") or is_clutter(part) for part in path.split("/")):
            continue
        if ending in SUFFIXES and is_readable(ending):
            kept.append(url)
            parts.append(path.split("/"))
        else:
            ignored.append(clean_url(url))
    if not kept:
        raise DatasetError(
            f"No image was found in {name}, which has {format_count(len(files), 'file')}.",
            received=name,
        )
    source = RemoteSource(kept)
    if pattern:
        title = _title(name.partition("::")[0].partition("*")[0])
        return Dataset(source.names, root=name, name=title, images=source, ignored=ignored)
    root = Path(name.partition("::")[0])  # which has one slash instead of two
    try:
        found = arrange(root, source.names, parts, ignored, source)
    except DatasetError as error:
        raise replace(error, message=error.message.replace(str(root), name.rstrip("/"))) from None
    return replace(found, root=name, name=_title(name.partition("::")[0]))


def _title(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2] or "images"
