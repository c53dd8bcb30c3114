"""Shards as HDF5 bytes. This package's only door to h5py.

A shard is built in memory and written by the caller as plain bytes, so that a full disk is
an ordinary `OSError` there and never leaves HDF5 with a half-closed file. Nothing is read
from a shard before its structure is checked: hard links only, no external storage, no
virtual data sets, known types and filters, shapes that agree and fit the file.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .errors import StoreCorrupt, StoreFormatError

FORMAT_VERSION = 1
ID_BYTES = 32
_CHUNK_BYTES = 64 * 1024
_FLETCHER32 = 3
_DATASETS = ("embeddings", "image_id", "view")


@dataclass(frozen=True)
class ShardHead:
    """What a shard says of itself, checked.

    Attributes
    ----------
    image_ids : ndarray (n, 32), uint8
        Content ids as raw bytes.
    views : ndarray (n,), int32
        View number of each row; 0 is the plain image.
    width : int
        Length of an embedding.
    components : dict
        The spec under which the rows were computed.
    seconds : float
        Wall time that computing the rows took, for honest accounts of cost.
    """

    image_ids: NDArray[np.uint8]
    views: NDArray[np.int32]
    width: int
    components: dict[str, Any]
    seconds: float = 0.0


def encode_shard(
    embeddings: NDArray[np.float32],
    image_ids: NDArray[np.uint8],
    views: NDArray[np.int32],
    components: Mapping[str, Any],
    provenance: Mapping[str, str],
) -> bytes:
    """Build a shard and return the bytes of its file.

    Parameters
    ----------
    embeddings : ndarray (n, d), float32
    image_ids : ndarray (n, 32), uint8
    views : ndarray (n,), int32
    components : mapping
        Those of the `BackboneSpec`, stored as JSON in the attribute ``spec``.
    provenance : mapping of str to str
        Versions, engine and seconds; no part of the key.
    """
    rows, width = embeddings.shape
    per_chunk = int(np.clip(_CHUNK_BYTES // (4 * width), 1, rows))
    # HDF5 takes two files of one name for one, even in memory: threads need names of their own.
    name = f"shard-{uuid.uuid4().hex}"
    with h5py.File(name, "w", driver="core", backing_store=False) as file:
        file.attrs["format"] = "featcache-shard"
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["spec"] = json.dumps(components, sort_keys=True)
        file.attrs["provenance"] = json.dumps(dict(provenance), sort_keys=True)
        file.create_dataset(
            "embeddings", data=embeddings, chunks=(per_chunk, width), fletcher32=True, dtype="<f4"
        )
        file.create_dataset(
            "image_id", data=image_ids, chunks=(rows, ID_BYTES), fletcher32=True, dtype="u1"
        )
        file.create_dataset("view", data=views, chunks=(rows,), fletcher32=True, dtype="<i4")
        file.flush()
        return bytes(file.id.get_file_image())


class ShardReader:
    """An open, checked shard; a context manager.

    Raises
    ------
    StoreFormatError
        If a newer version of this library wrote it.
    StoreCorrupt
        If it is anything but a sound shard.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # No lock: a sealed shard never changes, and locks fail on network disks.
            self._file = h5py.File(path, "r", locking=False)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise corrupt(path, f"HDF5 cannot open it ({_first_line(error)})") from error
        try:
            self.head = self._checked_head()
        except (StoreCorrupt, StoreFormatError):
            self.close()
            raise
        except Exception as error:  # h5py raises many kinds on damaged structures
            self.close()
            raise corrupt(path, f"its structure is damaged ({_first_line(error)})") from error

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; calling it twice does no harm."""
        self._file.close()

    def rows(self, wanted: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows in the order given, repeats allowed, a chunk at a time.

        Returns
        -------
        ndarray (len(wanted), width), float32
        """
        data = self._file["embeddings"]
        result = np.empty((len(wanted), data.shape[1]), np.float32)
        per_chunk = data.chunks[0]
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        chunk_of = ordered // per_chunk
        # Neighbouring chunks are read in one call, so that a full read stays sequential.
        breaks = np.flatnonzero(np.diff(chunk_of) > 1) + 1
        try:
            for part in np.split(np.arange(len(ordered)), breaks):
                first = int(chunk_of[part[0]]) * per_chunk
                last = int(ordered[part[-1]]) + 1
                block = data[first:last]
                result[order[part]] = block[ordered[part] - first]
        except OSError as error:
            raise corrupt(self.path, f"a checksum fails ({_first_line(error)})") from error
        return result

    def _checked_head(self) -> ShardHead:
        attributes = self._file.attrs
        if attributes.get("format") != "featcache-shard":
            raise corrupt(self.path, "it is not a featcache shard")
        version = int(attributes["format_version"])
        if version != FORMAT_VERSION:
            raise StoreFormatError(
                f"{self.path} has format version {version}; this featcache reads version "
                f"{FORMAT_VERSION}. Upgrade featcache, or name another cache folder.",
                path=self.path,
                version=version,
            )
        self._check_structure()
        data, ids, views = (self._file[name] for name in _DATASETS)
        rows = data.shape[0]
        if ids.shape != (rows, ID_BYTES) or views.shape != (rows,):
            raise corrupt(self.path, "its data sets have different numbers of rows")
        components = json.loads(attributes["spec"])
        if not isinstance(components, dict):
            raise corrupt(self.path, "its spec is not a record")
        seconds = float(json.loads(attributes["provenance"]).get("seconds", 0))
        return ShardHead(
            ids[()], views[()].astype(np.int32), int(data.shape[1]), components, seconds
        )

    def _check_structure(self) -> None:
        size = os.path.getsize(self.path)
        if set(self._file) != set(_DATASETS):
            raise corrupt(self.path, f"it holds {sorted(self._file)[:6]}, not {list(_DATASETS)}")
        kinds = {"embeddings": ("<f4", 2), "image_id": ("|u1", 2), "view": ("<i4", 1)}
        for name, (dtype, rank) in kinds.items():
            # The link's class is asked first: touching an external link opens its target.
            if not isinstance(self._file.get(name, getlink=True), h5py.HardLink):
                raise corrupt(self.path, f"{name!r} is a link to somewhere else")
            data = self._file[name]
            if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
                raise corrupt(self.path, f"{name!r} keeps its data outside the file")
            if data.dtype.str != dtype or len(data.shape) != rank:
                raise corrupt(self.path, f"{name!r} has type {data.dtype} and shape {data.shape}")
            settings = data.id.get_create_plist()
            filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
            if filters != [_FLETCHER32] or data.chunks is None:
                raise corrupt(self.path, f"{name!r} uses filters that no shard has: {filters}")
            if data.nbytes > size or data.id.get_storage_size() < data.nbytes:
                raise corrupt(self.path, f"{name!r} declares more data than the file holds")


def corrupt(path: Path, reason: str) -> StoreCorrupt:
    """Make the error for a shard that cannot be used, with what to do about it."""
    return StoreCorrupt(
        f"The shard {path} cannot be used: {reason}. `featcache repair {path.parent}` sets it "
        "aside; the next extraction then computes only its rows anew.",
        path=path,
        reason=reason,
    )


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0] or type(error).__name__
