"""What a worker of a cluster does with a task: check, compute and commit."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._io import cache_dirs
from ..._version import __version__
from ...backbones.request import make_request
from ...backbones.resolve import ResolvedBackbone, resolve
from ...backbones.spec import BackboneSpec, differing
from ...data.dataset import Dataset
from ...data.file_index import FileIdentity
from ...data.remote import remote_source
from ...engines.engine import Engine
from ...errors import FeatcacheError, StoreError, WorkerRefused
from ...hdf5.row_dtype import row_dtype
from ...images.image_file import BadImage
from ...images.views import View
from ...store.place import Place
from ...store.store import Store
from ..compute import choose_engine, create_stores
from ..prepare import Cache, ExtractionJob, make_examples, make_job
from ..row_check import RowTally
from ..runner import Computation, make_work
from .library import ThisWorker, this_worker
from .tasks import Outcome, Task, version_error

# A network disk shows a new file after a while.
MARK_SECONDS = 30.0
# Many workers would make a great many small shards, each of which all of them have to look at.
COMMIT_SECONDS = 30.0


class _Loaded:
    """The engine and the stores of a process, which are kept for the next task of the same key.

    One engine at a time: two would share memory and cores, and compute no more.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._of: tuple[Any, ...] = ()
        self._resolved: ResolvedBackbone | None = None
        self._engine: Engine | None = None
        self._stores: dict[Path | str, Store] = {}  # by location

    def resolve(self, task: Task, worker: ThisWorker) -> ResolvedBackbone:
        """Return the backbone as this worker finds it, which must be the client's."""
        if self._resolved is None or self._of != _identity(task):
            self._resolved = self._engine = None  # before another one is loaded
            self._stores = {}
            request = make_request(task.backbone, task.options)
            request = replace(request, crop=task.crop)
            found = resolve(request, cache_dirs.weights_folder(_cache(task).folder))
            _check_spec(task, worker, found.spec)
            self._resolved, self._of = found, _identity(task)
        return self._resolved

    def engine(
        self, task: Task, worker: ThisWorker, jobs: list[ExtractionJob]
    ) -> tuple[list[ExtractionJob], Engine]:
        """Return the engine, loaded if necessary, and the jobs with the backbone it runs."""
        if self._engine is None:
            jobs, engine = choose_engine(jobs, task.settings, task.images)
            resolved = jobs[0].resolved
            _check_spec(task, worker, replace(resolved.spec, views=task.spec.views))
            self._engine = engine
        return jobs, self._engine

    def store(self, place: Place) -> Store | None:
        """Return a store that is open, with the commits of others; None if it is not."""
        store = self._stores.get(place.location)
        if store is not None:
            try:
                place.refresh(store)  # which reads new shards only
            except StoreError:  # it was removed after an earlier extraction
                self._stores, store = {}, None
        return store

    def stores(self, jobs: Sequence[ExtractionJob], engine: Engine) -> list[Store]:
        """Return the store of each view, ready for rows."""
        places = [job.place.location for job in jobs]
        if any(place not in self._stores for place in places):
            self._stores = dict(zip(places, create_stores(jobs, engine.width), strict=True))
        return [self._stores[place] for place in places]


_LOADED = _Loaded()


def _identity(task: Task) -> tuple[Any, ...]:
    return task.spec, task.cache, task.settings.engine, task.settings.batch_size


def run_task(task: Task) -> Outcome:
    """Compute and commit the rows of a task; the function that Dask calls.

    Errors that no other attempt would avoid are part of the outcome. Others are raised, and Dask
    tries again.
    """
    worker = this_worker(task)
    try:
        if task.version != __version__:
            raise version_error(worker.name, __version__, task.version)
        _check_disk(task, worker)
        with _LOADED.lock:
            worker.bar.update(0)  # raises if the task was cancelled while it waited
            return _compute(task, worker)
    except WorkerRefused as error:
        return Outcome(worker.name, error=error)
    except FeatcacheError as error:
        message = f"The worker {worker.name} cannot go on: {error.message}"
        return Outcome(worker.name, error=replace(error, message=message))


