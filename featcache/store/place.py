"""Where a store lies, behind one interface: a folder here, or objects in an object store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

from .._io.atomic import make_folder
from .._io.cache_dirs import cache_folder, cache_url, stores_folder
from .._io.disk_space import check_free_bytes
from .._io.logs import get_logger
from .._io.system_errors import system_errors
from ..backbones.spec import BackboneSpec
from . import maintenance
from .lease import NAME as LEASE_NAME
from .lease import lease, mark_in_use
from .manifest import NAME as MANIFEST_NAME
from .manifest import Manifest, find_stores, mark_used
from .recovery import find_shards
from .store import Store

log = get_logger(__name__)

Listing = Callable[[Mapping[str, int]], None]

_ATTEMPTS = 3
_LEASE_WAIT_SECONDS = 10.0


class Place(Protocol):
    """Where the store of a spec is, or will be."""

    @property
    def location(self) -> Path | str:
        """The folder, or the URL."""
        ...

    @property
    def commit_seconds(self) -> float | None:
        """Seconds between the commits of an extraction; None for its default."""
        ...

    def open(self, spec: BackboneSpec, width: int, metadata: Mapping[str, str]) -> Store | None:
        """Open the store; return None if there is none. See `Store.create` for the parameters."""
        ...

    def create(self, spec: BackboneSpec, width: int, metadata: Mapping[str, str]) -> Store:
        """Open the store for appending; create it if it does not exist. See `Store.create`."""
        ...

    def refresh(self, store: Store) -> None:
        """List the shards of a store of this place again, with commits of other processes.

        Raises
        ------
        StoreError
            If it is not there any more, or cannot be read.
        """
        ...

    def mark(self, marks: ExitStack, *, append: bool) -> None:
        """Mark the store as in use until `marks` is closed, so that no process removes it.

        Parameters
        ----------
        marks : ExitStack
        append : bool
            Rows will be appended, so that the store may not exist yet.
        """
        ...

    def mark_used(self) -> None:
        """Set the time of last use."""
        ...

    def complete(self, store: Store) -> None:
        """List all shards in the manifest, and merge small ones, once rows were committed."""
        ...

    def check_space(self, size: int, what: str, advice: str) -> None:
        """Raise `StoreWriteError` if there is no space for some bytes; see `check_free_bytes`."""
        ...

    def stores(self) -> Sequence[tuple[PurePath, Manifest]]:
        """Return the stores of the same cache that might be of the same backbone, by name."""
        ...

    def announced(self) -> contextlib.AbstractContextManager[str]:
        """Context manager with a mark that `sees` finds, on other machines as well.

        Raises
        ------
        StoreWriteError
            If it cannot be written.
        """
        ...

    def sees(self, mark: str) -> bool:
        """Return whether the mark of another process is found here."""
        ...

    def list_through(self, store: Store, listing: Listing) -> None:
        """Let another process list the shards that this one appends to a store.

        Parameters
        ----------
        store : Store
        listing : callable
            Called with the numbers of rows of new shards by name, if they are not found without
            being listed.
        """
        ...

    def lister(self) -> contextlib.AbstractContextManager[Listing]:
        """Context manager with a function that lists the shards that other processes append."""
        ...


def place_of(cache: Path, url: str | None, name: str, writer: str = "") -> Place:
    """Return where a store lies.

    Parameters
    ----------
    cache : Path
        The cache folder, with the local copies of the files of object stores.
    url : str or None
        The URL of the cache if it is in an object store.
    name : str
        Name of the store.
    writer : str
        Beginning of the names of the shards that are appended, hexadecimal digits. Of a large
        store in an object store, only those shards are listed; see `BucketStore`.

    Raises
    ------
    InvalidRequest, MissingExtra
        If the URL is not accepted, or the library for it is not installed.
    """
    if url is None:
        return FolderPlace(stores_folder(cache) / name)
    from .bucket.place import BucketPlace

    return BucketPlace.of(cache, url, name, writer)


def open_location(location: str | os.PathLike[str]) -> Store:
    """Open the store in a folder, or at a URL as `Place.location` gives it.

    Raises
    ------
    UnknownStore, StoreError
        If there is none.
    """
    root, found, name = str(location).rstrip("/").rpartition("/stores/")
    url = cache_url(root) if found else None
    if url is None:
        return Store(location)
    from .bucket.place import BucketPlace

    return BucketPlace.of(cache_folder(), url, name).open_existing()


@dataclass(frozen=True)
class FolderPlace:
    """A store in a folder; see `Place`."""

    location: Path
    commit_seconds: float | None = None

    def open(self, spec: BackboneSpec, width: int, metadata: Mapping[str, str]) -> Store | None:
        """Open the store; return None if there is none. Rewrite a lost manifest."""
        if (self.location / MANIFEST_NAME).is_file():
            return Store(self.location)
        if not find_shards(self.location):
            return None
        return Store.create(self.location, spec, width, metadata)

    def create(self, spec: BackboneSpec, width: int, metadata: Mapping[str, str]) -> Store:
        """Open the store for appending; create it if it does not exist."""
        return Store.create(self.location, spec, width, metadata)

    def refresh(self, store: Store) -> None:
        """List the shards of a store of this folder again."""
        store.refresh()

    def mark(self, marks: ExitStack, *, append: bool) -> None:
        """Mark the store as in use until `marks` is closed."""
        if append:
            marks.callback(_remove_empty_store, self.location)
        for _ in range(_ATTEMPTS):
            if append:
                make_folder(self.location)
            mark = marks.enter_context(mark_in_use(self.location))
            if mark or not isinstance(mark.refused, FileNotFoundError):
                break  # else the folder was removed after it was made
        if os.path.lexists(self.location / LEASE_NAME):
            _wait_for_lease(self.location)  # a process that removes rows may not have seen the mark

    def mark_used(self) -> None:
        """Set the time of last use."""
        mark_used(self.location)

    def complete(self, store: Store) -> None:
        """List all shards in the manifest, and merge small ones, once rows were committed."""
        store.write_manifest()
        maintenance.compact(store)
        store.close()

    def check_space(self, size: int, what: str, advice: str) -> None:
        """Raise `StoreWriteError` if there is no space on the disk."""
        check_free_bytes(self.location.parent, size, what, advice)

    def stores(self) -> Sequence[tuple[PurePath, Manifest]]:
        """Return the stores of the same cache folder."""
        return list(find_stores(self.location.parent))

    @contextmanager
    def announced(self) -> Iterator[str]:
        """Context manager with the path of a file that other processes can look for."""
        with mark_in_use(self.location) as mark:
            with system_errors(self.location):
                if mark.refused is not None:
                    raise mark.refused
            yield str(mark.path)

    def sees(self, mark: str) -> bool:
        """Return whether the file of another process is found here."""
        return Path(mark).exists()

    def list_through(self, store: Store, listing: Listing) -> None:
        """Do nothing: shards are found in the folder."""

    def lister(self) -> contextlib.AbstractContextManager[Listing]:
        """Context manager with a function that does nothing: shards are found in the folder."""
        return contextlib.nullcontext(lambda shards: None)


def _wait_for_lease(folder: Path) -> None:
    while True:
        with lease(folder, wait=_LEASE_WAIT_SECONDS) as held:
            if held or held.refused is not None:
                return
        log.info("%s: waiting for a process that merges or removes its shards", folder.name)


def _remove_empty_store(folder: Path) -> None:
    """Remove a store without rows, unless another process has just begun to use it."""
    with contextlib.suppress(OSError):
        # Under the lease: a process that marks the store from here on waits for it and plans again.
        with lease(folder) as held:
            if not held or not set(os.listdir(folder)) <= {MANIFEST_NAME, LEASE_NAME}:
                return
            (folder / MANIFEST_NAME).unlink(missing_ok=True)
        folder.rmdir()
