"""Estimates of a contender's cost, from a measured batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import featcache
from featcache.toolkit import (
    BackboneLike,
    MemoryBudget,
    Resize,
    batches,
    default_workers,
    format_count,
    is_model_file,
)

from ..splits import Images

_BATCH_SIZE = 32  # images of the batch that is measured for an estimate
# Arguments of `featcache.load_backbone`.
MODEL_OPTIONS = frozenset({
    "cache_dir", "layer", "pooling", "image_size", "resize", "weights", "preprocessing",
    "precision", "row_dtype",
})  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of one kind of work.

    Attributes
    ----------
    what : str
        Human-readable description of the work.
    seconds : float
        Wall time.
    disk_bytes : int
    at_most : bool
        Whether `seconds` is an upper bound, as of training with early stopping. Such work is done
        for each split and seed.
    stored : int
        Number of rows of features that earlier runs have stored.
    contenders : tuple of str
        Names of the contenders that need it.
    times : int
        How often the work is still to be done.
    trained : int
        How often earlier runs have done it, on the same images.
    """

    what: str
    seconds: float
    disk_bytes: int
    at_most: bool = False
    stored: int = 0
    contenders: tuple[str, ...] = ()
    times: int = 1
    trained: int = 0

    @property
    def total_seconds(self) -> float:
        """Wall time of all times."""
        return self.seconds * (self.times if self.at_most else 1)


@dataclass(frozen=True)
class Work:
    """A kind of work that can be estimated.

    Attributes
    ----------
    name : str
        Contenders share work of one name; "" for work of one contender alone.
    images : int
        Number of images. Of two works of one name, the larger one contains the other.
    measure : callable
        Returns the estimate.
    """

    name: str
    images: int
    measure: Callable[[], Estimate | None]


def seconds_to_decode(images: Images, size: tuple[int, int], resize: Resize) -> float:
    """Measure the seconds per image of decoding with all cores, on at most 64 images."""
    few = images.take(range(min(64, len(images))))

    started = time.perf_counter()
    rows, budget = range(len(few)), MemoryBudget()

    def load(row: int) -> NDArray[np.uint8]:
        return few.pixels(row, size, resize, budget)

    for _ in batches(rows, load, 32, default_workers()):
        pass
    return (time.perf_counter() - started) / len(few)


def extraction_estimate(
    backbone: BackboneLike,
    images: Images,
    options: Mapping[str, Any],
    views: Mapping[str, Any] | None = None,
) -> Estimate:
    """Estimate the extraction of the rows that are not stored yet, from a measured batch.

    Parameters
    ----------
    backbone : str or keras.Model
    images : Images
    options : mapping
        Further arguments of `featcache.extract`.
    views : mapping, optional
        Its arguments that select views: then the rows of the images themselves do not count.
    """
    chosen = {name: value for name, value in options.items() if name in MODEL_OPTIONS}
    stored, count = _plan(backbone, images, chosen, views)
    kind = "image" if views is None else "augmented view"
    if views is not None and views["augmentation"] == "flip":
        kind = "mirror image"
    name = Path(backbone).stem if is_model_file(backbone) else backbone
    what = f"features of {format_count(count, kind)} by {name}"
    if not count:
        return Estimate(what, 0, 0, stored=stored)
    resolved = featcache.load_backbone(backbone, **chosen)
    embed, size = resolved.backbone.embed, resolved.spec.image_size
    # Of little work, measuring takes little as well: a batch runs three times.
    batch = min(options.get("batch_size") or _BATCH_SIZE, -(-count // 30))
    pixels = np.zeros((batch, *size, 3), np.uint8)
    seconds = seconds_of(lambda: embed(pixels)) / batch * count
    decode = seconds_to_decode(images, size, resolved.request.resize)
    room = count * (resolved.spec.row_bytes(resolved.width) + 64)
    return Estimate(what, seconds + decode * min(count, len(images)), room, stored=stored)


def _plan(
    backbone: BackboneLike,
    images: Images,
    options: Mapping[str, Any],
    views: Mapping[str, Any] | None,
) -> tuple[int, int]:
    """Return how many rows are stored, and how many are to be computed."""
    data = images.dataset()
    alone = featcache.explain(backbone, data, progress=False, **options)
    if views is None:
        return alone.stored, alone.to_compute
    both = featcache.explain(backbone, data, progress=False, **options, **views)
    return both.stored - alone.stored, both.to_compute - alone.to_compute


def total(works: Sequence[Work]) -> Estimate | None:
    """Return the sum of the estimates; None if there are none."""
    parts = [one for work in works if (one := work.measure()) is not None]
    if not parts:
        return None
    return Estimate(
        "; ".join(one.what for one in parts),
        sum(one.seconds for one in parts),
        sum(one.disk_bytes for one in parts),
        at_most=any(one.at_most for one in parts),
        stored=sum(one.stored for one in parts),
    )


def seconds_of(step: Callable[[], object], times: int = 2) -> float:
    """Measure the mean seconds of a step, after one call that compiles and is not counted."""
    step()
    started = time.perf_counter()
    for _ in range(times):
        step()
    return (time.perf_counter() - started) / times
