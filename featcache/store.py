"""A folder of immutable, sealed shards that holds the embeddings of one spec.

A row is committed by the rename of the shard that holds it; no committed byte is ever
rewritten. Any number of processes may append to one store and read it at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import hdf5, quarantine, shards
from .atomic import make_folder, remove_stale, write_atomic
from .errors import MissingRows, StoreCorrupt, StoreError, StoreFormatError, StoreMismatch
from .lease import lease
from .manifest import NAME as MANIFEST_NAME
from .manifest import Manifest, read_manifest
from .rowfiles import RowFiles
from .rowindex import IdArray, RowIndex, pack_ids, unpack_ids
from .shardhead import ShardHead, read_head, write_head
from .shards import Damage
from .specs import BackboneSpec

log = logging.getLogger("featcache")

_LEASE_WAIT = 10.0
_LOOKS = 50  # a busy store may merge a shard away in each of several looks


class Store:
    """The embeddings of one spec, on disk.

    Parameters
    ----------
    folder : Path
        An existing store.

    Attributes
    ----------
    spec : BackboneSpec
    width : int
        Length of an embedding.
    damaged : list of Damage
        Shards that were passed over, since they cannot be read or are missing; their rows
        count as not stored.
    quarantined : dict of str to str
        Content id -> reason, for images that cannot be decoded.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self._manifest = read_manifest(self.folder)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.folder} is not a store: it has no {MANIFEST_NAME}. `featcache ls` lists "
                "the stores of a cache folder.",
                path=self.folder,
            ) from error
        self._worker = uuid.uuid4().hex[:8]
        self._sequence = 0
        self._heads: dict[str, ShardHead] = {}
        self._files = RowFiles(self.folder)
        self._lock = threading.RLock()
        self.refresh()

    @classmethod
    def create(
        cls, folder: Path, spec: BackboneSpec, width: int, about: Mapping[str, str] | None = None
    ) -> Store:
        """Open the store of a spec for appending; make it if it is not there.

        Raises
        ------
        StoreMismatch
            If the folder holds rows of another spec or width.
        StoreWriteError
            If it cannot be made.
        """
        if not (folder / MANIFEST_NAME).exists():
            make_folder(folder)
            Manifest(spec, width, about=about or {}).write(folder)
        store = cls(folder)
        if store.spec != spec or store.width != width:
            raise StoreMismatch(
                f"{folder} holds embeddings of another specification (width {store.width}, key "
                f"{store.spec.key[:16]}) than the requested one (width {width}, key "
                f"{spec.key[:16]}). Name another cache folder.",
                path=folder,
                stored=store.spec,
                requested=spec,
            )
        remove_stale(folder)
        return store

    # Looking

    @property
    def spec(self) -> BackboneSpec:
        """The specification of all rows."""
        return self._manifest.spec

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self._manifest.width

    @property
    def about(self) -> Mapping[str, str]:
        """What people call it: the weights' origin and the preprocessing rule."""
        return self._manifest.about

    @property
    def shard_names(self) -> list[str]:
        """The names of the sound shards, sorted."""
        return list(self._names)

    def __len__(self) -> int:
        """Return the number of different rows."""
        return self._index.distinct()

    def __repr__(self) -> str:
        return f"<Store {self.folder} {len(self)} rows x {self.width}>"

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}  # open files and locks do not travel to a worker

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def size_on_disk(self) -> int:
        """Return the bytes of all files of the store."""
        return sum(f.stat().st_size for f in self.folder.iterdir() if f.is_file())

    def seconds_per_image(self) -> float:
        """Return the wall time that computing a row took, on average, when it was computed."""
        heads = self._heads.values()
        rows = sum(len(head.views) for head in heads)
        return sum(head.seconds for head in heads) / rows if rows else 0.0

    def refresh(self) -> None:
        """Take in what others have committed since this store was opened."""
        with self._lock:
            present = {p.name for p in self.folder.iterdir()}
            names = sorted(name for name in present if shards.rows_of(name) is not None)
            self.damaged: list[Damage] = [
                Damage(name, rows, "it is missing")
                for name, rows in self._manifest.shards.items()
                if name not in present
            ]
            heads = {name: head for name in names if (head := self._head(name)) is not None}
            self._files.forget(heads)
            self._heads = heads
            self._names = list(heads)
            self._index = RowIndex([(h.image_ids, h.views) for h in heads.values()])
            self.quarantined = quarantine.read(self.folder, present)

    def contains(self, ids: Sequence[str]) -> NDArray[np.bool_]:
        """Tell for each content id whether its row is stored."""
        return self._index.find_positions(pack_ids(ids))[1]

    def ids(self) -> list[str]:
        """Return the content ids of all rows, shard by shard, each once."""
        everything = [h.image_ids for h in self._heads.values()]
        return list(dict.fromkeys(unpack_ids(np.concatenate(everything)))) if everything else []

    def read(self, ids: Sequence[str] | IdArray) -> NDArray[np.float32]:
        """Read the embeddings of some images.

        Parameters
        ----------
        ids : sequence of str, or ndarray (n, 32) of uint8
            Content ids; repeats are allowed.

        Returns
        -------
        ndarray (n, width), float32
            In the order of `ids`.

        Raises
        ------
        MissingRows
            If an id is not stored.
        StoreCorrupt
            If a shard's bytes are not those that were committed. No row of it is returned.
        """
        packed = ids if isinstance(ids, np.ndarray) else pack_ids(ids)
        with self._lock:
            for look in range(_LOOKS):
                shard, row = self._index.find(packed)
                if look and (shard < 0).any():
                    break
                # A shard that is gone was merged into a larger one by another process.
                with contextlib.suppress(FileNotFoundError):
                    if (shard >= 0).all():
                        return self._gather(shard, row)
                self._reload()
            missing = unpack_ids(packed[shard < 0])
        raise MissingRows(
            f"{len(missing)} of {len(packed)} images are not stored in {self.folder} (the first "
            f"is {missing[0][:16] if missing else '?'}...). Extract them first.",
            path=self.folder,
            ids=missing,
        )

    def read_shard(self, name: str) -> tuple[NDArray[np.float32], ShardHead] | None:
        """Read a whole shard; None if it is damaged: it stays where it is, for repair.

        Parameters
        ----------
        name : str
            One of `shard_names`.

        Returns
        -------
        (ndarray (n, width) float32, ShardHead) or None
        """
        head = self._heads[name]
        with contextlib.suppress(StoreCorrupt):
            self._files.check([name])
            return self._files.read_all(name, head.layout, len(head.views)), head
        return None

    def _reload(self) -> None:
        self._manifest = read_manifest(self.folder)
        self.refresh()

    def _gather(self, shard: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.float32]:
        result = np.empty((len(shard), self.width), np.float32)
        if not len(shard):
            return result
        order = np.argsort(shard, kind="stable")
        shard, row = shard[order], row[order]
        starts = [0, *(np.flatnonzero(np.diff(shard)) + 1).tolist()]
        names = [self._names[number] for number in shard[starts]]
        self._files.check(names)
        for name, first, last in zip(names, starts, [*starts[1:], len(order)], strict=True):
            layout, part = self._heads[name].layout, slice(first, last)
            self._files.read(name, layout, row[part], result, order[part])
        return result

    def _head(self, name: str) -> ShardHead | None:
        if name in self._heads:
            return self._heads[name]
        rows = shards.rows_of(name) or 0
        try:
            head = self._known_head(name) or self._opened_head(name)
        except FileNotFoundError:
            return None
        except (StoreCorrupt, StoreMismatch, StoreFormatError) as error:
            reason = error.evidence.get("reason", str(error))
            self.damaged.append(Damage(name, rows, reason))
            log.warning(
                "%s: passed over %d rows: %s. `featcache repair %s` saves what is sound.",
                name, rows, reason, self.folder,
            )  # fmt: skip
            return None
        return head

    def _known_head(self, name: str) -> ShardHead | None:
        """Return what lies beside the shard, if it is for a file of this size."""
        known = read_head(self.folder / name)
        if known is None or known[2] != (self.folder / name).stat().st_size:
            return None
        with contextlib.suppress(StoreMismatch, StoreCorrupt):
            check_head(known[0], name, self.spec, self.width)
            return known[0]
        return None

    def _opened_head(self, name: str) -> ShardHead:
        """Look into a shard, once its bytes are known to be right, and keep what is found."""
        path = self.folder / name
        self._files.check([name])
        head = hdf5.inspect_shard(path)
        check_head(head, name, self.spec, self.width)
        rows = self._files.read_all(name, head.layout, len(head.views))
        write_head(path, path.stat().st_size, head, rows)
        return head

    # Writing

    def append(
        self,
        embeddings: NDArray[np.float32],
        ids: Sequence[str],
        provenance: Mapping[str, str] | None = None,
    ) -> str:
        """Commit rows as one sealed shard.

        Parameters
        ----------
        embeddings : ndarray (n, width)
            Finite; stored as float32.
        ids : sequence of str
            Content id of each row.
        provenance : mapping of str to str, optional
            Versions and engine, stored beside the rows.

        Returns
        -------
        str
            The shard's name. Once this returns, the rows outlive a crash.

        Raises
        ------
        StoreMismatch
            If the shape does not fit.
        StoreWriteError
            If the system refuses the write. Nothing committed before is touched.
        """
        rows = np.ascontiguousarray(embeddings, np.float32)
        if rows.ndim != 2 or rows.shape != (len(ids), self.width) or not len(ids):
            raise StoreMismatch(
                f"Rows of shape {embeddings.shape} came with {len(ids)} ids for a store of width "
                f"{self.width}.",
                stored=self.width,
                requested=embeddings.shape,
            )
        return self.append_packed(
            rows, pack_ids(ids), np.zeros(len(ids), np.int32), provenance or {}
        )

    def append_packed(
        self,
        rows: NDArray[np.float32],
        ids: IdArray,
        views: NDArray[np.int32],
        provenance: Mapping[str, str],
    ) -> str:
        """Commit rows whose ids are already (n, 32) bytes; see `append`."""
        data, head = hdf5.encode_shard(rows, ids, views, self.spec.components(), provenance)
        self._sequence += 1
        sha = hashlib.sha256(data).hexdigest()
        name = shards.name_of(self._worker, self._sequence, len(rows), sha)
        write_atomic(self.folder / name, data, what=f"{len(rows)} rows")
        write_head(self.folder / name, len(data), head, rows)
        return name

    def add_to_quarantine(self, reasons: Mapping[str, str]) -> None:
        """Remember images that cannot be decoded, by content id, with the reason."""
        if reasons:
            self._sequence += 1
            quarantine.write(self.folder, f"{self._worker}-{self._sequence:06d}", reasons)
            self.quarantined.update(reasons)

    def write_manifest(self) -> None:
        """List the present shards in the manifest, so that a lost one is noticed.

        Under the lease: a list made while another process removes merged shards would name
        some that are gone, and cry wolf for ever after. If the lease is not to be had the
        list is left to its holder, who writes one too.
        """
        with lease(self.folder, wait=_LEASE_WAIT) as held:
            if held:
                self.write_manifest_under_lease()

    def write_manifest_under_lease(self, without: Collection[str] = ()) -> None:
        """Do what `write_manifest` does, for one who holds the lease.

        Parameters
        ----------
        without : collection of str
            Shards that are about to be removed, since their rows are in another one.
        """
        self._reload()
        names = set(self._names) - set(without)
        listed = {name: len(self._heads[name].views) for name in sorted(names)}
        if listed != dict(self._manifest.shards):
            generation = self._manifest.generation + 1
            self._manifest = replace(self._manifest, shards=listed, generation=generation)
            self._manifest.write(self.folder)

    def close(self) -> None:
        """Forget what was checked; the store can go on being used."""
        with self._lock:
            self._files.forget({})


def check_head(head: ShardHead, name: str, spec: BackboneSpec, width: int) -> None:
    """Raise `StoreMismatch` or `StoreCorrupt` for a shard that is no part of a store."""
    if head.components != spec.components() or head.width != width:
        raise StoreMismatch("its spec is not the store's", stored=head.components)
    if len(head.views) != shards.rows_of(name):
        raise StoreCorrupt("its number of rows is not the one in its name")
