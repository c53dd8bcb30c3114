"""The objects below a URL of an object store: list, read, create. Imports fsspec."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..._io.atomic import remove_stale, sync_folder, temporary_path
from ..._io.wording import first_line, format_values, install_hint
from ...data.urls import clean_url, is_url, scheme_of, without_secrets
from ...errors import InvalidRequest, MissingExtra, StoreError, StoreWriteError
from .retry import retried

# Those whose writes "only if it does not exist" are tested.
SCHEMES = ("s3", "s3a", "file", "memory")
_MEMORY_LOCK = threading.Lock()
_CHECK = "Check the address, the credentials with their permissions, and the connection."


@dataclass(frozen=True)
class ObjectState:
    """What a listing says of an object.

    Attributes
    ----------
    size : int
        In bytes.
    modified : float
        When it was created, in seconds by the clock of the server.
    """

    size: int
    modified: float


_FEW = 8  # objects are asked for one by one; of more, the folder is listed


class TooLarge(StoreError):
    """An object has more bytes than it may have."""


class Bucket:
    """Objects whose names begin with a URL.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``. The endpoint and the credentials come from the environment, as
        boto's do.

    Raises
    ------
    InvalidRequest
        If it is not a URL of one of `SCHEMES`, holds credentials, or its path has a part that is
        empty, ``.`` or ``..``.
    MissingExtra
        If the library for it is not installed.
    """

    def __init__(self, url: str) -> None:
        # Without a name, fsspec would take "s3:" for the name of a folder here.
        named = bool(str(url).partition("://")[2].strip("/"))
        if not is_url(url) or scheme_of(url) not in SCHEMES or "::" in url or not named:
            raise InvalidRequest(
                f"{clean_url(str(url))} is not the URL of a cache that can be shared: give one of "
                f"{format_values(SCHEMES, str)}, as s3://bucket/prefix.",
                received=clean_url(str(url)),
            )
        if clean_url(url) != url:
            raise InvalidRequest(
                f"{clean_url(url)} was given with credentials, which would be written down: pass "
                "them in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY).",
                received=clean_url(url),
            )
        self.url = url.rstrip("/")
        _check_parts(self.url)
        try:
            import fsspec

            options = _s3_options() if scheme_of(url) in ("s3", "s3a") else {}
            system, path = fsspec.core.url_to_fs(self.url, use_listings_cache=False, **options)
        except ImportError as error:
            raise MissingExtra(
                f"{scheme_of(url)}:// needs another package: {install_hint('s3')}.",
                package="s3fs",
            ) from error
        self._system: Any = system
        if options:
            system.retries = 1
        self._root = str(path).rstrip("/")

    def __repr__(self) -> str:
        return f"<Bucket {self.url}>"

    def objects(self, folder: str) -> dict[str, int]:
        """Return the names of the objects directly below a folder, with their sizes in bytes."""
        return {name: state.size for name, state in self.states(folder).items()}

    def states(self, folder: str) -> dict[str, ObjectState]:
        """Return size and time of the objects directly below a folder, by name."""
        return {
            str(info["name"]).rpartition("/")[2]: ObjectState(
                int(info.get("size") or 0), _modified(info)
            )
            for info in self._list(folder)
            if info.get("type") == "file"
        }

    def state(self, name: str) -> ObjectState | None:
        """Return size and time of an object, without a listing; None if there is none."""
        try:
            info = retried(lambda: self._system.info(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._error(f"be read ({name})", error) from None
        return ObjectState(int(info.get("size") or 0), _modified(info))

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly below a folder, sorted."""
        names = [str(info["name"]).rstrip("/").rpartition("/")[2]
                 for info in self._list(folder) if info.get("type") == "directory"]  # fmt: skip
        return sorted(names)

    def read(self, name: str, limit: int) -> bytes | None:
        """Return the content of an object; None if there is none.

        Parameters
        ----------
        name : str
        limit : int
            One with more bytes is refused; no more are read.

        Raises
        ------
        StoreError
            If it cannot be read.
        TooLarge
            If it is larger.
        """
        try:
            path = f"{self._root}/{name}"
            data = retried(lambda: self._system.cat_file(path, start=0, end=limit + 1))
        except (FileNotFoundError, IsADirectoryError):
            return None
        except Exception as error:
            if not self._is_empty(name, error):
                raise self._error(f"be read ({name})", error) from None
            data = b""
        if len(data) > limit:
            raise TooLarge(
                f"{self.url}/{name} has more than the {limit:,} bytes that it may have. It was not "
                "written by featcache.",
                path=f"{self.url}/{name}",
            )
        return bytes(data)

    def create(self, name: str, data: bytes) -> bool:
        """Create an object; return False if one with other content exists, which is left as it is.

        One with this content counts as created: the answer to an earlier attempt may be lost.

        Raises
        ------
        StoreWriteError
            If the server refuses.
        """
        try:
            retried(lambda: self._create(f"{self._root}/{name}", data))
        except FileExistsError:
            return self._holds(name, data)
        except Exception as error:
            if "PreconditionFailed" in str(error) or "pre-conditions" in str(error):
                return self._holds(name, data)
            raise StoreWriteError(
                f"{self.url}/{name} could not be written: {self._reason(error)}. {_CHECK} Objects "
                "that were written before stay; the same command goes on.",
                path=f"{self.url}/{name}",
            ) from None
        return True

    def remove(self, name: str) -> None:
        """Remove an object; one that is not there is no error.

        Raises
        ------
        StoreWriteError
            If the server refuses.
        """
        try:
            retried(lambda: self._system.rm_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return
        except Exception as error:
            raise StoreWriteError(
                f"{self.url}/{name} could not be removed: {self._reason(error)}. {_CHECK} The "
                "same command goes on.",
                path=f"{self.url}/{name}",
            ) from None

    def _create(self, path: str, data: bytes) -> None:
        if scheme_of(self.url) == "file":
            _create_file(Path(path), data)
            return
        if scheme_of(self.url) != "memory":
            self._system.pipe_file(path, data, mode="create")
            return
        # fsspec looks first and writes then: two threads would both create an object.
        with _MEMORY_LOCK:
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.pipe_file(path, data, mode="create")

    def _holds(self, name: str, data: bytes) -> bool:
        """Return whether an object has some content; a larger one is not read."""
        with contextlib.suppress(TooLarge):
            return self.read(name, len(data)) == data
        return False

    def _is_empty(self, name: str, error: Exception) -> bool:
        """Return whether reading an object failed since it is empty: S3 gives no part of it."""
        if not isinstance(error, OSError) or error.errno != errno.EINVAL:
            return False
        found = self.state(name)
        return found is not None and not found.size

    def _list(self, folder: str) -> Any:
        path = f"{self._root}/{folder}"
        try:
            return retried(lambda: self._system.ls(path, detail=True, refresh=True))
        except FileNotFoundError as error:
            if type(error.__cause__).__name__ != "NoSuchBucket":  # of botocore
                return []
            # Else a misspelt bucket looks like an empty cache, and all is computed again.
            raise self._error("be listed", error) from None
        except Exception as error:
            raise self._error("be listed", error) from None

    def _error(self, what: str, error: Exception) -> StoreError:
        return StoreError(
            f"{self.url} cannot {what}: {self._reason(error)}. {_CHECK}", path=self.url
        )

    def _reason(self, error: Exception) -> str:
        return without_secrets(first_line(error, 200), self.url)


def check_not_collected(
    bucket: Bucket, prefix: str, names: Collection[str], collected: float
) -> None:
    """Raise `StoreWriteError` if an object of a shard may have been removed.

    Parameters
    ----------
    bucket : Bucket
    prefix : str
        Folder of the objects.
    names : collection of str
    collected : float
        Time of the server; objects that are older and not listed may have been removed.
    """
    listed = bucket.states(prefix) if len(names) > _FEW else {}
    for name in names:
        found = listed.get(name) or bucket.state(f"{prefix}/{name}")
        if found is None or found.modified < collected:
            raise StoreWriteError(
                f"{bucket.url}/{prefix}/{name} was not listed for so long that `featcache gc` may "
                "have removed it; this process was probably suspended. Run the same command again.",
                path=bucket.url,
            )


def _check_parts(url: str) -> None:
    """Raise `InvalidRequest` if a server may take a part of the path away.

    For some servers ``a//b`` is another place than ``a/b``, for others it is the same: two caches
    would look like one, or one like two.
    """
    path = url.partition("://")[2]
    if scheme_of(url) == "file":
        path = path.removeprefix("/")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidRequest(
            f"The path of {url} has an empty part, '.' or '..', which not all servers take for the "
            "same place. Give it without them, as s3://bucket/prefix.",
            received=url,
        )


def _modified(info: Mapping[str, Any]) -> float:
    """Return the time in a listing: file systems of fsspec name and write it differently."""
    found = info.get("LastModified") or info.get("mtime") or info.get("created") or 0.0
    return found.timestamp() if isinstance(found, datetime) else float(found)


def _s3_options() -> dict[str, Any]:
    """Return the options of a file system of S3 that does not repeat requests itself.

    botocore and s3fs try five times each: with those of `retried`, a server that refuses would be
    asked 300 times, and a broken connection noticed after half an hour.
    """
    from fsspec.config import conf

    chosen = conf.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {"retries": {"max_attempts": 0}, **chosen}}


def _create_file(path: Path, data: bytes) -> None:
    """Create a file with all of its content at once; raise FileExistsError if there is one.

    fsspec writes into the file: a reader would see a part of it, and after a kill a part would
    stay, which could never be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(path.parent)
    unfinished = temporary_path(path.parent)
    try:
        with open(unfinished, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(unfinished, path)
        sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)
