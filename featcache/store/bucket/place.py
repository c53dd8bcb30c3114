"""Where a store lies in an object store; see `featcache.store.place.Place`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

from ..._io.atomic import make_folder
from ..._io.logs import get_logger
from ...backbones.spec import BackboneSpec
from ...errors import StoreError, StoreWriteError, UnknownStore
from ..manifest import Manifest
from ..store import Store
from .compaction import compact_bucket
from .leases import claims, claims_folder, mark_bucket_in_use, wait_for_lease
from .lister import ShardLister
from .manifests import change_shards, latest_manifest, store_prefix
from .objects import Bucket
from .store import mirror_folder
from .writable import Listing, WritableBucketStore

log = get_logger(__name__)

# A commit is some requests, and each makes an object that stays until shards are merged.
COMMIT_SECONDS = 10.0


@dataclass(frozen=True)
class BucketPlace:
    """A store in an object store; see `Place`.

    Attributes
    ----------
    url : str
        The URL of the cache.
    name : str
        Name of the store.
    mirror : Path
        Folder for the local copies, of the store's name.
    writer : str
        As for `place_of`.
    """

    url: str
    name: str
    mirror: Path
    writer: str = ""
    commit_seconds: float | None = COMMIT_SECONDS

    @classmethod
    def of(cls, cache: Path, url: str, name: str, writer: str = "") -> BucketPlace:
        """Return the place of a store whose local copies are in a cache folder."""
        Bucket(url)  # refuses it before anything is read
        return cls(url, name, mirror_folder(cache, url, name), writer)

    @property
    def location(self) -> str:
        """The URL of the store."""
        return f"{self.url.rstrip('/')}/{store_prefix(self.name)}"

    def open(
        self, spec: BackboneSpec, width: int, metadata: Mapping[str, str]
    ) -> WritableBucketStore | None:
        """Open the store; return None if there is none."""
        return self._open()

    def _open(self) -> WritableBucketStore | None:
        try:
            return self.open_existing()
        except UnknownStore:
            return None

    def open_existing(self) -> WritableBucketStore:
        """Open the store; raise `UnknownStore` if there is none."""
        return WritableBucketStore(self.url, self.name, self.mirror, writer=self.writer)

    def create(
        self, spec: BackboneSpec, width: int, metadata: Mapping[str, str]
    ) -> WritableBucketStore:
        """Open the store for appending; create it if it does not exist."""
        make_folder(self.mirror, private=True)
        first = Manifest(spec, width, metadata=dict(metadata))
        change_shards(Bucket(self.url), self.name, self.mirror, first)
        return self.open_existing()

    def refresh(self, store: Store) -> None:
        """List the shards of a store of this place again."""
        assert isinstance(store, WritableBucketStore)
        store.writer = self.writer
        store.refresh()

    def mark(self, marks: ExitStack, *, append: bool) -> None:
        """Mark the store as in use until `marks` is closed."""
        bucket = Bucket(self.url)
        if marks.enter_context(mark_bucket_in_use(bucket, self.name)):
            wait_for_lease(bucket, self.name)

    def mark_used(self) -> None:
        """Do nothing: a mark leaves the time of last use when it ends."""

    def complete(self, store: Store) -> None:
        """Merge small shards, once rows were committed; they are listed when they are appended."""
        assert isinstance(store, WritableBucketStore)
        store.refresh()
        compact_bucket(store)
        store.close()

    def check_space(self, size: int, what: str, advice: str) -> None:
        """Do nothing: an object store does not say how much space it has."""

    def stores(self) -> Sequence[tuple[PurePath, Manifest]]:
        """Return the stores of the same cache whose names begin with the same backbone."""
        bucket, found = Bucket(self.url), []
        backbone = self.name.rpartition("-")[0]
        for name in bucket.folders("stores"):
            if name.rpartition("-")[0] != backbone:
                continue
            try:
                manifest = latest_manifest(bucket, name, self.mirror.with_name(name))
            except StoreError as error:
                log.warning("%s", error)
                continue
            if manifest is not None:
                found.append((PurePath(name), manifest))
        return found

    @contextmanager
    def announced(self) -> Iterator[str]:
        """Context manager with the name of a claim that other processes can look for."""
        with mark_bucket_in_use(Bucket(self.url), self.name) as mark:
            if mark.refused is not None:
                raise StoreWriteError(
                    f"{mark.refused.message} Workers look for a mark of this client there.",
                    path=self.location,
                ) from mark.refused
            yield mark.kind

    def list_through(self, store: Store, listing: Listing) -> None:
        """Let another process list the shards that this one appends to a store of this place."""
        assert isinstance(store, WritableBucketStore)
        store.list_shards = listing

    def lister(self) -> ShardLister:
        """Context manager with a function that lists the shards that other processes append."""
        return ShardLister(self._open)

    def sees(self, mark: str) -> bool:
        """Return whether the claim of another process is found here."""
        return bool(claims(Bucket(self.url).states(claims_folder(self.name)), mark))
