"""Add the rows of a store to an object store: only those that it lacks."""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._io.progress import progress_bar
from ...errors import StoreWriteError
from ...hdf5.row_dtype import Rows
from ...hdf5.shard_file import encode_shard
from ...hdf5.shard_metadata import ShardMetadata
from ..manifest import Manifest
from ..row_index import IdArray, unpack_ids
from ..store import Store
from ..transfer import Copied, shards_of
from .manifests import change_shards, check_same
from .objects import Bucket
from .shard_writer import ShardWriter
from .store import BucketStore, find_bucket_store, mirror_folder

_SHARDS_AT_A_TIME, _BYTES_AT_A_TIME = 8, 2**27
_SHARDS_PER_CHANGE = 64  # each change of the list is an object that stays


def push_rows(source: Store, url: str, cache: Path, *, progress: bool | None = None) -> Copied:
    """Add the rows of a store to the store of the same key in an object store.

    Objects are created, and never replaced. Rows are found by readers once the manifest lists
    their shard; after an interruption the same call adds the rest.

    Parameters
    ----------
    source : Store
    url : str
        The URL of the other cache, ``s3://bucket/prefix``.
    cache : Path
        One's own cache folder, for local copies of its files.
    progress : bool, optional
        Show a progress bar. Default: on a terminal and in a notebook.

    Returns
    -------
    Copied

    Raises
    ------
    InvalidRequest, MissingExtra
        If the URL is not accepted, or the library for it is not installed.
    StoreMismatch
        If the store there has another spec or width.
    StoreError, StoreWriteError
        If the server cannot be reached, or refuses.
    """
    bucket, name = Bucket(url), source.spec.folder
    mirror = mirror_folder(cache, url, name)
    there = find_bucket_store(url, name, cache)
    ids = source.ids()
    missing = np.ones(len(ids), bool)
    if there is not None:
        check_same(there.manifest, source.spec, source.width, bucket)
        missing = ~there.contains(ids, confirm=True)
    pushed = _Push(source, bucket, mirror, {i for i, new in zip(ids, missing, strict=True) if new})
    damaged = list[str]()
    with progress_bar(len(pushed.missing), name, "rows", progress) as bar, pushed:
        for shard, found in shards_of(source, pushed.lacks):
            if found is None:
                damaged.append(shard)
            else:
                bar.update(pushed.add(shard, *found))
    present = len(ids) - int(missing.sum())
    return Copied(BucketStore(url, name, mirror), pushed.rows, present, tuple(damaged))


class _Push:
    """The shards that are being created, and those that are not in a manifest yet.

    A context manager, which lists what was created also on an error or Ctrl-C. Several objects are
    created at a time: one after the other, each would take a round trip to a distant server.

    Attributes
    ----------
    missing : set of str
        Ids of the rows that the object store lacks.
    rows : int
        Number of rows in manifests that this object wrote.
    """

    def __init__(self, source: Store, bucket: Bucket, mirror: Path, missing: set[str]) -> None:
        self._source, self._bucket, self._mirror = source, bucket, mirror
        self._created: dict[str, int] = {}
        self._creating = deque[tuple[Future[str], int, int]]()
        self._pool = ThreadPoolExecutor(_SHARDS_AT_A_TIME, "featcache-push")
        self._writer = ShardWriter(bucket, source.spec.folder)
        self._first = Manifest(source.spec, source.width, metadata=dict(source.metadata))
        self.missing = missing
        self.rows = 0

    def __enter__(self) -> _Push:
        return self

    def __exit__(self, *details: object) -> None:
        try:
            self.commit()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def lacks(self, ids: IdArray) -> bool:
        """Return whether the object store lacks one of some rows."""
        return not self.missing.isdisjoint(unpack_ids(ids))

    def add(self, name: str, rows: Rows, metadata: ShardMetadata) -> int:
        """Create the objects of a shard's missing rows; return their number."""
        ids = unpack_ids(metadata.image_ids)
        new = np.array([i in self.missing for i in ids], bool)
        count = int(new.sum())
        self.missing.difference_update(ids)
        data = self._file(name) if count == len(ids) else b""
        if not data:
            data, rows, metadata = self._part(rows, metadata, new)
        self._make_room(len(data))
        create = self._pool.submit(self._writer.create, data, rows, metadata)
        self._creating.append((create, count, len(data)))
        if len(self._created) >= _SHARDS_PER_CHANGE:
            self.commit()
        return count

    def _make_room(self, size: int) -> None:
        """Wait until there is memory for a shard: those that are being created take some."""
        while self._creating and (
            len(self._creating) >= _SHARDS_AT_A_TIME
            or size + sum(bytes_ for _, _, bytes_ in self._creating) > _BYTES_AT_A_TIME
        ):
            self._wait_for_one()

    def _wait_for_one(self) -> None:
        create, count, _ = self._creating.popleft()
        self._created[create.result()] = count

    def commit(self) -> None:
        """List the created shards in a manifest; after an error, those that were created."""
        try:
            while self._creating:
                self._wait_for_one()
        finally:
            self._list_created()

    def _list_created(self) -> None:
        if self._created:
            folder = self._source.spec.folder
            change_shards(self._bucket, folder, self._mirror, self._first, add=self._created)
            self.rows += sum(self._created.values())
            self._created = {}

    def _part(
        self, rows: Rows, metadata: ShardMetadata, new: NDArray[np.bool_]
    ) -> tuple[bytes, Rows, ShardMetadata]:
        """Return a shard of some rows."""
        seconds = metadata.seconds * float(new.mean())
        provenance: dict[str, Any] = {"copied": "1", "seconds": f"{seconds:.6f}"}
        data, found = encode_shard(
            rows[new], metadata.image_ids[new], metadata.views[new], metadata.components, provenance
        )
        return data, rows[new], found

    def _file(self, name: str) -> bytes:
        """Return the bytes of a shard; empty if it was merged into a larger one by now."""
        data = b""
        with contextlib.suppress(FileNotFoundError):
            data = (self._source.folder / name).read_bytes()
        if data and hashlib.sha256(data).hexdigest() not in name:
            raise StoreWriteError(
                f"{self._source.folder / name} was changed while it was read. Run `featcache "
                f"verify {self._source.folder.name}`.",
                path=self._source.folder,
            )
        return data
