"""Reading of a store: listing of its shards, questions on its ids, and its rows."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .._io.disk_space import folder_bytes
from .._io.system_errors import system_errors
from .._io.wording import format_count
from ..backbones.spec import BackboneSpec
from ..errors import MissingRows, StoreCorrupt, StoreError
from ..hdf5.row_dtype import Rows, row_dtype
from ..hdf5.shard_metadata import METADATA_SUFFIX, ShardMetadata
from ..hdf5.shard_name import Damage, rows_in_name
from . import quarantine, recovery
from .index_build import build_before_listing
from .index_file import IndexDamaged
from .listing import FolderIndex, find_all, make_index, missing_shards, unchanged_shards
from .manifest import NAME as MANIFEST_NAME
from .manifest import parse_manifest
from .recovery import MAX_LISTINGS
from .row_index import IdArray, pack_ids, unpack_ids
from .shard_lookup import ShardLookup
from .shard_reader import ShardReader
from .shard_table import ShardTable

T = TypeVar("T")


class ReadableStore:
    """The part of a `Store` that reads; see there."""

    def __init__(self, folder: str | os.PathLike[str], *, write_sidecars: bool = True) -> None:
        self.folder = Path(folder)
        self._write_sidecars = write_sidecars
        self._may_build = write_sidecars
        self._metadata = ShardTable({})
        self._manifest_bytes: bytes | None = None
        self.damaged: list[Damage] = []
        self._folder_index = FolderIndex(self.folder, removable=write_sidecars)
        self._reader = ShardReader(self.folder)
        self._lookup = ShardLookup(self.folder, self._reader, write_sidecars=write_sidecars)
        self._lock = threading.RLock()
        self.refresh()

    @property
    def spec(self) -> BackboneSpec:
        """The spec of all rows."""
        return self._manifest.spec

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self._manifest.width

    @property
    def location(self) -> Path | str:
        """The folder; the URL of a store in an object store."""
        return self.folder

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        """The dtype in which rows are stored; they are read as float32."""
        return row_dtype(self.spec.components())

    @property
    def metadata(self) -> Mapping[str, str]:
        """Human-readable description: backbone, origin of the weights, preprocessing."""
        return self._manifest.metadata

    @property
    def shards(self) -> ShardTable:
        """The valid shards, with their metadata."""
        return self._metadata

    @property
    def shard_names(self) -> list[str]:
        """The names of the valid shards, sorted."""
        return list(self._metadata)

    def __len__(self) -> int:
        """Return the number of distinct rows; of an index file, what its head says."""
        return self._ask(lambda: self._index.distinct())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location} {len(self)} rows x {self.width}>"

    def __getstate__(self) -> dict[str, Any]:
        # Open files and locks cannot be pickled.
        return {"folder": self.folder, "write_sidecars": self._write_sidecars}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def size_on_disk(self) -> int:
        """Return the size of all files of the store in bytes."""
        return folder_bytes(self.folder)

    def seconds_per_image(self) -> float:
        """Return the mean wall time in seconds that computing a row took, 0.0 without rows."""
        rows = self._metadata.rows()
        return self._metadata.seconds() / rows if rows else 0.0

    def refresh(self) -> None:
        """Read the manifest and list the shards again, with commits of other processes.

        Raises
        ------
        StoreCorrupt, StoreFormatError
            If the manifest is damaged, or of another format version.
        StoreError
            If the folder cannot be listed, or shards were merged during every attempt.
        """
        with self._lock:
            for _ in range(MAX_LISTINGS):
                if self._list_shards():
                    return
        raise self._busy_error()

    def _list_shards(self) -> bool:
        """List the shards; return False if some were removed during the listing.

        A merged shard may be missing from the listing, and the shard that replaced it may have
        appeared too late. The manifest is replaced before a shard is removed, so that an
        unchanged manifest proves that the listing is complete.
        """
        with system_errors(self.folder):
            before = recovery.manifest_of_store(self.folder)
            if before != self._manifest_bytes:
                self._manifest = parse_manifest(self.folder / MANIFEST_NAME, before)
                self._manifest_bytes = before
            present = set(os.listdir(self.folder))
            file = self._folder_index.current(self._manifest)
            indexed = {} if file is None else unchanged_shards(file, self.folder, present)
            # Most files of a large store are shards of the index, and sidecars.
            others = present.difference(indexed)
            others = {name for name in others if not name.endswith(METADATA_SUFFIX)}
            names = sorted(name for name in others if rows_in_name(name) is not None)
            if self._build_index(names):
                return False
            found, damaged = find_all(names, self._metadata.loaded, self._lookup, self._manifest)
            self.damaged = [*missing_shards(self._manifest, present), *damaged]
            self._use(ShardTable(found, file, indexed, self._find_metadata))
            self.quarantined = quarantine.read(self.folder, others)
            known = {*found, *(damage.name for damage in self.damaged)}
            after = recovery.manifest_of_store(self.folder)
            return known.issuperset(names) and before == after

    def _use(self, table: ShardTable) -> None:
        """Use these shards from now on."""
        self._reader.keep_only(table)
        self._metadata = table
        self._index = make_index(table)

    def _build_index(self, names: list[str]) -> bool:
        """Write a lost index file if the ids may not fit in memory; return whether it was."""
        if not self._may_build:
            return False
        self._may_build = False  # once: else a full disk would be tried in each listing
        return build_before_listing(self.folder, self._manifest, names, self._find_metadata)

    def _find_metadata(self, name: str) -> ShardMetadata | Damage | None:
        return self._lookup.find(name, self._manifest)

    def _ask(self, question: Callable[[], T]) -> T:
        """Answer a question on the shards; list them again if some were merged.

        Without the index file if it contradicts a shard. No lock, as other threads may read rows.
        """
        for _ in range(MAX_LISTINGS):
            try:
                with system_errors(self.folder), contextlib.suppress(FileNotFoundError):
                    return question()
            except IndexDamaged as error:
                self.drop_index(error)
            self.refresh()
        raise self._busy_error()

    def drop_index(self, error: IndexDamaged) -> None:
        """Ignore an index file that contradicts the shards, and remove it."""
        self._folder_index.drop(error)

    def _busy_error(self) -> StoreError:
        return StoreError(
            f"{self.folder} could not be listed: other processes merged its shards during each of "
            f"{MAX_LISTINGS} attempts. Run the same command again.",
            path=self.folder,
        )

    def contains(self, ids: Sequence[str], *, confirm: bool = False) -> NDArray[np.bool_]:
        """Return whether the row of each image id is stored.

        Parameters
        ----------
        ids : sequence of str
        confirm : bool
            Compare what the index file says with the sidecars of the shards, and drop it if it
            contradicts them. Needed wherever a row is not computed or copied since it is stored:
            a wrong index file would leave it out. Reads the sidecar of each shard that has one of
            the rows.

        Returns
        -------
        ndarray (n,), bool
        """
        packed = pack_ids(ids)
        if confirm:
            return self._ask(lambda: self._find_confirmed(packed))
        return self._ask(lambda: self._index.contains(packed))

    def _find_confirmed(self, ids: IdArray) -> NDArray[np.bool_]:
        with self._lock:  # else another thread could list other shards between the two steps
            shard, row = self._index.find(ids)
            there = shard >= 0
            self._metadata.check(self._metadata.names, shard[there], row[there], ids[there])
        return there

    def ids(self) -> list[str]:
        """Return the distinct image ids of all rows, in the order of the shards."""
        everything = self._ask(lambda: self._metadata.all_ids())
        return list(dict.fromkeys(unpack_ids(np.concatenate(everything)))) if everything else []

    def read(self, ids: Sequence[str] | IdArray) -> NDArray[np.float32]:
        """Read the embeddings of given images.

        Parameters
        ----------
        ids : sequence of str, or ndarray (n, 32) of uint8
            Image ids; may contain duplicates.

        Returns
        -------
        ndarray (n, width), float32
            In the order of `ids`; converted without loss if they are stored as float16.

        Raises
        ------
        MissingRows
            If an id is not stored.
        StoreCorrupt
            If a shard's bytes are not those that were committed. No row is returned.
        """
        packed = ids if isinstance(ids, np.ndarray) else pack_ids(ids)
        with self._lock:
            for look in range(MAX_LISTINGS):
                try:
                    shard, row = self._index.find(packed)
                    if look and (shard < 0).any():
                        break
                    # A missing shard was merged into a larger one by another process.
                    with system_errors(self.folder), contextlib.suppress(FileNotFoundError):
                        if (shard >= 0).all():
                            return self._gather(packed, shard, row)
                except IndexDamaged as error:
                    self.drop_index(error)
                self.refresh()
            missing = unpack_ids(packed[shard < 0])
        raise MissingRows(
            f"Not stored in {self.location}: {len(missing)} of "
            f"{format_count(len(packed), 'image')} (the first is "
            f"{missing[0][:16] if missing else '?'}...). Extract them first.",
            path=self.folder,
            ids=missing,
        )

    def _gather(
        self, ids: IdArray, shard: NDArray[np.int64], row: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        names = self._metadata.names
        all_metadata = self._metadata.for_reading(names, shard, row, ids)
        return self._reader.gather(names, all_metadata, shard, row, self.width)

    def read_shard(self, name: str) -> tuple[Rows, ShardMetadata] | None:
        """Read a whole shard; None if it was removed or is damaged.

        Parameters
        ----------
        name : str
            One of `shard_names`.

        Returns
        -------
        (ndarray (n, width) as it is stored, ShardMetadata) or None
        """
        with contextlib.suppress(StoreCorrupt, FileNotFoundError):
            metadata = self._metadata.read(name)
            return self._reader.read_shard(name, metadata), metadata
        return None

    def ids_in(self, name: str) -> IdArray:
        """Return the image ids of a shard, one of `shard_names`, as an array (n, 32).

        Raises
        ------
        FileNotFoundError
            If it was removed, for example merged into a larger one.
        StoreCorrupt
            If it is damaged.
        """
        return self._metadata.read(name).image_ids

    def is_gone(self, name: str) -> bool:
        """Return whether the file of a shard was removed, for example merged into a larger one."""
        return not os.path.lexists(self.folder / name)
