"""Decoded pixels on disk, for models that train from images: decoded once, mapped ever after."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.atomic import TEMPORARY_PREFIX, make_folder, recall, remember, write_error
from featcache.cachedir import cache_folder, pixels_folder
from featcache.images import DECODE_VERSION
from featcache.pipeline import batches, default_workers
from featcache.progress import progress_bar
from featcache.specs import content_key

from .splits import Images


@dataclass(frozen=True)
class Pixels:
    """Decoded images of one size.

    Attributes
    ----------
    array : ndarray (n, h, w, 3), uint8
        Mapped from its file; never in memory as a whole.
    rows : mapping of str to int
        Id of an example -> row.
    unusable : mapping of str to str
        Id of an example -> reason.
    seconds : float
        What decoding took, whenever it was done.
    """

    array: NDArray[np.uint8]
    rows: Mapping[str, int]
    unusable: Mapping[str, str]
    seconds: float

    def take(self, ids: tuple[str, ...] | list[str]) -> NDArray[np.uint8]:
        """Read the pixels of some images, in the order given."""
        return self.array[[self.rows[i] for i in ids]]


def decoded(
    images: Images,
    size: tuple[int, int],
    resize: str = "stretch",
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Pixels:
    """Decode images by the same path as extraction does, or find them decoded.

    Parameters
    ----------
    images : Images
    size : (int, int)
        Height and width.
    resize : {"stretch", "crop", "pad"}

    Returns
    -------
    Pixels

    Raises
    ------
    StoreWriteError
        If the disk refuses.
    """
    folder = pixels_folder(cache_folder(cache_dir))
    row_of = {image_id: row for row, image_id in enumerate(images.ids)}
    ids = sorted(row_of)
    question = {"ids": ids, "size": list(size), "resize": resize, "decode": DECODE_VERSION}
    name = content_key(question)[:32]
    found = _load(folder, name, (len(ids), *size, 3))
    if found is None:
        make_folder(folder)
        chosen = images.take([row_of[image_id] for image_id in ids])
        found = _decode(folder, name, chosen, size, resize, progress)
    array, bad, seconds = found
    rows = {image_id: row for row, image_id in enumerate(ids) if image_id not in bad}
    return Pixels(array, rows, bad, seconds)


def _load(folder: Path, name: str, shape: tuple[int, ...]) -> Any:
    try:
        record: Any = recall(folder / f"{name}.json")
        array = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        if array.shape != shape or array.dtype != np.uint8:
            return None
        return array, dict(record["unusable"]), float(record["seconds"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None  # not there or not sound: decoded again


def _decode(
    folder: Path,
    name: str,
    images: Images,
    size: tuple[int, int],
    resize: str,
    progress: bool | None,
) -> Any:
    started = time.perf_counter()
    ids = images.ids
    temporary = folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    bad: dict[str, str] = {}

    def load(row: int) -> NDArray[np.uint8]:
        return images.pixels(row, size, resize)

    try:
        array = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.uint8, shape=(len(ids), *size, 3)
        )
        with progress_bar(len(ids), "Decoding", "images", progress) as bar:
            for batch in batches(range(len(ids)), load, 64, default_workers()):
                if batch.items:
                    array[batch.items] = batch.pixels
                bad.update({ids[row]: failure.reason for row, failure in batch.failures})
                bar.update(len(batch.items) + len(batch.failures))
        array.flush()
        del array
        seconds = time.perf_counter() - started
        os.replace(temporary, folder / f"{name}.npy")
        record = {"unusable": bad, "seconds": seconds}
        remember(folder / f"{name}.json", record, "the list of decoded images")
    except OSError as error:
        raise write_error(error, temporary, "decoded pixels") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False), bad, seconds
