"""A store in an object store, read through local copies of its shards."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..._io.atomic import make_folder
from ..._io.logs import get_logger
from ...errors import StoreCorrupt, StoreError, StoreMismatch, StoreWriteError, UnknownStore
from ...hdf5.shard_metadata import ShardMetadata, check_metadata
from ...hdf5.shard_name import Damage
from ..shard_table import ShardTable
from ..store import Store
from .fetching import FetchingReader, read_sidecar
from .local_copies import FOLDER
from .manifests import BucketManifest, latest_manifest, store_prefix
from .objects import Bucket
from .store_names import store_names

# Of the shards of all stores in object stores; those that were read longest ago go first.
MAX_LOCAL_BYTES = 10 * 2**30
MAX_LISTED = 1024  # by a worker of a cluster, which needs no more than its own shards
_REQUESTS = 16  # at a time

log = get_logger(__name__)


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
    writer : str
        Beginning of the names of shards, or "". If there are more than `MAX_LISTED` shards, those
        alone are listed.

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
        self,
        url: str,
        name: str,
        mirror: Path,
        *,
        max_bytes: int = MAX_LOCAL_BYTES,
        writer: str = "",
    ) -> None:
        self._url, self._name, self._max_bytes = url, name, max_bytes
        self.writer = writer
        self._bucket = Bucket(url)
        self._listed: BucketManifest | None = None
        make_folder(mirror, private=True)
        super().__init__(mirror, write_sidecars=False)
        self._reader: FetchingReader = FetchingReader(
            self._bucket, name, mirror, max_bytes, self._is_listed
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location} {len(self)} rows>"

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self._url, "name": self._name, "mirror": self.folder,
                "max_bytes": self._max_bytes, "writer": self.writer}  # fmt: skip

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
        shards = self._relevant(manifest.shards)
        all_metadata = self._read_metadata(shards)
        for name, rows in sorted(shards.items()):
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

    def _relevant(self, shards: Mapping[str, int]) -> Mapping[str, int]:
        """Return the shards to list.

        Each worker of a cluster would read the metadata of the shards of all others.
        """
        if not self.writer or len(shards) <= MAX_LISTED:
            return shards
        return {name: rows for name, rows in shards.items() if name.startswith(self.writer)}

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
        known = read_sidecar(self._bucket, self._name, self.folder / name)
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
