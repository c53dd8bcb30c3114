"""The client's part of an extraction on a cluster: tasks out, outcomes in, the store completed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..._io.logs import get_logger
from ..._io.progress import progress_bar
from ..._io.wording import format_count, install_hint
from ..._version import __version__
from ...errors import MissingExtra
from ..compute import Computed, RunSettings
from ..prepare import ExtractionJob
from .outcomes import Outcomes
from .tasks import Task, make_tasks, version_error

if TYPE_CHECKING:
    from .library import Connection

log = get_logger(__name__)


class Cluster:
    """Computes what the plans of an extraction list on the workers of a cluster.

    Parameters
    ----------
    connection : Connection
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def compute(self, jobs: Sequence[ExtractionJob], settings: RunSettings) -> Computed:
        """Compute and commit the views of images that the plans list.

        Raises
        ------
        InvalidRequest
            If the images or the model are in the memory of this process.
        WorkerRefused, ClusterError
            If a worker would compute other rows; or if it or the scheduler is lost for good.
        StoreError
            If this process cannot write to the store.
        FeatcacheError
            Of a worker, of the type that it would have without a cluster.
        KeyboardInterrupt
            On Ctrl-C. Tasks are cancelled; committed rows stay.
        """
        with jobs[0].place.announced() as mark:
            tasks = self._tasks(jobs, mark, settings)
            self.check_versions()
            name = jobs[0].resolved.request.name
            images = "images" if len(jobs) == 1 else "views"
            with (
                progress_bar(tasks[0].images, name, images, settings.progress) as bar,
                ExitStack() as stack,
            ):
                listers = [stack.enter_context(job.place.lister()) for job in jobs]
                outcomes = Outcomes(jobs, bar, listers)
                try:
                    self._collect(tasks, outcomes)
                except KeyboardInterrupt:
                    log.warning("Interrupted. Committed rows are kept; the same call resumes.")
                    raise
                finally:
                    outcomes.quarantine()
            outcomes.complete()
        return outcomes.computed()

    def _tasks(self, jobs: Sequence[ExtractionJob], mark: str, settings: RunSettings) -> list[Task]:
        run = f"featcache-{uuid.uuid4().hex[:12]}"
        threads = self._connection.count_threads()
        tasks = make_tasks(run, jobs, mark, settings, sum(threads))
        log.info(
            "%s: %s for %s", jobs[0].resolved.request.name,
            format_count(len(tasks), "task"), format_count(len(threads), "worker"),
        )  # fmt: skip
        if not threads:
            log.warning("The cluster has no workers yet; the extraction begins when one joins.")
        return tasks

    def check_versions(self) -> None:
        """Raise `WorkerRefused` if a worker has another version, before anything is computed."""
        for worker, found in self._connection.worker_versions().items():
            if found != __version__:
                raise version_error(worker, found, __version__)

    def _collect(self, tasks: Sequence[Task], outcomes: Outcomes) -> None:
        from .worker import run_task

        for task, outcome in self._connection.run(run_task, tasks, outcomes.progress):
            outcomes.add(task, outcome)
        outcomes.finish()


def open_cluster(client: object) -> Cluster:
    """Return the cluster of a ``distributed.Client``.

    Raises
    ------
    MissingExtra
        If Dask is not installed.
    InvalidRequest
        If `client` is no client.
    """
    return Cluster(_library().Connection(client))


def check_cluster(client: object) -> None:
    """Check that a ``distributed.Client`` can be used, with the version of its workers.

    Raises
    ------
    MissingExtra
        If Dask is not installed.
    InvalidRequest
        If `client` is no client.
    WorkerRefused, ClusterError
        If a worker has another version of featcache, or the scheduler is lost.
    """
    open_cluster(client).check_versions()


@contextmanager
def connected(address: str) -> Iterator[object]:
    """Context manager with a client of the scheduler at an address, such as tcp://host:8786.

    Raises
    ------
    MissingExtra
        If Dask is not installed.
    ClusterError
        If there is no scheduler.
    """
    with _library().connected(address) as client:
        yield client


def _library() -> Any:
    try:
        from . import library
    except ImportError as error:
        raise MissingExtra(
            f"A cluster needs Dask: {install_hint('dask')}", package="distributed"
        ) from error
    return library
