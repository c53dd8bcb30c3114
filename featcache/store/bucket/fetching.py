"""Local copies of the files of a store in an object store, fetched when they are read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..._io.atomic import make_folder, temporary_path, write_atomic
from ..._io.file_state import file_state
from ...errors import StoreCorrupt, StoreError
from ...hdf5.row_dtype import Rows
from ...hdf5.sandbox import inspect_shard
from ...hdf5.shard_metadata import (
    ShardMetadata,
    largest_shard,
    largest_sidecar,
    metadata_differs,
    metadata_path,
    read_metadata,
    same_rows,
)
from ...hdf5.shard_name import shard_error
from ..shard_reader import ShardReader
from .local_copies import copies_in, folders_beside, oldest_copies, remove_copies
from .manifests import store_prefix
from .objects import Bucket, TooLarge

_TOUCH_SECONDS = 60.0
_ATTEMPTS = 50
_READS = 3

T = TypeVar("T")


def read_sidecar(bucket: Bucket, name: str, shard: Path) -> tuple[ShardMetadata, Any, int] | None:
    """Return what a sidecar holds, from its local copy if there is one; see `read_metadata`."""
    known, sidecar = read_metadata(shard), metadata_path(shard)
    for _ in range(_READS):  # an answer may have been cut off
        if known is not None:
            break
        try:
            data = bucket.read(f"{store_prefix(name)}/{sidecar.name}", largest_sidecar(shard.name))
        except TooLarge:
            break
        if data is not None:
            make_folder(shard.parent, private=True)  # another process may have removed it
            # A shard is compared with its sidecar when it is fetched, and so with this one.
            with contextlib.suppress(OSError):
                shard.unlink()
            write_atomic(sidecar, data, description="the metadata of a shard", durable=False)
            known = read_metadata(shard)
    return known


class _ShardRemoved(FileNotFoundError):
    """A shard that was merged into a larger one, and removed: the store must be listed again."""


class FetchingReader(ShardReader):
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
        self._compared: dict[str, ShardMetadata] = {}

    def read_shard(self, name: str, metadata: ShardMetadata) -> Rows:
        """Return the rows of a whole shard; see `ShardReader.read_shard`."""
        read = super().read_shard
        return self._retry(name, metadata, lambda: read(name, metadata))

    def keep_only(self, names: Mapping[str, object]) -> None:
        """Discard what is known of all shards except these."""
        super().keep_only(names)
        self._compared = {name: found for name, found in self._compared.items() if name in names}

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
            name = names[int(number)]
            result[chosen] = self._retry(name, all_metadata[name], read)
        return result

    def _retry(self, name: str, metadata: ShardMetadata, read: Callable[[], T]) -> T:
        """Call a function that reads a shard; fetch it again if another process removed it."""
        for _ in range(_ATTEMPTS):
            try:
                self._ensure(name, metadata)
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

    def _ensure(self, name: str, metadata: ShardMetadata) -> None:
        """Verify the local copy of a shard; fetch it if there is none, or a damaged one.

        Sidecar and copy may have been replaced since the store was opened: the metadata with which
        rows are read must be those of the shard that is there now.
        """
        path = self._folder / name
        if path.is_file() and not path.is_symlink():
            self._touch(name, path)
            with contextlib.suppress(StoreCorrupt):
                super().check([name])
                if self._is_described_by(name, metadata):
                    return
        self._fetch(name, path, metadata)
        super().check([name])

    def _is_described_by(self, name: str, metadata: ShardMetadata) -> bool:
        """Return whether the sidecar of the local copy, compared when fetched, says the same."""
        if self._compared.get(name) is not metadata:
            known = read_metadata(self._folder / name)
            if known is None or not same_rows(known[0], metadata):
                return False
            self._compared[name] = metadata
        return True

    def _touch(self, name: str, path: Path) -> None:
        """Set the time of last use of a copy, seldom: other processes verify it again then."""
        with contextlib.suppress(OSError):
            before = path.stat()
            if time.time() - before.st_mtime > _TOUCH_SECONDS:
                verified = self._verified.get(name) == file_state(before)
                os.utime(path)
                if verified:
                    self._verified[name] = file_state(path.stat())

    def _fetch(self, name: str, path: Path, metadata: ShardMetadata) -> None:
        known = read_sidecar(self._bucket, self._name, path)
        if known is None:
            raise shard_error(path, "its metadata are missing")
        layout, rows = known[0].layout, len(known[0].views)
        size = min(known[2], largest_shard(rows, layout.dtype.itemsize * layout.width))
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
        self._write(path, data, metadata)

    def _write(self, path: Path, data: bytes, metadata: ShardMetadata) -> None:
        """Write a local copy whose rows are those that the metadata list, in this order.

        Those of the sidecar that is there, and those with which rows are read.
        """
        unfinished = temporary_path(self._folder)
        try:
            write_atomic(unfinished, data, description="a shard", durable=False)
            found = inspect_shard(unfinished)
            rows = super().read_all(unfinished.name, found.layout, len(found.views))
            if metadata_differs(path, len(data), found, rows) or not same_rows(found, metadata):
                raise StoreCorrupt(
                    f"The metadata of the shard {path.name} in {self._bucket.url} are those of "
                    "other rows. Run the same command again, in case they were replaced since the "
                    "store was opened; if it does not pass, `featcache repair`.",
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
