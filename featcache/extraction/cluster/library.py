"""The only module that imports Dask: clients, tasks and their futures, and what a worker is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distributed import Client, KilledWorker, as_completed, get_worker

from ..._io.progress import ProgressBar
from ..._io.wording import first_line
from ...errors import ClusterError, InvalidRequest
from .tasks import Outcome, Task

# An unexpected error, such as one of a network disk, may not happen again.
RETRIES = 2
_PACKAGE = "featcache"


class TaskCancelled(Exception):
    """The client does not want the rows of a task any more."""


class Connection:
    """The cluster of a client.

    Parameters
    ----------
    client : distributed.Client

    Raises
    ------
    InvalidRequest
        If it is no client, or one for asynchronous code.
    """

    def __init__(self, client: object) -> None:
        if not isinstance(client, Client) or client.asynchronous:
            kind = "an asynchronous client" if isinstance(client, Client) else repr(client)
            raise InvalidRequest(
                f"client= is {kind}; pass a distributed.Client, such as "
                "Client('tcp://scheduler:8786') or Client(LocalCluster()).",
                received=client,
            )
        self._client = client

    def count_threads(self) -> list[int]:
        """Return the number of threads of each worker at the moment."""
        return list(self._ask(self._client.nthreads).values())

    def worker_versions(self) -> dict[str, str | None]:
        """Return the version of featcache of each worker; None without featcache."""

        # Dask sends a local function as code: one of a module would have to be there already.
        def version() -> str | None:
            try:
                from featcache._version import __version__
            except ImportError:
                return None
            return __version__

        found = self._ask(lambda: self._client.run(version, on_error="return"))
        # A worker that has just ended answers with an error.
        return {worker: v for worker, v in found.items() if not isinstance(v, Exception)}

    def run(
        self,
        function: Callable[[Task], Outcome],
        tasks: Sequence[Task],
        on_progress: Callable[..., None],
    ) -> Iterator[tuple[Task, Outcome | Exception]]:
        """Run tasks on the workers, and yield each with its outcome or error once it has ended.

        When the caller stops early, as on an error or Ctrl-C, the other tasks are cancelled.
        Tasks that failed because several of their workers ended run again after all others, one at
        a time. The error is only that of the second time.

        Parameters
        ----------
        function : callable
            Importable on the workers.
        tasks : sequence of Task
        on_progress : callable
            Called in another thread with the number of a task and of its views that are done; and
            with what the task reports.

        Raises
        ------
        ClusterError
            If the scheduler is lost.
        """
        topic = tasks[0].run
        self._client.subscribe_topic(topic, lambda event: on_progress(*event[1]))
        futures: dict[Any, Task] = {}

        def completed(tasks: Sequence[Task], attempt: str = "") -> Iterator[tuple[Task, Any]]:
            for task in tasks:
                key = f"{topic}-{task.number}{attempt}"
                futures[self._client.submit(function, task, key=key, retries=RETRIES)] = task
            for future in as_completed(list(futures), loop=self._client.loop):
                yield futures.pop(future), self._outcome(future)

        blamed: list[Task] = []
        try:
            for task, outcome in completed(tasks):
                if isinstance(outcome, KilledWorker):
                    blamed.append(task)
                else:
                    yield task, outcome
            # Dask blames all tasks that a worker had when it ended, also those that only waited.
            for task in blamed:
                yield from completed([task], "-alone")
        finally:
            # Without its scheduler a client can only fail here.
            with contextlib.suppress(Exception):
                self._client.cancel(list(futures), force=True)
                self._client.unsubscribe_topic(topic)

    def _outcome(self, future: Any) -> Outcome | Exception:
        try:
            outcome: Outcome = future.result()
        except Exception as error:
            if future.status == "error":  # the task's own
                return error
            raise _lost_scheduler(error) from error
        return outcome

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Return the answer of the scheduler; raise `ClusterError` if it is lost."""
        try:
            return question()
        except Exception as error:  # of Dask, its network library or the system
            raise _lost_scheduler(error) from error


def _lost_scheduler(error: Exception) -> ClusterError:
    reason = first_line(error)
    return ClusterError(
        f"The scheduler of the cluster cannot be reached: {reason}. Committed rows are kept; start "
        "the cluster again, and the same call computes the others.",
        reason=reason,
    )


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Context manager with a client of the scheduler at an address.

    Raises
    ------
    ClusterError
        If there is none.
    """
    try:
        client = Client(address, name=_PACKAGE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"There is no scheduler at {address}: {first_line(error)}. Start one with `dask "
            "scheduler`, which prints its address, such as tcp://10.0.0.1:8786.",
            reason=first_line(error),
        ) from error
    with client:
        yield client


@dataclass(frozen=True)
class ThisWorker:
    """The worker that runs the present task.

    Attributes
    ----------
    name : str
    threads : int
        Number of threads that Dask gives it.
    bar : ProgressBar
        Reports the progress of the task to the client.
    report : callable
        Tells the client something.
    """

    name: str
    threads: int
    bar: ProgressBar
    report: Callable[..., None]


class _Reporter:
    """A progress bar that is shown elsewhere, and stops a task that was cancelled."""

    def __init__(self, worker: Any, task: Task) -> None:
        self.n: float = 0
        self._worker, self._task = worker, task
        self._key = worker.get_current_task()

    def update(self, n: float = 1, /) -> None:
        self.n += n
        if n:
            self.report()
        known = self._worker.state.tasks.get(self._key)
        if known is None or known.state == "cancelled":
            raise TaskCancelled(self._key)

    def report(self, *what: object) -> None:
        """Tell the client something, with the progress of the task."""
        self._worker.log_event(self._task.run, [self._task.number, int(self.n), *what])

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> _Reporter:
        return self

    def __exit__(self, *details: object) -> None: ...


def this_worker(task: Task) -> ThisWorker:
    """Return the worker that runs this task."""
    worker = get_worker()
    name = worker.address if worker.name is None else f"{worker.name} ({worker.address})"
    reporter = _Reporter(worker, task)
    return ThisWorker(name, worker.state.nthreads, reporter, reporter.report)
