"""A cache of decoded pixels on disk, for models that train on images."""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.toolkit import (
    DECODE_VERSION,
    MemoryBudget,
    Resize,
    batches,
    cache_folder,
    content_key,
    default_workers,
    make_folder,
    open_atomic,
    pixels_folder,
    progress_bar,
    read_memo,
    remove_stale,
    write_all,
    write_memo,
)

from ..splits import Images


@dataclass(frozen=True)
class Pixels:
    """Decoded images of one size.

    Attributes
    ----------
    array : ndarray (n, h, w, 3), uint8
        A memory map of the file.
    rows : mapping of str to int
        Row by example id.
    unusable : mapping of str to str
        Reason by example id, of the images that could not be decoded.
    seconds : float
        Wall time of decoding, even if that was in an earlier run.
    """

    array: NDArray[np.uint8]
    rows: Mapping[str, int]
    unusable: Mapping[str, str]
    seconds: float

    def take(self, ids: tuple[str, ...] | list[str]) -> NDArray[np.uint8]:
        """Return the pixels of some images, in that order."""
        return self.array[[self.rows[i] for i in ids]]


def decoded(
    images: Images,
    size: tuple[int, int],
    resize: Resize = "stretch",
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Pixels:
    """Return the decoded pixels of images, from the cache if it holds them.

    They are decoded as in an extraction.

    Parameters
    ----------
    images : Images
    size : (int, int)
        Height and width.
    resize : {"stretch", "crop", "pad"}
        As for `featcache.extract`.
    cache_dir : path, optional
        Default: ``FEATCACHE_CACHE`` or the user's cache folder.
    progress : bool, optional
        Show a progress bar. Default: if standard error is a terminal.

    Returns
    -------
    Pixels

    Raises
    ------
    StoreWriteError
        If a write fails.
    """
    folder = pixels_folder(cache_folder(cache_dir))
    row_of = {image_id: row for row, image_id in enumerate(images.ids)}
    ids = sorted(row_of)
    key = {"ids": ids, "size": list(size), "resize": resize, "decode": DECODE_VERSION}
    name = content_key(key)[:32]
    found = _load(folder, name, (len(ids), *size, 3))
    if found is None:
        make_folder(folder)
        remove_stale(folder)
        chosen = images.take([row_of[image_id] for image_id in ids])
        found = _decode(folder, name, chosen, size, resize, progress)
    array, bad, seconds = found
    rows = {image_id: row for row, image_id in enumerate(ids) if image_id not in bad}
    return Pixels(array, rows, bad, seconds)


def _load(folder: Path, name: str, shape: tuple[int, ...]) -> Any:
    try:
        record: Any = read_memo(folder / f"{name}.json")
        array = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        if array.shape != shape or array.dtype != np.uint8:
            return None
        return array, dict(record["unusable"]), float(record["seconds"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None  # missing or damaged: decoded again


def _decode(
    folder: Path,
    name: str,
    images: Images,
    size: tuple[int, int],
    resize: Resize,
    progress: bool | None,
) -> Any:
    started = time.perf_counter()
    ids = images.ids
    path = folder / f"{name}.npy"
    bad: dict[str, str] = {}

    budget = MemoryBudget()

    def load(row: int) -> NDArray[np.uint8]:
        return images.pixels(row, size, resize, budget)

    # Written without a memory map: there a full disk is an error, with one it ends the process.
    with open_atomic(path, description="decoded pixels") as file:
        shape = (len(ids), *size, 3)
        first = _start(file, shape)
        with progress_bar(len(ids), "Decoding", "images", progress) as bar:
            for batch in batches(range(len(ids)), load, 64, default_workers()):
                for row, pixels in zip(batch.items, batch.pixels, strict=True):
                    file.seek(first + row * pixels.nbytes)
                    write_all(file, np.ascontiguousarray(pixels).data.cast("B"))
                bad.update({ids[row]: failure.reason for row, failure in batch.failures})
                bar.update(len(batch.items) + len(batch.failures))
    seconds = time.perf_counter() - started
    record = {"unusable": bad, "seconds": seconds}
    write_memo(folder / f"{name}.json", record, "the list of decoded images")
    return np.load(path, mmap_mode="r", allow_pickle=False), bad, seconds


def _start(file: FileIO, shape: tuple[int, ...]) -> int:
    """Write the header of an array of zeros; return the offset of its values."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    write_all(file, head.getvalue())
    file.truncate(head.tell() + math.prod(shape))
    return head.tell()
