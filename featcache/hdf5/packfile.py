"""A whole store as one plain HDF5 file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..shards import corrupt
from .checked import CHUNK_BYTES, FORMAT_VERSION, ID_BYTES, CheckedFile


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
    per_chunk = max(1, min(max(1, count), CHUNK_BYTES // (4 * width)))
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


class PackReader(CheckedFile):
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
