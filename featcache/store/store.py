"""A store: a folder of immutable shards with the embeddings of one spec.

Rows are committed by the rename of their shard; committed bytes are never rewritten. Any number
of processes may append to a store and read it at the same time.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._io.atomic import make_folder, remove_stale, write_atomic
from .._io.system_errors import system_errors
from .._io.wording import format_count
from ..backbones.spec import BackboneSpec
from ..errors import StoreMismatch
from ..hdf5.row_dtype import Rows
from ..hdf5.shard_file import encode_shard
from ..hdf5.shard_metadata import write_metadata
from ..hdf5.shard_name import make_shard_name, rows_in_name
from . import quarantine, recovery
from .lease import lease
from .manifest import mismatch_error
from .reading import ReadableStore
from .recovery import MAX_LISTINGS
from .row_index import IdArray, pack_ids
from .stored_dtype import to_stored_dtype

_LEASE_WAIT = 10.0


class Store(ReadableStore):
    """The embeddings of one spec, on disk.

    Parameters
    ----------
    folder : path-like
        The folder of an existing store.
    write_sidecars : bool
        Whether missing and damaged sidecars are written again, so that the next start is faster.

    Attributes
    ----------
    folder : Path
    spec : BackboneSpec
    width : int
        Length of an embedding.
    damaged : list of Damage
        Shards that are skipped because they are damaged or missing; their rows count as not
        stored.
    quarantined : dict of str to str
        Image id -> reason, for images that cannot be decoded.

    Raises
    ------
    StoreError
        If the folder is not a store or cannot be listed.
    StoreCorrupt, StoreFormatError
        If the manifest is damaged, or of another format version.
    """

    def __init__(self, folder: str | os.PathLike[str], *, write_sidecars: bool = True) -> None:
        self._worker = uuid.uuid4().hex[:8]
        self._sequence = 0
        super().__init__(folder, write_sidecars=write_sidecars)

    @classmethod
    def create(
        cls, folder: Path, spec: BackboneSpec, width: int, metadata: Mapping[str, str] | None = None
    ) -> Store:
        """Open the store of a spec for appending; create it if it does not exist.

        Parameters
        ----------
        folder : Path
        spec : BackboneSpec
        width : int
            Length of an embedding.
        metadata : mapping of str to str, optional
            Human-readable description for a new manifest.

        Returns
        -------
        Store

        Raises
        ------
        StoreMismatch
            If the folder contains rows of another spec or width.
        StoreWriteError
            If it cannot be created.
        """
        with system_errors(folder):
            make_folder(folder)
            remove_stale(folder)
            recovery.write_first_manifest(folder, spec, width, metadata or {})
        store = cls(folder)
        if store.spec != spec or store.width != width:
            raise mismatch_error(store.folder, store._manifest, spec, width)
        return store

    def append(
        self,
        embeddings: NDArray[np.float32],
        ids: Sequence[str],
        provenance: Mapping[str, str] | None = None,
    ) -> str:
        """Commit rows as one shard.

        Parameters
        ----------
        embeddings : ndarray (n, width)
            Finite; stored as `dtype`.
        ids : sequence of str
            Image id of each row.
        provenance : mapping of str to str, optional
            Versions and engine, stored with the rows; not part of the key.

        Returns
        -------
        str
            Name of the shard. Once this returns, the rows survive a crash.

        Raises
        ------
        StoreMismatch
            If there are no rows, their shape is not (number of ids, `width`), or a value is too
            large for `dtype`.
        StoreWriteError
            If the system refuses the write. Rows committed before are intact.
        """
        rows: Rows = np.ascontiguousarray(embeddings, np.float32)
        if rows.ndim != 2 or rows.shape != (len(ids), self.width) or not len(ids):
            raise StoreMismatch(
                f"Rows of shape {embeddings.shape} came with {format_count(len(ids), 'id')} for a "
                f"store of width {self.width}.",
                stored=self.width,
                requested=embeddings.shape,
            )
        rows, views = to_stored_dtype(rows, self.dtype), np.zeros(len(ids), np.int32)
        return self.append_packed(rows, pack_ids(ids), views, provenance or {})

    def append_packed(
        self, rows: Rows, ids: IdArray, views: NDArray[np.int32], provenance: Mapping[str, str]
    ) -> str:
        """Commit rows of the store's dtype whose ids are already (n, 32) bytes; see `append`."""
        data, metadata = encode_shard(rows, ids, views, self.spec.components(), provenance)
        self._sequence += 1
        sha = hashlib.sha256(data).hexdigest()
        name = make_shard_name(self._worker, self._sequence, len(rows), sha)
        write_atomic(self.folder / name, data, description=f"{len(rows)} rows")
        write_metadata(self.folder / name, len(data), metadata, rows)
        return name

    def add_to_quarantine(self, reasons: Mapping[str, str]) -> None:
        """Commit a quarantine list of image id -> reason, for images that cannot be decoded."""
        if reasons:
            self._sequence += 1
            quarantine.write(self.folder, f"{self._worker}-{self._sequence:06d}", reasons)
            self.quarantined.update(reasons)

    def write_manifest(self) -> None:
        """Write a manifest that lists all present shards, so that a missing one is detected.

        Under the lease: otherwise a list written while another process removes merged shards
        could name removed shards, which would be reported as missing. If another process holds
        the lease, it writes the manifest. If the lease is lost during the write, because this
        process was suspended, the manifest is written again.
        """
        for _ in range(MAX_LISTINGS):
            with lease(self.folder, wait=_LEASE_WAIT) as held:
                if held:
                    self.write_manifest_under_lease()
                if not held or held.still_held():
                    return

    def write_manifest_under_lease(self, without: Collection[str] = ()) -> None:
        """Write the manifest as `write_manifest` does; the caller holds the lease.

        Parameters
        ----------
        without : collection of str
            Shards not to list, since the caller is about to remove them.
        """
        self.refresh()
        names = set(self._metadata) - set(without)
        listed = {name: rows_in_name(name) or 0 for name in sorted(names)}
        if listed != dict(self._manifest.shards):
            generation = self._manifest.generation + 1
            manifest = replace(self._manifest, shards=listed, generation=generation)
            manifest.write(self.folder)
            self._manifest = manifest  # not before: a disk may be full

    def close(self) -> None:
        """Discard the verification of shards; the store stays usable and verifies them again."""
        with self._lock:
            self._reader.keep_only({})