def _check_disk(task: Task, worker: ThisWorker) -> None:
    """Raise `WorkerRefused` unless the client's mark in the store can be seen."""
    deadline = time.monotonic() + MARK_SECONDS
    place = _cache(task).place(task.spec)
    while not place.sees(task.mark):
        if time.monotonic() > deadline:
            raise WorkerRefused(
                f"The worker {worker.name} cannot be used: it does not see {task.mark}, which the "
                f"client wrote for {place.location}. Choose a cache_dir on a disk that all workers "
                "have under the same path, or in an object store that they reach at the same "
                "endpoint.",
                worker=worker.name,
                reason="it does not see the cache folder of the client",
            )
        time.sleep(0.2)


def _check_spec(task: Task, worker: ThisWorker, found: BackboneSpec) -> None:
    names = differing(found, task.spec)
    if names:
        ours, theirs = found.all_values(), task.spec.all_values()
        values = "; ".join(f"{n} ({ours[n]} here, {theirs[n]} at the client)" for n in names)
        raise WorkerRefused(
            f"The worker {worker.name} cannot be used: its rows would have another key, which "
            f"differs in {values}. Give it the same weights and libraries as the client.",
            worker=worker.name,
            reason=f"another key: {', '.join(names)}",
        )


def _compute(task: Task, worker: ThisWorker) -> Outcome:
    started = time.perf_counter()
    resolved = _LOADED.resolve(task, worker)
    with ExitStack() as marks:
        for view in task.views:
            # The client's mark is gone if it was killed, and rows are committed until then.
            _place(task, resolved, view).mark(marks, append=True)
        # Planned after the marks: what an earlier attempt or another client stored stays stored.
        jobs = _jobs(task, resolved)
        failures = [
            {str(job.files[i].image_id): BadImage(why) for i, why in job.plan.quarantined.items()}
            for job in jobs
        ]
        if not any(job.plan.compute for job in jobs):
            return Outcome(worker.name, failures=tuple(failures))
        jobs, engine = _LOADED.engine(task, worker, jobs)
        stores = _LOADED.stores(jobs, engine)
        shards = tuple(
            _report(job.place, store, worker, view)
            for view, (job, store) in enumerate(zip(jobs, stores, strict=True))
        )
        tally = _Tally(row_dtype(task.spec.components()))
        computation = Computation(
            make_work(jobs), engine, stores, worker.bar, tally, COMMIT_SECONDS
        )
        computation.run(task.settings.workers or worker.threads)
    return Outcome(
        worker.name,
        rows=sum(len(job.plan.compute) for job in jobs) - sum(map(len, computation.failures)),
        failures=tuple(
            {**known, **new} for known, new in zip(failures, computation.failures, strict=True)
        ),
        shards=shards,
        tally=tally.tally,
        seconds=time.perf_counter() - started,
        engine=engine.name,
        timings=computation.timings,
    )


def _report(place: Place, store: Store, worker: ThisWorker, view: int) -> dict[str, int]:
    """Let the client list the shards of a view; return them, as they are added."""
    shards: dict[str, int] = {}

    def created(new: Mapping[str, int]) -> None:
        shards.update(new)
        worker.report(view, dict(new))  # at once, in case the task does not end

    place.list_through(store, created)
    return shards


def _cache(task: Task) -> Cache:
    """Return the caches of a worker, which has no shared one: what that holds is not in a task."""
    folder, url = cache_dirs.cache_folder(task.cache), cache_dirs.cache_url(task.cache)
    return Cache(folder, url, writer=task.writer)


def _place(task: Task, resolved: ResolvedBackbone, view: View) -> Place:
    return _cache(task).place(replace(resolved.spec, views=view.key))


def _jobs(task: Task, resolved: ResolvedBackbone) -> list[ExtractionJob]:
    source = remote_source(task.locations)
    dataset = Dataset(
        paths=task.locations if source is None else source.names,
        ids=task.contents,
        boxes=task.boxes,
        crop=task.crop,
        images=source,
    )
    contents = [FileIdentity(image_id) for image_id in task.contents]
    files = make_examples(dataset, contents)
    retry = task.settings.retry_failed
    return [
        make_job(
            dataset, contents, files, resolved, _cache(task), retry, view,
            store=_LOADED.store(_place(task, resolved, view)),
        )
        for view in task.views
    ]  # fmt: skip


class _Tally:
    """Counts rows as `RowCheck` does; whether the model is at fault is the client's to say."""

    any_usable = True

    def __init__(self, dtype: np.dtype[np.floating[Any]]) -> None:
        self.tally, self._dtype = RowTally(), dtype

    def update(self, rows: NDArray[np.float32]) -> None:
        self.tally.count(rows, self._dtype)

    def finish(self) -> None: ...
