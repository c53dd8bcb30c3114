"""Encoding and reading of shards.

A shard is built in memory and written by the caller as plain bytes, so that a full disk raises
an ordinary `OSError` there and never leaves HDF5 with a half-closed file.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from .checked_file import CHUNK_BYTES, FORMAT_VERSION, CheckedFile
from .row_dtype import Rows, row_dtype
from .shard_metadata import ID_BYTES, Layout, ShardMetadata, plausible_seconds
from .shard_name import shard_error

_DATASETS = ("embeddings", "image_id", "view")
_FILTER_BYTES = 4  # which the filter fletcher32 adds to each chunk


def encode_shard(
    embeddings: Rows,
    image_ids: NDArray[np.uint8],
    views: NDArray[np.int32],
    components: Mapping[str, Any],
    provenance: Mapping[str, str],
) -> tuple[bytes, ShardMetadata]:
    """Return the bytes of a shard's file, and the metadata that a reader would find in it.

    Parameters
    ----------
    embeddings : ndarray (n, d)
        Of the dtype that the components name.
    image_ids : ndarray (n, 32), uint8
    views : ndarray (n,), int32
    components : mapping
        Those of the `BackboneSpec`, stored as JSON in the attribute ``spec``.
    provenance : mapping of str to str
        Versions, engine and seconds; not part of the key.

    Returns
    -------
    (bytes, ShardMetadata)
    """
    rows, width = embeddings.shape
    dtype = row_dtype(components)
    if embeddings.dtype.newbyteorder("<") != dtype:  # HDF5 would convert large values to infinity
        raise TypeError(f"rows of {embeddings.dtype} for a store of {dtype}")
    per_chunk = int(np.clip(CHUNK_BYTES // (dtype.itemsize * width), 1, rows))
    # HDF5 treats two files of the same name as one, even in memory: each thread needs its own.
    name = f"shard-{uuid.uuid4().hex}"
    with h5py.File(name, "w", driver="core", backing_store=False) as file:
        file.attrs["format"] = "featcache-shard"
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["spec"] = json.dumps(components, sort_keys=True)
        file.attrs["provenance"] = json.dumps(dict(provenance), sort_keys=True)
        data = file.create_dataset(
            "embeddings", data=embeddings, chunks=(per_chunk, width), fletcher32=True, dtype=dtype
        )
        file.create_dataset(
            "image_id", data=image_ids, chunks=(rows, ID_BYTES), fletcher32=True, dtype="u1"
        )
        file.create_dataset("view", data=views, chunks=(rows,), fletcher32=True, dtype="<i4")
        file.flush()
        chunks = sorted(_chunks(data), key=lambda chunk: chunk.chunk_offset[0])
        offsets = np.array([chunk.byte_offset for chunk in chunks], np.int64)
        layout = Layout(offsets, per_chunk, width, dtype)
        metadata = ShardMetadata(image_ids, views, layout, dict(components), _seconds(provenance))
        return bytes(file.id.get_file_image()), metadata


class ShardFile(CheckedFile):
    """An open, checked shard; a context manager.

    Raises
    ------
    StoreFormatError
        If a newer version of this library wrote it.
    StoreCorrupt
        If it is not a valid shard.
    """

    def _check(self) -> None:
        self.metadata = self._checked_metadata()

    def _checked_metadata(self) -> ShardMetadata:
        self._check_kind("featcache-shard")
        if set(self._file) != set(_DATASETS):
            raise shard_error(
                self.path, f"it holds {sorted(self._file)[:6]}, not {list(_DATASETS)}"
            )
        data, ids, views = self._check_datasets(_DATASETS)
        rows = data.shape[0]
        if ids.shape != (rows, ID_BYTES) or views.shape != (rows,):
            raise shard_error(self.path, "its data sets have different numbers of rows")
        components = json.loads(self._attribute("spec"))
        if not isinstance(components, dict):
            raise shard_error(self.path, "its spec is not a JSON object")
        dtype = row_dtype(components)
        if data.dtype != dtype:
            raise shard_error(self.path, f"its rows are of {data.dtype}, those of its spec {dtype}")
        seconds = _seconds(json.loads(self._attribute("provenance")))
        layout = self._layout(data)
        return ShardMetadata(ids[()], views[()].astype(np.int32), layout, components, seconds)

    def _layout(self, data: Any) -> Layout:
        """Return where each chunk of rows lies; raise if one lies outside the file."""
        rows, per_chunk = data.shape[0], data.chunks[0]
        if data.chunks[1:] != data.shape[1:]:
            raise shard_error(self.path, "its chunks do not contain whole rows")
        size = data.dtype.itemsize * int(np.prod(data.chunks)) + _FILTER_BYTES
        end = self._file.id.get_filesize() - size
        offsets = np.full(-(-rows // per_chunk), -1, np.int64)
        for chunk in _chunks(data):
            if chunk.size != size or chunk.filter_mask or not 0 <= chunk.byte_offset <= end:
                raise shard_error(self.path, "a part of its rows lies outside the file")
            offsets[chunk.chunk_offset[0] // per_chunk] = chunk.byte_offset
        if (offsets < 0).any():
            raise shard_error(self.path, "a part of its rows was never written")
        return Layout(offsets, per_chunk, data.shape[1], data.dtype)


def _chunks(data: Any) -> list[Any]:
    """Return HDF5's record of each chunk of a data set, in no particular order."""
    found: list[Any] = []
    data.id.chunk_iter(found.append)
    return found


def _seconds(provenance: Mapping[str, Any]) -> float:
    return plausible_seconds(provenance.get("seconds", 0))
