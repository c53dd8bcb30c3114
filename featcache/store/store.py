"""A store: a folder of immutable shards with the embeddings of one spec.

Rows are committed by the rename of their shard; committed bytes are never rewritten. Any number
of processes may append to a store and read it at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.atomic import make_folder, remove_stale, write_atomic
from .._io.disk_space import folder_bytes
from .._io.system_errors import system_errors
from .._io.wording import format_count
from ..backbones.spec import BackboneSpec
from ..errors import MissingRows, StoreCorrupt, StoreError, StoreMismatch
from ..hdf5.row_dtype import Rows, row_dtype
from ..hdf5.shard_file import encode_shard
from ..hdf5.shard_metadata import ShardMetadata, write_metadata
from ..hdf5.shard_name import Damage, make_shard_name, rows_in_name
from . import quarantine, recovery
from .lease import lease
from .manifest import NAME as MANIFEST_NAME
from .manifest import mismatch_error, parse_manifest
from .recovery import MAX_LISTINGS
from .row_index import IdArray, RowIndex, pack_ids, unpack_ids
from .shard_lookup import ShardLookup
from .shard_reader import ShardReader
from .stored_dtype import to_stored_dtype

_LEASE_WAIT = 10.0


class Store:
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
        self.folder = Path(folder)
        self._write_sidecars = write_sidecars
        self._worker = uuid.uuid4().hex[:8]
        self._sequence = 0
        self._metadata: dict[str, ShardMetadata] = {}
        self._reader = ShardReader(self.folder)
        self._lookup = ShardLookup(self.folder, self._reader, write_sidecars=write_sidecars)
        self._lock = threading.RLock()
        self.refresh()

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

    # Reading

    @property
    def spec(self) -> BackboneSpec:
        """The spec of all rows."""
        return self._manifest.spec

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self._manifest.width

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        """The dtype in which rows are stored; they are read as float32."""
        return row_dtype(self.spec.components())

    @property
    def metadata(self) -> Mapping[str, str]:
        """Human-readable description: backbone, origin of the weights, preprocessing."""
        return self._manifest.metadata

    @property
    def shard_names(self) -> list[str]:
        """The names of the valid shards, sorted."""
        return list(self._names)

    def __len__(self) -> int:
        """Return the number of distinct rows."""
        return self._index.distinct()

    def __repr__(self) -> str:
        return f"<Store {self.folder} {len(self)} rows x {self.width}>"

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
        all_metadata = self._metadata.values()
        rows = sum(len(metadata.views) for metadata in all_metadata)
        return sum(metadata.seconds for metadata in all_metadata) / rows if rows else 0.0

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
        raise StoreError(
            f"{self.folder} could not be listed: other processes merged its shards during each of "
            f"{MAX_LISTINGS} attempts. Run the same command again.",
            path=self.folder,
        )

    def _list_shards(self) -> bool:
        """List the shards; return False if some were removed during the listing.

        A merged shard may be missing from the listing, and the shard that replaced it may have
        appeared too late. The manifest is replaced before a shard is removed, so that an
        unchanged manifest proves that the listing is complete.
        """
        with system_errors(self.folder):
            before = recovery.manifest_of_store(self.folder)
            self._manifest = parse_manifest(self.folder / MANIFEST_NAME, before)
            present = set(os.listdir(self.folder))
            names = sorted(name for name in present if rows_in_name(name) is not None)
            self.damaged: list[Damage] = [
                Damage(name, rows, "it is missing")
                for name, rows in self._manifest.shards.items()
                if name not in present
            ]
            all_metadata: dict[str, ShardMetadata] = {}
            for name in names:
                found = self._metadata.get(name) or self._lookup.find(name, self._manifest)
                if isinstance(found, Damage):
                    self.damaged.append(found)
                elif found is not None:
                    all_metadata[name] = found
            self._reader.keep_only(all_metadata)
            self._metadata = all_metadata
            self._names = list(all_metadata)
            self._index = RowIndex([(h.image_ids, h.views) for h in all_metadata.values()])
            self.quarantined = quarantine.read(self.folder, present)
            known = {*all_metadata, *(damage.name for damage in self.damaged)}
            after = recovery.manifest_of_store(self.folder)
            return known.issuperset(names) and before == after

    def contains(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Return whether the row of each image id is stored.

        Parameters
        ----------
        ids : sequence of str

        Returns
        -------
        ndarray (n,), bool
        """
        return self._index.find_positions(pack_ids(ids))[1]

    def ids(self) -> list[str]:
        """Return the distinct image ids of all rows, in the order of the shards."""
        everything = [h.image_ids for h in self._metadata.values()]
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
                shard, row = self._index.find(packed)
                if look and (shard < 0).any():
                    break
                # A missing shard was merged into a larger one by another process.
                with system_errors(self.folder), contextlib.suppress(FileNotFoundError):
                    if (shard >= 0).all():
                        return self._reader.gather(
                            self._names, self._metadata, shard, row, self.width
                        )
                self.refresh()
            missing = unpack_ids(packed[shard < 0])
        raise MissingRows(
            f"Not stored in {self.folder}: {len(missing)} of {format_count(len(packed), 'image')} "
            f"(the first is {missing[0][:16] if missing else '?'}...). Extract them first.",
            path=self.folder,
            ids=missing,
        )

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
        metadata = self._metadata[name]
        with contextlib.suppress(StoreCorrupt, FileNotFoundError):
            self._reader.check([name])
            return self._reader.read_all(name, metadata.layout, len(metadata.views)), metadata
        return None

    def ids_in(self, name: str) -> IdArray:
        """Return the image ids of a shard, one of `shard_names`, as an array (n, 32)."""
        return self._metadata[name].image_ids

    def is_gone(self, name: str) -> bool:
        """Return whether the file of a shard was removed, for example merged into a larger one."""
        return not os.path.lexists(self.folder / name)

    # Writing

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
        names = set(self._names) - set(without)
        listed = {name: len(self._metadata[name].views) for name in sorted(names)}
        if listed != dict(self._manifest.shards):
            generation = self._manifest.generation + 1
            self._manifest = replace(self._manifest, shards=listed, generation=generation)
            self._manifest.write(self.folder)

    def close(self) -> None:
        """Discard the verification of shards; the store stays usable and verifies them again."""
        with self._lock:
            self._reader.keep_only({})
