"""Shards as HDF5 bytes. This package's only door to h5py.

A shard is built in memory and written by the caller as plain bytes, so that a full disk is
an ordinary `OSError` there and never leaves HDF5 with a half-closed file. Nothing is read
from a shard before its structure is checked: hard links only, no external storage, no
virtual data sets, known types and filters, shapes that agree and fit the file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from .errors import StoreCorrupt, StoreFormatError
from .rowfiles import Layout
from .shards import corrupt

FORMAT_VERSION = 1
ID_BYTES = 32
_CHUNK_BYTES = 64 * 1024
_FLETCHER32 = 3
_SUM_BYTES = 4  # which that filter adds to each chunk
_DATASETS = ("embeddings", "image_id", "view")
_KINDS = {"embeddings": ("<f4", 2), "image_id": ("|u1", 2), "view": ("<i4", 1)}


@dataclass(frozen=True)
class ShardHead:
    """What a shard says of itself, checked.

    Attributes
    ----------
    image_ids : ndarray (n, 32), uint8
        Content ids as raw bytes.
    views : ndarray (n,), int32
        View number of each row; 0 is the plain image.
    layout : Layout
        Where the rows lie in the file, and their width.
    components : dict
        The spec under which the rows were computed.
    seconds : float
        Wall time that computing the rows took, for honest accounts of cost.
    """

    image_ids: NDArray[np.uint8]
    views: NDArray[np.int32]
    layout: Layout
    components: dict[str, Any]
    seconds: float = 0.0

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self.layout.width


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


Opened = TypeVar("Opened", bound="_CheckedFile")


class _CheckedFile:
    """An HDF5 file of ours, open for reading; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # No lock: a sealed file never changes, and locks fail on network disks.
            self._file = h5py.File(path, "r", locking=False)
        except FileNotFoundError:
            raise
        except OSError as error:
            # HDF5 looks at the name twice: merged away in between, it is gone, not damaged.
            if not path.exists():
                raise FileNotFoundError(errno.ENOENT, "it is gone", str(path)) from error
            raise corrupt(path, f"HDF5 cannot open it ({_first_line(error)})") from error
        try:
            self._check()
        except (StoreCorrupt, StoreFormatError):
            self.close()
            raise
        except Exception as error:  # h5py raises many kinds on damaged structures
            self.close()
            raise corrupt(path, f"its structure is damaged ({_first_line(error)})") from error

    def __enter__(self: Opened) -> Opened:
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

    def _check(self) -> None:
        """Look at everything before anything is used; raise whatever is found."""
        raise NotImplementedError

    def _check_kind(self, kind: str) -> None:
        """Make sure that it is a file of ours, of this kind and of this version."""
        attributes = self._file.attrs
        if attributes.get("format") != kind:
            raise corrupt(self.path, f"it is not a {kind}")
        version = int(attributes["format_version"])
        if version != FORMAT_VERSION:
            raise StoreFormatError(
                f"{self.path} has format version {version}; this featcache reads version "
                f"{FORMAT_VERSION}. Upgrade featcache, or name another cache folder.",
                path=self.path,
                version=version,
            )

    def _check_datasets(self, names: Sequence[str]) -> None:
        """Look at the data sets' links, types, filters and sizes before their values."""
        # Asked of the open file: its name may be gone, merged away by another process.
        size = self._file.id.get_filesize()
        for name in names:
            dtype, rank = _KINDS[name]
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


