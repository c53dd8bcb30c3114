"""Compute what the plans of an extraction list: choose the engine, fill the stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .._io import cache_dirs
from .._io.logs import get_logger
from .._io.progress import StageTimings, progress_bar
from ..backbones.resolve import BuiltBackbone, build
from ..backbones.spec import EngineName
from ..engines.devices import Devices, parse_devices
from ..engines.engine import Engine
from ..engines.select import EngineRequest, load_converted_engine, make_engine
from ..errors import InvalidRequest
from ..images.image_file import BadImage
from ..store.store import Store
from .pipeline import default_workers
from .prepare import ExtractionJob, plan_again
from .row_check import RowCheck
from .runner import Computation, make_work
from .summary import WorkerSummary

log = get_logger(__name__)


@dataclass(frozen=True)
class RunSettings:
    """Arguments of `extract` that change no feature.

    Attributes
    ----------
    engine : {"auto", "openvino", "keras", "tensorflow", "onnxruntime"}
    batch_size, workers : int or None
    retry_failed : bool
    progress : bool or None
    task_size : int or None
        Images per task of a cluster.
    devices : "auto", int, str, sequence of str or None

    Raises
    ------
    InvalidRequest
        If a number is neither None nor a whole number from 1, or `devices` names no devices.
    """

    engine: EngineName
    batch_size: int | None
    workers: int | None
    retry_failed: bool
    progress: bool | None
    task_size: int | None = None
    devices: Devices | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "task_size"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InvalidRequest(
                    f"{name}={value!r} must be a whole number from 1.", received=value
                )
        parse_devices(self.devices)


@dataclass(frozen=True)
class Computed:
    """What came of the views of images that the plans of an extraction list.

    Attributes
    ----------
    failures : sequence of mapping of str to BadImage
        For each view, the reason of each image without a row, by example id.
    engine : str or None
        Its name; of several, the names separated by commas. None if nothing was left to compute.
    timings : StageTimings
    workers : sequence of WorkerSummary
        Of a cluster.
    """

    failures: Sequence[Mapping[str, BadImage]]
    engine: str | None
    timings: StageTimings
    workers: Sequence[WorkerSummary] = ()


def choose_engine(
    jobs: list[ExtractionJob], settings: RunSettings, images: int | None = None
) -> tuple[list[ExtractionJob], Engine]:
    """Return the engine, and the jobs with a backbone if the engine needed one to be built.

    Parameters
    ----------
    jobs : list of ExtractionJob
    settings : RunSettings
    images : int, optional
        Number of views that the engine will compute in all. Default: those of the jobs.
    """
    resolved, cache = jobs[0].resolved, jobs[0].cache.folder
    count = sum(len(job.plan.compute) for job in jobs) if images is None else images
    request = EngineRequest(
        settings.engine, resolved.request, resolved.spec, cache, count, settings.batch_size,
        parse_devices(settings.devices),
    )  # fmt: skip
    engine = load_converted_engine(request)
    if engine is not None:
        return jobs, engine
    if not isinstance(resolved, BuiltBackbone):
        resolved = build(resolved.request, cache_dirs.weights_folder(cache))
        jobs = [_with_backbone(job, resolved, settings.retry_failed) for job in jobs]
    return jobs, make_engine(replace(request, spec=resolved.spec), resolved.backbone)


def _with_backbone(
    job: ExtractionJob, resolved: BuiltBackbone, retry_failed: bool
) -> ExtractionJob:
    """Add the backbone; plan again if its weights differ from those of the plan."""
    spec = replace(resolved.spec, views=job.view.key)
    if spec == job.resolved.spec:
        return replace(job, resolved=replace(resolved, spec=spec))
    # The cached hash was wrong: a weights file may be replaced within a tick of the clock.
    return plan_again(job, resolved, retry_failed)


def compute(jobs: list[ExtractionJob], engine: Engine, settings: RunSettings) -> Computed:
    """Compute and commit the views of images that the plans list."""
    resolved = jobs[0].resolved
    work = make_work(jobs)
    if len(jobs) > 1:
        check_disk([(jobs, engine.width)])
    stores = create_stores(jobs, engine.width)
    images = "images" if len(jobs) == 1 else "views"
    with progress_bar(len(work.items), resolved.request.name, images, settings.progress) as bar:
        check = RowCheck(resolved, sum(map(len, stores)))
        computation = Computation(work, engine, stores, bar, check, jobs[0].place.commit_seconds)
        try:
            computation.run(settings.workers or default_workers(engine.devices))
        except KeyboardInterrupt:
            log.warning("Interrupted. Committed rows are kept; the same call resumes.")
            raise
        finally:
            for store, failures in zip(stores, computation.failures, strict=True):
                quarantine_failures(store, failures)
    for job, store in zip(jobs, stores, strict=True):
        if job.plan.compute:
            job.place.complete(store)
    return Computed(computation.failures, engine.name, computation.timings)


def create_stores(jobs: Sequence[ExtractionJob], width: int) -> list[Store]:
    """Return the store of each view, ready for rows of `width` values.

    The remembered width is for estimates alone; the engine knows the real one.
    """
    metadata = jobs[0].resolved.request.metadata()
    return [
        job.place.create(job.resolved.spec, width, metadata)
        if job.plan.compute or job.store is None
        else job.store
        for job in jobs
    ]


def quarantine_failures(store: Store, failures: Mapping[str, BadImage]) -> None:
    """Commit the failures that would happen again to the quarantine list of a store."""
    store.add_to_quarantine({i: bad.reason for i, bad in failures.items() if bad.lasting})


def check_disk(several: Sequence[tuple[Sequence[ExtractionJob], int]]) -> None:
    """Raise `StoreWriteError` if the rows do not fit on the disk.

    Parameters
    ----------
    several : sequence of (sequence of ExtractionJob, int)
        The jobs of all views, and the width of their rows, of each layer.
    """
    rows = sum(len(job.plan.compute) for jobs, _ in several for job in jobs)
    job = several[0][0][0]
    size = sum(
        len(job.plan.compute) * job.resolved.spec.row_bytes(width)
        for jobs, width in several
        for job in jobs
    )
    one_number = job.resolved.spec.row_bytes(1)
    what = (
        f"{rows:,} rows of {len(several)} layers"
        if len(several) > 1
        else f"{rows:,} views of images ({several[0][1]:,} numbers of {one_number} bytes each)"
    )
    job.place.check_space(
        size, f"{what} need", "Use fewer views, a smaller layer, or another cache_dir."
    )
