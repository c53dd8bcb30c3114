"""Tasks of an extraction on a cluster, and their outcomes: small values, without pixels or rows."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..._io.progress import StageTimings
from ..._version import __version__
from ...backbones.hub.built import HubModel
from ...backbones.model_file import ModelFile
from ...backbones.request import BackboneOptions, HubRequest, ModelRequest, Request
from ...backbones.spec import BackboneSpec
from ...backbones.weights import keras_models_folder
from ...data.urls import clean_url, is_url
from ...errors import FeatcacheError, InvalidRequest, WorkerRefused
from ...images.image_file import BadImage, Box
from ...images.views import View
from ..compute import RunSettings
from ..prepare import ExtractionJob
from ..row_check import RowTally

MAX_TASK_IMAGES = 2048
# With fewer than a few batches, decoding and the forward pass hardly overlap: a quarter slower.
_MIN_TASK_IMAGES = 256
_TASKS_PER_THREAD = 4


@dataclass(frozen=True)
class Task:
    """Images that one worker computes, and all that it needs to know for that.

    Attributes
    ----------
    run : str
        Name of the extraction, under which its progress is reported.
    number : int
    version : str
        The client's version of featcache.
    backbone : str
        A name of the table, or the path of a saved model.
    options : BackboneOptions
    spec : BackboneSpec
        The spec that the worker must find, of images without augmentation.
    views : tuple of View
    cache : Path or str
        The cache folder, or the URL of a cache in an object store.
    mark : str
        What the client wrote in the store; a worker sees it if it has the same disk or bucket.
    locations : tuple of str
        Paths and URLs of the images.
    contents : tuple of str
        Their image ids.
    boxes : tuple of Box or None, or None
    crop : str
    settings : RunSettings
    images : int
        Number of views of images of the whole extraction.
    items : int
        Number of views of images that the task is to compute.
    first : int
        Position of its first image in the data set of the client.
    """

    run: str
    number: int
    version: str
    backbone: str
    options: BackboneOptions
    spec: BackboneSpec
    views: tuple[View, ...]
    cache: Path | str
    mark: str
    locations: tuple[str, ...] = field(repr=False)  # Dask logs tasks, and URLs hold credentials
    contents: tuple[str, ...] = field(repr=False)
    boxes: tuple[Box | None, ...] | None
    crop: str
    settings: RunSettings
    images: int
    items: int = 0
    first: int = 0

    @property
    def writer(self) -> str:
        """Beginning of the names of its shards, by which another attempt finds them."""
        return hashlib.sha256("".join(self.contents).encode()).hexdigest()[:6]

    @property
    def names(self) -> list[str]:
        """Paths and URLs of the images, without credentials."""
        return [clean_url(path) if is_url(path) else path for path in self.locations]


@dataclass(frozen=True)
class Outcome:
    """What a worker reports of a task.

    Attributes
    ----------
    worker : str
    error : FeatcacheError or None
        Why the extraction cannot go on.
    rows : int
        Number of rows that were computed and committed. All other views of the task's images
        were stored before, or are in `failures`.
    failures : tuple of dict of str to BadImage
        For each view, the reason of each image without a row, by example id.
    shards : tuple of dict of str to int
        For each view, the numbers of rows of shards that the client is to list, by name.
    tally : RowTally
        What is known of the computed rows.
    seconds : float
        Wall time.
    engine : str or None
        None if all rows were stored.
    timings : StageTimings
    """

    worker: str
    error: FeatcacheError | None = None
    rows: int = 0
    failures: tuple[dict[str, BadImage], ...] = ()
    shards: tuple[dict[str, int], ...] = ()
    tally: RowTally = field(default_factory=RowTally)
    seconds: float = 0.0
    engine: str | None = None
    timings: StageTimings = field(default_factory=StageTimings)


def version_error(worker: str, found: str | None, expected: str) -> WorkerRefused:
    """Return the error for a worker with another version of featcache, or without it."""
    reason = f"it has featcache {found}" if found else "featcache is not installed there"
    return WorkerRefused(
        f"The worker {worker} cannot be used: {reason}, and the client has {expected}. Install the "
        "same version on all workers.",
        worker=worker,
        reason=reason,
    )


def choose_task_size(images: int, threads: int, settings: RunSettings) -> int:
    """Return the number of images per task.

    Default: `MAX_TASK_IMAGES`, or down to `_MIN_TASK_IMAGES`, so that a slow worker leaves some to
    the others: Dask gives a worker as many tasks at a time as it has threads. With a batch size
    chosen by the user, tasks are whole batches: then the batches are those of an extraction
    without a cluster.

    Examples
    --------
    >>> settings = RunSettings("auto", 32, None, False, None)
    >>> choose_task_size(100_000, 2, settings), choose_task_size(1_000, 2, settings)
    (2048, 256)
    """
    size = settings.task_size
    if size is None:
        shared = math.ceil(images / (_TASKS_PER_THREAD * max(threads, 1)))
        size = max(_MIN_TASK_IMAGES, min(MAX_TASK_IMAGES, shared))
    batch = settings.batch_size or 1
    return math.ceil(size / batch) * batch


def make_tasks(
    run: str, jobs: Sequence[ExtractionJob], mark: str, settings: RunSettings, threads: int
) -> list[Task]:
    """Cut what the plans of all views list into tasks.

    Raises
    ------
    InvalidRequest
        If the images or the model are in the memory of this process.
    """
    first = jobs[0]
    dataset, request = first.dataset, first.resolved.request
    locations = dataset.source.locations
    if locations is None:
        raise InvalidRequest(
            "A cluster computes images that have a path or a URL, which workers read themselves; "
            f"those of {dataset.name!r} would have to be sent to them. Save them as files on a "
            "disk that all workers share, and pass that folder, or leave client= out.",
            received=dataset.name,
        )
    check_saved(request)
    items = Counter(position for job in jobs for position, _ in job.plan.compute)
    positions = sorted(items)
    whole = Task(
        run=run, number=0, version=__version__, backbone=request.backbone,
        options=_options(first), spec=replace(first.resolved.spec, views=View().key),
        views=tuple(job.view for job in jobs), cache=first.cache.url or first.cache.folder,
        mark=mark, locations=(), contents=(), boxes=None, crop=dataset.crop,
        settings=replace(settings, progress=False), images=sum(items.values()),
    )  # fmt: skip
    size = choose_task_size(len(positions), threads, settings)
    parts = [positions[start : start + size] for start in range(0, len(positions), size)]
    boxes = dataset.boxes
    return [
        replace(
            whole,
            number=number,
            locations=tuple(locations[i] for i in part),
            contents=tuple(str(first.contents[i].image_id) for i in part),
            boxes=None if boxes is None else tuple(boxes[i] for i in part),
            items=sum(items[i] for i in part),
            first=part[0],
        )
        for number, part in enumerate(parts)
    ]


def check_saved(request: Request) -> None:
    """Raise `InvalidRequest` if the backbone is a model in memory, which would have to be sent."""
    if isinstance(request, ModelRequest) and not isinstance(request.model, ModelFile):
        how = "model.save('model.keras')"
    elif isinstance(request, HubRequest) and isinstance(request.source, HubModel):
        how = "backbone.save_to_preset('folder')"
    else:
        return
    raise InvalidRequest(
        f"A cluster loads the model from a file, and {request.name!r} is a model in memory. Save "
        f"it on a disk that all workers share, with {how}, and pass that path as the backbone.",
        received=request.name,
    )


def _options(job: ExtractionJob) -> BackboneOptions:
    """Return the options by which a worker makes the same request."""
    request, spec = job.resolved.request, job.resolved.spec
    return BackboneOptions(
        # Weights without the top have another default layer, and a worker may have others.
        layer=request.layer if request.is_own else spec.layer,
        pooling=request.pooling,
        image_size=request.image_size,
        resize=request.resize,
        weights=_weights(request),
        preprocessing=request.preprocessing,
        precision=request.precision,
        row_dtype=request.row_dtype,
    )


def _weights(request: Request) -> str:
    """Return the argument ``weights=`` of a worker: a file that the user named, or its own."""
    weights = request.weights
    is_named = weights.path is not None and weights.path.parent != keras_models_folder()
    return str(weights.path) if weights.kind == "imagenet" and is_named else weights.argument
