"""Files behind URLs, through fsspec: read with limits, and whether they have changed.

The only module that imports fsspec.
"""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .._io.wording import first_line, install_hint
from ..errors import MissingExtra
from ..images.image_file import BadImage, read_file
from . import remote_http
from .fetched import (
    CONNECT_SECONDS,
    READ_SECONDS,
    SETTLED_SECONDS,
    TOTAL_SECONDS,
    Fetched,
    bad_image,
    checked_size,
    failed,
)
from .read_ahead import MAX_REQUESTS, Gate, wait_async, wait_for
from .urls import HTTP, is_url, scheme_of
from .zip_directory import read_directory

_ETAGS = ("ETag", "etag", "md5Hash", "content_md5", "md5", "generation")
_TIMES = ("LastModified", "last_modified", "updated", "mtime")
_EXTRAS = {"s3": "s3", "s3a": "s3"}


class RemoteFiles:
    """Opens URLs; keeps their file systems until `close`."""

    def __init__(self) -> None:
        self._systems: dict[str, Any] = {}
        self._lock, self._opening = threading.Lock(), threading.RLock()
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """Drop the reads that have not begun."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def start(self, url: str, known: str | None, gate: Gate) -> Future[Fetched]:
        """Start to read a URL, or a local path.

        Parameters
        ----------
        url : str
        known : str, optional
            The version whose content is known, and is not read again.
        gate : Gate
            Asked for memory once the size is known.

        Returns
        -------
        Future of Fetched
            Or of `BadImage`, always with ``lasting=False``.
        """
        try:
            if not is_url(url):
                return self._submit(_read_local, url, gate)
            if scheme_of(url) == "zip":  # opening the archive takes requests of its own
                return self._submit(self._read_member, url, known, gate)
            system, path = self.locate(url)
            if scheme_of(url) == "file":  # which may be a pipe, or endless
                return self._submit(_read_local, path, gate)
        except Exception as error:
            outcome: Future[Fetched] = Future()
            outcome.set_exception(bad_image(error, url))
            return outcome
        if scheme_of(url) in HTTP:
            return asyncio.run_coroutine_threadsafe(
                remote_http.get(system, url, known, gate), system.loop
            )
        if system.async_impl:
            read = _read_async(system, path, url, known, gate)
            return asyncio.run_coroutine_threadsafe(read, system.loop)
        return self._submit(_read, system, path, url, known, gate)

    def _submit(self, read: Any, *arguments: Any) -> Future[Fetched]:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(MAX_REQUESTS, "featcache-remote")
            return self._pool.submit(read, *arguments)

    def _read_member(self, url: str, known: str | None, gate: Gate) -> Fetched:
        try:
            system, path = self.locate(url)
        except Exception as error:
            raise bad_image(error, url) from None
        return _read(system, path, url, known, gate)

    def locate(self, url: str) -> tuple[Any, str]:
        """Return the file system of a URL, and the path in it.

        Raises
        ------
        MissingExtra
            If the library for it is not installed.
        """
        scheme = scheme_of(url)
        kind = _class_of(scheme)
        if scheme == "zip":
            inner, _, outer = url.partition("::")
            return self._archive(kind, outer), kind._strip_protocol(inner)
        options = kind._get_kwargs_from_urls(url)
        key = f"{scheme} {sorted(options.items())}"
        with self._lock:
            if key not in self._systems:
                if scheme in ("s3", "s3a"):
                    options = {**options, **_s3_options()}
                system = kind(**options)
                # fsspec shares its instances; an earlier listing has the versions of that time.
                system.invalidate_cache()
                self._systems[key] = system
            return self._systems[key], kind._strip_protocol(url)

    def _archive(self, kind: Any, outer: str) -> Any:
        """Return the file system of an archive, which is opened once."""
        system, path = self.locate(outer if is_url(outer) else f"file://{outer}")
        with self._opening:
            if outer not in self._systems:
                if not system.isfile(path):  # opening a pipe would wait for ever
                    raise FileNotFoundError(path)
                archive = system.open(path, "rb")
                _check_directory(archive, system.size(path))
                self._systems[outer] = kind(fo=archive)
            return self._systems[outer]

    def list_files(self, url: str) -> list[tuple[str, str]]:
        """Return the files below a folder, or that match a pattern with ``*``.

        Returns
        -------
        list of (str, str)
            URL, and path below the folder.

        Raises
        ------
        FileNotFoundError, OSError
            As the file system says.
        """
        system, path = self.locate(url)
        system.invalidate_cache()
        inner, separator, outer = url.partition("::") if scheme_of(url) == "zip" else (url, "", "")
        if "*" in inner:
            matches = system.glob(path, detail=True)
            found = [name for name, info in matches.items() if _is_file(info)]
            path = ""
        else:
            found = system.find(path)
        return [
            (system.unstrip_protocol(name) + separator + outer, name[len(path) :].strip("/"))
            for name in sorted(found)
        ]

    def is_folder(self, url: str) -> bool:
        """Return whether a URL is a folder of a file system that can list."""
        if scheme_of(url) in HTTP:
            return False
        system, path = self.locate(url)
        system.invalidate_cache()
        return bool(system.isdir(path))


def _check_directory(archive: Any, size: int | None) -> None:
    """Raise `ValueError` if a zip archive has more members than can be listed in memory."""

    def read(start: int, length: int) -> bytes:
        archive.seek(start)
        return bytes(archive.read(length))

    if size is None:
        raise ValueError("the server does not say how large the archive is")
    for _ in read_directory(read, size):
        pass


def _is_file(info: Mapping[str, Any]) -> bool:
    return info.get("type") != "directory"


def _class_of(scheme: str) -> Any:
    """Return the class of file systems for a scheme; raise `MissingExtra` if it is missing."""
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtra(
            f"{scheme}:// URLs need fsspec: {install_hint('remote')}", package="fsspec"
        ) from error
    try:
        return fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        how = install_hint(extra) if extra else first_line(error)
        raise MissingExtra(f"{scheme}:// URLs need another package: {how}", package=None) from error


def check_installed(url: str) -> None:
    """Raise `MissingExtra` if the library for a URL is not installed."""
    _class_of(scheme_of(url))


def _s3_options() -> dict[str, Any]:
    """Return the options of S3: a connection per request, and no endless waiting."""
    from fsspec.config import conf

    ours = {
        "max_pool_connections": MAX_REQUESTS,
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"max_attempts": 2},
    }
    return {"config_kwargs": {**ours, **conf.get("s3", {}).get("config_kwargs", {})}}


async def _read_async(system: Any, path: str, url: str, known: str | None, gate: Gate) -> Fetched:
    try:
        read = _read_object(system, path, known, gate)
        return await asyncio.wait_for(read, TOTAL_SECONDS)
    except BadImage:
        raise
    except Exception as error:
        raise bad_image(error, url) from None


async def _read_object(system: Any, path: str, known: str | None, gate: Gate) -> Fetched:
    info = await system._info(path)
    size, version = _inspect(info)
    if known is not None and version == known:
        return Fetched(None, known)
    await wait_async(gate, size)
    # One byte more than the size reveals that the file has grown.
    data = await system._cat_file(path, start=0, end=size + 1) if size else b""
    return Fetched(_complete(data, size), version)


def _read(system: Any, path: str, url: str, known: str | None, gate: Gate) -> Fetched:
    try:
        info = system.info(path)
        size, version = _inspect(info)
        if known is not None and version == known:
            return Fetched(None, known)
        wait_for(gate, size)
        with system.open(path, "rb") as file:
            return Fetched(_complete(file.read(size + 1), size), version)
    except BadImage:
        raise
    except Exception as error:
        raise bad_image(error, url) from None


def _read_local(path: str, gate: Gate) -> Fetched:
    return Fetched(read_file(path, lambda size: wait_for(gate, size))[0], None)


def _inspect(info: Mapping[str, Any]) -> tuple[int, str | None]:
    """Return size and version of a file; raise `BadImage` if it is a folder or too large."""
    if not _is_file(info):
        raise failed("it is a folder")
    size = info.get("size")
    if not isinstance(size, int) or size < 0:
        raise failed("the server does not say how large it is")
    return checked_size(size), _version(info, size)


def _version(info: Mapping[str, Any], size: int) -> str | None:
    for name in _ETAGS:
        if info.get(name):
            return f"{name} {info[name]} {size}"
    times = (info[name] for name in _TIMES if info.get(name))
    time = next(times, None)
    if time is None or not _settled(time):
        return None
    return f"time {time} {size}"


def _settled(time: Any) -> bool:
    """Return whether a time of modification is long enough ago to identify the content."""
    if isinstance(time, datetime.datetime):
        time = time.timestamp()
    if isinstance(time, (int, float)):
        return datetime.datetime.now().timestamp() - time >= SETTLED_SECONDS
    return True


def _complete(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise failed(f"{len(data):,} bytes came instead of the {size:,} that were declared")
    return data
