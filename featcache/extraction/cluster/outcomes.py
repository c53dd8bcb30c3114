"""What the tasks of an extraction on a cluster came to, put together by the client."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from ..._io.progress import ProgressBar, StageTimings
from ..._io.wording import first_line, format_count, format_values
from ...errors import ClusterError, WorkerRefused
from ...images.image_file import BadImage, check_content
from ...store.place import Listing
from ...store.store import Store
from ..compute import Computed, quarantine_failures
from ..prepare import ExtractionJob
from ..row_check import RowCheck, warn_if_probabilities
from ..summary import WorkerSummary
from .tasks import Outcome, Task

# A network disk shows the files of another machine after a minute at most.
VISIBLE_SECONDS = 90.0


class Outcomes:
    """Adds up the outcomes of tasks.

    Parameters
    ----------
    jobs : sequence of ExtractionJob
    bar : ProgressBar
        Counts the views of images that are done.
    listers : sequence of callable
        List the shards of each view, of stores where they are not found without being listed.
    """

    def __init__(
        self, jobs: Sequence[ExtractionJob], bar: ProgressBar, listers: Sequence[Listing]
    ) -> None:
        self._jobs, self._bar, self._listers = jobs, bar, listers
        self._wanted = [{image_id for _, image_id in job.plan.compute} for job in jobs]
        self._failures: list[dict[str, BadImage]] = [{} for _ in jobs]
        stored = sum(len(job.store) for job in jobs if job.store is not None)
        self._check = RowCheck(jobs[0].resolved, stored)
        self._lost: list[tuple[Task, Exception]] = []
        self._done: dict[int, int] = {}
        self._workers: dict[str, WorkerSummary] = {}
        self._engines: dict[str, None] = {}
        self._timings = StageTimings()
        self._lock = threading.Lock()

    def progress(
        self, number: int, done: int, view: int = 0, shards: Mapping[str, int] | None = None
    ) -> None:
        """Note how many views of a task are done, and its new shards; called in several threads.

        A task that another worker begins again counts from where the first one was.
        """
        self._listers[view](shards or {})
        with self._lock:
            before = self._done.get(number, 0)
            if done > before:
                self._done[number] = done
                self._bar.update(done - before)

    def add(self, task: Task, outcome: Outcome | Exception) -> None:
        """Add the outcome of a task.

        Raises
        ------
        FeatcacheError
            If the extraction cannot go on.
        """
        if isinstance(outcome, Exception):
            self._lost.append((task, outcome))
            return
        if outcome.error is not None:
            raise outcome.error
        self._check_reads(task, outcome)
        for mine, theirs, wanted in zip(
            self._failures, outcome.failures, self._wanted, strict=True
        ):
            mine.update({i: bad for i, bad in theirs.items() if i in wanted})
        for listing, shards in zip(self._listers, outcome.shards, strict=False):
            listing(shards)
        self._count(outcome)
        self.progress(task.number, task.items)
        self._check.add(outcome.tally)

    def _count(self, outcome: Outcome) -> None:
        if outcome.engine is None:
            return
        self._engines[outcome.engine] = None
        for stage, seconds in vars(outcome.timings).items():
            setattr(self._timings, stage, getattr(self._timings, stage) + seconds)
        before = self._workers.get(outcome.worker, WorkerSummary(outcome.worker, 0, 0.0))
        self._workers[outcome.worker] = WorkerSummary(
            outcome.worker, before.images + outcome.rows, before.seconds + outcome.seconds
        )

    def _check_reads(self, task: Task, outcome: Outcome) -> None:
        """Raise `WorkerRefused` if a worker could read no image of a task, and this process can.

        It lacks a disk, and would leave out the images of all tasks that it gets.
        """
        bad = [bad for failures in outcome.failures for bad in failures.values()]
        if len(bad) < task.items or any(one.lasting for one in bad):
            return
        dataset = self._jobs[0].dataset
        try:
            check_content(dataset.source.read(task.first), task.contents[0])
        except BadImage:
            return  # it was removed, or its server is down: as without a cluster
        raise WorkerRefused(
            f"The worker {outcome.worker} could read none of {format_count(len(bad), 'image')}, "
            f"such as {task.names[0]}, which {bad[0].reason} there; this client can. Give it the "
            "same disks under the same paths, and access to the same servers.",
            worker=outcome.worker,
            reason=bad[0].reason,
        )

    def finish(self) -> None:
        """Check the extraction as a whole, after its last task.

        Raises
        ------
        NoFiniteRow
            If the model gives no row that can be stored.
        ClusterError
            If tasks ended without an outcome.
        """
        self._check.finish()
        if not self._lost:
            return
        names = [name for task, _ in self._lost for name in task.names]
        error = self._lost[0][1]
        raise ClusterError(
            f"{format_count(len(names), 'image')} could not be computed: {format_values(names)}. "
            f"{format_count(len(self._lost), 'task')} of the cluster failed several times, for the "
            f"reason {type(error).__name__}: {first_line(error)}. The rows of all other tasks are "
            "kept. If workers are killed, their memory may be too small: see their logs.",
            reason=first_line(error),
            images=names,
        ) from error

    def quarantine(self) -> None:
        """Commit the failures that would happen again to the quarantine lists of the stores."""
        if not self._check.any_usable:
            return  # the model may be at fault, and not the images
        for job, failures in zip(self._jobs, self._failures, strict=True):
            lasting = any(bad.lasting for bad in failures.values())
            store = job.open_store() if lasting else None
            if store is not None:
                quarantine_failures(store, failures)

    def complete(self) -> None:
        """Check that all rows can be read here, list the shards, and merge small ones."""
        for job, failures in zip(self._jobs, self._failures, strict=True):
            ids = [image_id for _, image_id in job.plan.compute if image_id not in failures]
            if not ids:
                continue
            store = _store_with(job, ids)
            if job is self._jobs[0]:
                warn_if_probabilities(job.resolved, lambda: store.read(ids[:32]))  # noqa: B023
            job.place.complete(store)

    def computed(self) -> Computed:
        """Return all that came of the tasks."""
        engine = ", ".join(self._engines) or None
        workers = sorted(self._workers.values(), key=lambda worker: worker.name)
        return Computed(self._failures, engine, self._timings, workers)


def _store_with(job: ExtractionJob, ids: Sequence[str]) -> Store:
    """Return a store once the rows that workers have committed can be seen."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    while True:
        store = job.open_store()
        if store is not None and store.contains(ids).all():
            return store
        if time.monotonic() > deadline:
            raise ClusterError(
                f"Workers have committed {format_count(len(ids), 'row')} to "
                f"{job.place.location}, and this client cannot see all of them. Choose a cache_dir "
                "on a disk or in an object store that all share.",
                reason="rows cannot be seen",
            )
        time.sleep(0.5)