class ShardReader(_CheckedFile):
    """An open, checked shard; a context manager.

    Raises
    ------
    StoreFormatError
        If a newer version of this library wrote it.
    StoreCorrupt
        If it is anything but a sound shard.
    """

    def _check(self) -> None:
        self.head = self._checked_head()

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
        self._check_kind("featcache-shard")
        if set(self._file) != set(_DATASETS):
            raise corrupt(self.path, f"it holds {sorted(self._file)[:6]}, not {list(_DATASETS)}")
        self._check_datasets(_DATASETS)
        data, ids, views = (self._file[name] for name in _DATASETS)
        rows = data.shape[0]
        if ids.shape != (rows, ID_BYTES) or views.shape != (rows,):
            raise corrupt(self.path, "its data sets have different numbers of rows")
        attributes = self._file.attrs
        components = json.loads(attributes["spec"])
        if not isinstance(components, dict):
            raise corrupt(self.path, "its spec is not a record")
        seconds = float(json.loads(attributes["provenance"]).get("seconds", 0))
        layout = self._layout(data)
        return ShardHead(ids[()], views[()].astype(np.int32), layout, components, seconds)

    def _layout(self, data: Any) -> Layout:
        """Find each chunk of rows, and make sure that it lies whole in the file."""
        rows, width = data.shape
        per_chunk = data.chunks[0]
        if data.chunks[1] != width:
            raise corrupt(self.path, "its rows are cut into columns")
        found: list[Any] = []
        data.id.chunk_iter(found.append)
        size = 4 * per_chunk * width + _SUM_BYTES
        end = self._file.id.get_filesize() - size
        offsets = np.full(-(-rows // per_chunk), -1, np.int64)
        for chunk in found:
            if chunk.size != size or chunk.filter_mask or not 0 <= chunk.byte_offset <= end:
                raise corrupt(self.path, "a part of its rows lies outside the file")
            offsets[chunk.chunk_offset[0] // per_chunk] = chunk.byte_offset
        if (offsets < 0).any():
            raise corrupt(self.path, "a part of its rows was never written")
        return Layout(offsets, per_chunk, width)


def write_pack(
    path: Path,
    blocks: Iterable[tuple[NDArray[np.uint8], NDArray[np.float32]]],
    count: int,
    width: int,
    components: Mapping[str, Any],
    about: Mapping[str, str],
    texts: Mapping[str, Sequence[str]],
) -> None:
    """Write rows, block by block, and columns of text to a new file.

    Parameters
    ----------
    blocks : iterable of (ndarray (b, 32), ndarray (b, width))
        Ids and rows, `count` in all.
    texts : mapping of str to sequence of str
        Further data sets of UTF-8 text, one value a row.
    """
    per_chunk = max(1, min(max(1, count), _CHUNK_BYTES // (4 * width)))
    sum_ = hashlib.sha256()
    with h5py.File(path, "x") as file:
        file.attrs["format"] = "featcache-pack"
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["spec"] = json.dumps(components, sort_keys=True)
        file.attrs["about"] = json.dumps(dict(about), sort_keys=True)
        more: dict[str, Any] = {"fletcher32": True}
        rows = file.create_dataset(
            "embeddings", (count, width), "<f4", chunks=(per_chunk, width), **more
        )
        ids = file.create_dataset(
            "image_id", (count, ID_BYTES), "u1", chunks=(max(1, min(count, 2048)), ID_BYTES), **more
        )
        start = 0
        for block_ids, block in blocks:
            stop = start + len(block)
            rows[start:stop], ids[start:stop] = block, block_ids
            sum_.update(block_ids.tobytes())
            sum_.update(np.ascontiguousarray(block, "<f4").tobytes())
            start = stop
        for name, values in texts.items():
            file.create_dataset(name, data=[v.encode("utf-8", "surrogateescape") for v in values])
        file.attrs["sha256"] = sum_.hexdigest()


class PackReader(_CheckedFile):
    """An open, checked packed store; a context manager.

    Attributes
    ----------
    components : dict
        The spec.
    about : dict of str to str
    width : int

    Raises
    ------
    StoreCorrupt, StoreFormatError
        If it is anything but a sound packed store.
    """

    def _check(self) -> None:
        self._check_kind("featcache-pack")
        self._check_datasets(("embeddings", "image_id"))
        data, ids = self._file["embeddings"], self._file["image_id"]
        if ids.shape != (data.shape[0], ID_BYTES):
            raise corrupt(self.path, "its data sets have different numbers of rows")
        self.components = dict(json.loads(self._file.attrs["spec"]))
        about = dict(json.loads(self._file.attrs["about"]))
        self.about = {str(name): str(value) for name, value in about.items()}
        self.width = int(data.shape[1])
        self._check_sum()

    def blocks(self, count: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
        """Yield rows and ids, `count` at a time."""
        data, ids = self._file["embeddings"], self._file["image_id"]
        for start in range(0, data.shape[0], count):
            yield data[start : start + count], ids[start : start + count]

    def _check_sum(self) -> None:
        sum_ = hashlib.sha256()
        for rows, ids in self.blocks(4096):
            sum_.update(ids.tobytes())
            sum_.update(rows.tobytes())
        if sum_.hexdigest() != self._file.attrs["sha256"]:
            raise corrupt(self.path, "its rows are not those that were written")


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0] or type(error).__name__
