"""A store in an object store, read through local copies of its shards."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..._io.atomic import make_folder, temporary_path, write_atomic
from ..._io.file_state import file_state
from ..._io.logs import get_logger
from ...errors import StoreCorrupt, StoreError, StoreMismatch, StoreWriteError, UnknownStore
from ...hdf5.row_dtype import Rows
from ...hdf5.sandbox import inspect_shard
from ...hdf5.shard_metadata import (
    Layout,
    ShardMetadata,
    check_metadata,
    metadata_differs,
    metadata_path,
    read_metadata,
)
from ...hdf5.shard_name import Damage, shard_error
from ..shard_reader import ShardReader
from ..shard_table import ShardTable
from ..store import Store
from .local_copies import FOLDER, copies_in, folders_beside, oldest_copies, remove_copies
from .manifests import BucketManifest, latest_manifest, store_prefix
from .objects import Bucket
from .store_names import store_names

# Of the shards of all stores in object stores; those that were read longest ago go first.
MAX_LOCAL_BYTES = 10 * 2**30
_MAX_SIDECAR_BYTES = 2**30
_TOUCH_SECONDS = 60.0
_ATTEMPTS = 50
_READS = 3
_REQUESTS = 16  # at a time

log = get_logger(__name__)

T = TypeVar("T")


class BucketStore(Store):
    """A store in an object store. It can be read; `push` adds rows to it.

    The ids of all rows are fetched when it is opened, and a shard when one of its rows is read. The
    SHA-256 of its bytes must be the one in its name.

    Parameters
    ----------
    url : str
        The URL of the cache.
    name : str
        Name of the store.
    mirror : Path
        Folder for the local copies, of the store's name.
    max_bytes : int
        How much the local copies of shards may take, with those of other stores in the same cache
        folder; one is kept in any case.

    Raises
    ------
    UnknownStore
        If there is no such store.
    StoreError
        If it cannot be read.
    StoreCorrupt, StoreFormatError
        If its manifest is damaged, or of another format version.
    """

    def __init__(
        self, url: str, name: str, mirror: Path, *, max_bytes: int = MAX_LOCAL_BYTES
    ) -> None:
        self._url, self._name, self._max_bytes = url, name, max_bytes
        self._bucket = Bucket(url)
        self._listed: BucketManifest | None = None
        make_folder(mirror, private=True)
        super().__init__(mirror, write_sidecars=False)
        self._reader: _FetchingReader = _FetchingReader(
            self._bucket, name, mirror, max_bytes, self._is_listed
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location} {len(self)} rows>"

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self._url, "name": self._name, "mirror": self.folder,
                "max_bytes": self._max_bytes}  # fmt: skip

    @property
    def bucket(self) -> Bucket:
        """Where its objects are."""
        return self._bucket

    @property
    def location(self) -> str:
        """The URL of the store."""
        return f"{self._url.rstrip('/')}/{store_prefix(self._name)}"

    @property
    def manifest(self) -> BucketManifest:
        """The list of shards after the newest change when it was listed."""
        assert self._listed is not None  # since it was opened
        return self._listed

    def is_gone(self, name: str) -> bool:
        """Return whether a shard is not listed any more, for example merged into a larger one."""
        return not self._is_listed(name)

    def _is_listed(self, name: str) -> bool:
        manifest = latest_manifest(self._bucket, self._name, self.folder, self._listed)
        return manifest is not None and name in manifest.shards

    def _list_shards(self) -> bool:
        manifest = latest_manifest(self._bucket, self._name, self.folder, self._listed)
        if manifest is None:
            raise UnknownStore(f"{self._url} has no store {self._name}.", path=self._url)
        if self._listed is None:
            with contextlib.suppress(StoreWriteError):  # as where the disk is read-only by now
                manifest.write(self.folder)  # for those who look at the local copies
        self._manifest = self._listed = manifest
        self.damaged: list[Damage] = []
        found: dict[str, ShardMetadata] = {}
        all_metadata = self._read_metadata(manifest.shards)
        for name, rows in sorted(manifest.shards.items()):
            metadata = all_metadata[name]
            if metadata is None:
                if not self._is_listed(name):
                    return False  # it was merged and removed after the list was read
                log.warning(
                    "%s: the metadata of the shard %s are missing or damaged, so that its rows "
                    "are not used. `featcache repair` saves them.", self._url, name,
                )  # fmt: skip
                self.damaged.append(Damage(name, rows, "its metadata are missing or damaged"))
            else:
                found[name] = metadata
        self._use(ShardTable(found))
        self.quarantined = {}
        return True

    def _read_metadata(self, names: Collection[str]) -> dict[str, ShardMetadata | None]:
        """Return the metadata of shards; None for one whose metadata are missing or damaged.

        Those that are not known are read several at a time: one after the other, a distant server
        would take a round trip for each.
        """
        known = self._metadata.loaded
        new = [name for name in names if name not in known]
        with ThreadPoolExecutor(_REQUESTS, "featcache-metadata") as pool:
            read = dict(zip(new, pool.map(self._sidecar, new), strict=True))
        return {name: known.get(name) or read[name] for name in names}

    def _sidecar(self, name: str) -> ShardMetadata | None:
        """Return the metadata of a shard, from the local copy of its sidecar if there is one."""
        known = _read_sidecar(self._bucket, self._name, self.folder / name)
        with contextlib.suppress(StoreMismatch, StoreCorrupt):
            if known is None:
                return None
            components = self._manifest.spec.components()
            check_metadata(known[0], name, components, self._manifest.width)
            return known[0]
        return None

    def size_on_disk(self) -> int:
        """Return the size of the rows of all shards in bytes."""
        return sum(self.spec.row_bytes(self.width) * len(h.views) for h in self._metadata.values())

    def append_packed(self, *arguments: Any) -> str:
        """Raise `StoreError`: `featcache push` adds rows."""
        raise self._read_only()

    def add_to_quarantine(self, reasons: Mapping[str, str]) -> None:
        """Raise `StoreError`: quarantine lists are not shared."""
        raise self._read_only()

    def write_manifest_under_lease(self, without: Collection[str] = ()) -> None:
        """Raise `StoreError`: `featcache push` writes manifests."""
        raise self._read_only()

    def _read_only(self) -> StoreError:
        return StoreError(
            f"{self._url} is only read here; `featcache push {self._url}` adds rows to it.",
            path=self._url,
        )


def mirror_folder(cache: Path, url: str, name: str) -> Path:
    """Return the folder in one's own cache for local copies of a store's files."""
    return cache / FOLDER / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16] / name


def find_bucket_store(url: str, name: str, cache: Path) -> BucketStore | None:
    """Open a store in an object store; return None if there is none of that name.

    Parameters
    ----------
    url : str
        The URL of the cache.
    name : str
        Name of the store.
    cache : Path
        One's own cache folder, for the local copies.
    """
    try:
        return BucketStore(url, name, mirror_folder(cache, url, name))
    except UnknownStore:
        return None


def bucket_stores(url: str, names: Sequence[str], cache: Path) -> list[Store]:
    """Open the stores in an object store whose names begin with one of some texts.

    Parameters
    ----------
    url : str
        The URL of the cache.
    names : sequence of str
        Without any, all stores.
    cache : Path
        One's own cache folder, for the local copies.

    Raises
    ------
    UnknownStore
        If there is none of a name.
    """
    found = [find_bucket_store(url, one, cache) for one in store_names(url, names)]
    return [store for store in found if store is not None]


def _read_sidecar(bucket: Bucket, name: str, shard: Path) -> tuple[ShardMetadata, Any, int] | None:
    """Return what a sidecar holds, from its local copy if there is one; see `read_metadata`."""
    known, sidecar = read_metadata(shard), metadata_path(shard)
    for _ in range(_READS):  # an answer may have been cut off
        if known is not None:
            break
        data = bucket.read(f"{store_prefix(name)}/{sidecar.name}", _MAX_SIDECAR_BYTES)
        if data is not None:
            make_folder(shard.parent, private=True)  # another process may have removed it
            write_atomic(sidecar, data, description="the metadata of a shard", durable=False)
            known = read_metadata(shard)
    return known


class _ShardRemoved(FileNotFoundError):
    """A shard that was merged into a larger one, and removed: the store must be listed again."""


class _FetchingReader(ShardReader):
    """Reader of shards that fetches those that are not there, within a limit of bytes."""

    def __init__(
        self,
        bucket: Bucket,
        name: str,
        folder: Path,
        max_bytes: int,
        is_listed: Callable[[str], bool],
    ) -> None:
        super().__init__(folder)
        self._bucket, self._name, self._is_listed = bucket, name, is_listed
        self._max_bytes = max_bytes

    def check(self, names: Sequence[str]) -> None:
        """Fetch and verify shards; see `ShardReader.check`."""
        for name in names:
            self._retry(name, lambda: None)

    def read_all(self, name: str, layout: Layout, count: int) -> Rows:
        """Return the rows of a whole shard; see `ShardReader.read_all`."""
        read = super().read_all
        return self._retry(name, lambda: read(name, layout, count))

    def gather(
        self,
        names: Sequence[str],
        all_metadata: Mapping[str, ShardMetadata],
        shard: NDArray[np.int64],
        row: NDArray[np.int64],
        width: int,
    ) -> NDArray[np.float32]:
        """Read rows shard by shard, so that no more than one need be here at a time."""
        result = np.empty((len(shard), width), np.float32)
        gather = super().gather
        for number in np.unique(shard):
            chosen = np.flatnonzero(shard == number)
            read = partial(gather, names, all_metadata, shard[chosen], row[chosen], width)
            result[chosen] = self._retry(names[int(number)], read)
        return result

    def _retry(self, name: str, read: Callable[[], T]) -> T:
        """Call a function that reads a shard; fetch it again if another process removed it."""
        for _ in range(_ATTEMPTS):
            try:
                self._ensure(name)
                return read()
            except _ShardRemoved:
                raise
            except FileNotFoundError:
                continue
        raise StoreError(
            f"The local copy of {name} in {self._folder} was removed by other processes during "
            f"each of {_ATTEMPTS} attempts to read it. Run the same command again.",
            path=self._folder,
        )

    def _ensure(self, name: str) -> None:
        """Verify the local copy of a shard; fetch it if there is none, or a damaged one."""
        path = self._folder / name
        if path.is_file() and not path.is_symlink():
            self._touch(name, path)
            with contextlib.suppress(StoreCorrupt):
                super().check([name])
                return
        self._fetch(name, path)
        super().check([name])

    def _touch(self, name: str, path: Path) -> None:
        """Set the time of last use of a copy, seldom: other processes verify it again then."""
        with contextlib.suppress(OSError):
            before = path.stat()
            if time.time() - before.st_mtime > _TOUCH_SECONDS:
                verified = self._verified.get(name) == file_state(before)
                os.utime(path)
                if verified:
                    self._verified[name] = file_state(path.stat())

    def _fetch(self, name: str, path: Path) -> None:
        known = _read_sidecar(self._bucket, self._name, path)
        if known is None:
            raise shard_error(path, "its metadata are missing")
        size = known[2]
        data = self._bucket.read(f"{store_prefix(self._name)}/{name}", size)
        if data is None and not self._is_listed(name):
            raise _ShardRemoved(name)
        if data is None:
            raise StoreCorrupt(
                f"{self._bucket.url} lists the shard {name}, but has no such object.",
                path=path, reason="it is missing",
            )  # fmt: skip
        digest = hashlib.sha256(data).hexdigest()
        if f"-{digest}.h5" not in name:
            raise StoreCorrupt(
                f"The shard {name} in {self._bucket.url} cannot be used: its SHA-256 is not the "
                "one in its name.",
                path=path, reason="its SHA-256 is not the one in its name",
            )  # fmt: skip
        self._make_room(size)
        self._write(path, data)

    def _write(self, path: Path, data: bytes) -> None:
        """Write a local copy whose rows are those that the sidecar lists, in this order."""
        unfinished = temporary_path(self._folder)
        try:
            write_atomic(unfinished, data, description="a shard", durable=False)
            found = inspect_shard(unfinished)
            rows = super().read_all(unfinished.name, found.layout, len(found.views))
            if metadata_differs(path, len(data), found, rows):
                raise StoreCorrupt(
                    f"The metadata of the shard {path.name} in {self._bucket.url} are those of "
                    "other rows.",
                    path=path, reason="its metadata are those of other rows",
                )  # fmt: skip
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    def keep(self, name: str, data: bytes) -> None:
        """Write the local copy of a shard that this process has made, and its sidecar before."""
        self._make_room(len(data))
        write_atomic(self._folder / name, data, description="a shard", durable=False)

    def _make_room(self, size: int) -> None:
        """Remove the copies that were read longest ago, of any store, until a new one fits."""
        folders = folders_beside(self._folder)
        copies = [copy for folder in folders for copy in copies_in(folder)]
        too_much = size + sum(copy.size for copy in copies) - self._max_bytes
        removed = oldest_copies(copies, too_much)
        remove_copies(removed)
        for copy in removed:
            self._verified.pop(copy.path.name, None)
