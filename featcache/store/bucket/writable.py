"""A store in an object store to which rows are added."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..._io.wording import format_count
from ...errors import StoreError, StoreWriteError
from ...hdf5.row_dtype import Rows
from ...hdf5.shard_file import encode_shard
from ...hdf5.shard_metadata import ShardMetadata, write_metadata
from ..row_index import IdArray
from .failures import add_failures, read_failures
from .manifests import change_shards
from .shard_writer import ShardWriter
from .store import MAX_LOCAL_BYTES, BucketStore

Listing = Callable[[Mapping[str, int]], None]


class WritableBucketStore(BucketStore):
    """A store in an object store to which rows are appended, and the images that fail.

    `append` creates the objects of a shard, and then a change of the list of shards: once it
    returns, the rows survive anything. A copy is kept here, so that they are not fetched when
    they are read.

    Parameters
    ----------
    url, name, mirror, max_bytes, writer
        As for `BucketStore`. The names of the shards that are appended begin with `writer`.

    Attributes
    ----------
    list_shards : callable
        Called with the numbers of rows of new shards by name, whose objects were created. Default:
        list them. A worker of a cluster tells the client instead, which lists those of all.
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
        super().__init__(url, name, mirror, max_bytes=max_bytes, writer=writer)
        self._shards = ShardWriter(self._bucket, name)
        self._lists = 0
        self._committed = 0
        self.list_shards: Listing = self.list_here

    def list_here(self, shards: Mapping[str, int], *, since: float | None = None) -> None:
        """Add shards to the list of the store: from now on, readers find their rows.

        Parameters
        ----------
        shards : mapping of str to int
            Numbers of rows by name.
        since : float, optional
            See `change_shards`. Default: that of `manifest`, which is right if the shards were
            created after it was read.
        """
        known = self.manifest
        since = known.collected if since is None else since
        self._listed = change_shards(
            self._bucket, self._name, self.folder, known, add=shards, known=known, since=since
        )

    def append_packed(
        self, rows: Rows, ids: IdArray, views: NDArray[Any], provenance: Mapping[str, str]
    ) -> str:
        """Commit rows of the store's dtype whose ids are already (n, 32) bytes; see `append`.

        Raises
        ------
        StoreWriteError
            If the server cannot be reached, or refuses.
        """
        data, metadata = encode_shard(rows, ids, views, self.spec.components(), provenance)
        try:
            name = self._shards.create(data, rows, metadata, self.writer)
            self.list_shards({name: len(rows)})
        except StoreError as error:
            raise self._write_error(len(rows), error) from error
        self._committed += len(rows)
        self._keep(name, data, rows, metadata)
        return name

    def _write_error(self, rows: int, error: StoreError) -> StoreError:
        """Return an error that says what is committed, if the server is at fault."""
        if type(error) not in (StoreError, StoreWriteError):
            return error
        return StoreWriteError(
            f"{format_count(rows, 'row')} could not be committed: {error.message} This process has "
            f"committed {format_count(self._committed, 'row')} before, which stay; the same "
            "command computes the others.",
            path=self.location,
        )

    def _keep(self, name: str, data: bytes, rows: Rows, metadata: ShardMetadata) -> None:
        """Write the local copy of a shard; without it, the shard is fetched when it is read."""
        try:
            write_metadata(self.folder / name, len(data), metadata, rows)
            self._reader.keep(name, data)
        except (StoreError, OSError):  # the disk is full, for example
            return

    def _list_shards(self) -> bool:
        complete = super()._list_shards()
        self.quarantined = read_failures(self._bucket, self._name, self.folder)
        return complete

    def add_to_quarantine(self, reasons: Mapping[str, str]) -> None:
        """Commit a quarantine list of image id -> reason, for images that cannot be decoded."""
        if reasons:
            add_failures(self._bucket, self._name, reasons)
            self.quarantined.update(reasons)

    def write_manifest(self) -> None:
        """Do nothing: shards are listed when they are appended."""

    def write_manifest_under_lease(self, without: Collection[str] = ()) -> None:
        """Do nothing: shards are removed from the list by `change_shards`."""
