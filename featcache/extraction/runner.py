"""The pipeline of an extraction: decode, run the backbone and commit, on separate threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._io.progress import ProgressBar, StageTimings
from ..data.dataset import Dataset
from ..data.file_index import FileIdentity
from ..data.sources import Read
from ..engines.engine import Engine
from ..images.decode import Pixels, Resize, pixels_of
from ..images.image_file import BadImage, check_content
from ..images.limits import MemoryBudget
from ..images.views import View
from ..store.store import Store
from .pipeline import Batch, batches
from .prepare import ExtractionJob
from .row_check import Check, unusable_reasons
from .shared_decode import SharedDecode

_MAX_WAITING = 1  # batches before the backbone; more would only take memory
# Batches that are computed quickly are committed together: a commit costs a file, two fsyncs
# and the merging of its shard at the end.
_COMMIT_INTERVAL_SECONDS = 1.0
# With many views a commit writes a file for each: then less often, but no more is at stake.
_MAX_COMMIT_INTERVAL_SECONDS = 10.0


class Item(NamedTuple):
    """One view of one image.

    Attributes
    ----------
    position : int
        Position of the image in the data set.
    image_id : str
        Its example id.
    view : int
        Position in `Work.views`.
    """

    position: int
    image_id: str
    view: int


@dataclass(frozen=True)
class Work:
    """The views of images to compute, and how to decode them.

    The views of one image follow each other, so that it is decoded once.
    """

    items: Sequence[Item]
    views: Sequence[View]
    dataset: Dataset
    contents: Sequence[FileIdentity]
    image_size: tuple[int, int]
    resize: Resize


def make_work(jobs: Sequence[ExtractionJob]) -> Work:
    """Return what the plans of all views list, with the views of each image side by side."""
    first = jobs[0]
    items = [
        Item(position, image_id, view)
        for view, job in enumerate(jobs)
        for position, image_id in job.plan.compute
    ]
    spec, request = first.resolved.spec, first.resolved.request
    return Work(
        sorted(items, key=lambda item: item.position) if len(jobs) > 1 else items,
        [job.view for job in jobs],
        first.dataset,
        first.contents,
        spec.image_size,
        request.resize,
    )


class Computation:
    """Computes the rows of images, commits them to the stores and records the failures.

    Parameters
    ----------
    work : Work
    engine : Engine
    stores : sequence of Store
        The store of each view.
    bar : progress bar
        Counts the items that are done: committed or failed.
    check : Check, optional
        Checks the rows of each batch.
    commit_seconds : float, optional
        Seconds between commits, unless the user has chosen a batch size. Default: 1 per view, at
        most 10.

    Attributes
    ----------
    failures : list of dict of str to BadImage
        For each view, the reason of each image that cannot be used, by example id.
    timings : StageTimings
        Seconds that each stage worked.
    """

    def __init__(
        self,
        work: Work,
        engine: Engine,
        stores: Sequence[Store],
        bar: ProgressBar,
        check: Check | None = None,
        commit_seconds: float | None = None,
    ) -> None:
        self.work, self.engine, self.stores, self._bar = work, engine, stores, bar
        self._check = check
        self._unusable: list[tuple[Item, BadImage]] = []
        self.failures: list[dict[str, BadImage]] = [{} for _ in work.views]
        self.timings = StageTimings()
        self._computed: list[tuple[NDArray[np.float32], list[Item]]] = []  # not committed yet
        self._read: Read = work.dataset.source.read
        self._decoded = SharedDecode(self._decode, [item.position for item in work.items])
        self._interval = commit_seconds or min(
            _COMMIT_INTERVAL_SECONDS * len(work.views), _MAX_COMMIT_INTERVAL_SECONDS
        )
        self._lock = threading.Lock()
        self._memory = MemoryBudget()
        self._versions = engine.provenance()
        self._since = time.perf_counter()

    def run(self, workers: int) -> None:
        """Compute and commit all rows.

        Parameters
        ----------
        workers : int
            Number of decoding threads.

        Raises
        ------
        StoreWriteError, OutOfMemory, InvalidRequest
            If a stage fails, or no row can be stored. Rows that are already computed are committed
            first.
        KeyboardInterrupt
            On Ctrl-C, once the batch that is in the backbone is committed.
        """
        try:
            self._run(workers)
        finally:
            # Without any usable row the model is at fault, not the images.
            if self._check is None or self._check.any_usable:
                for item, reason in self._unusable:
                    self.failures[item.view][item.image_id] = reason
        if self._check is not None:
            self._check.finish()

    def _run(self, workers: int) -> None:
        stream = batches(self.work.items, self._load, lambda: self.engine.batch_size, workers)
        with ExitStack() as stack:
            positions = list(dict.fromkeys(item.position for item in self.work.items))
            self._read = stack.enter_context(self.work.dataset.source.reading(positions))
            stack.callback(self._flush)
            committer = stack.enter_context(ThreadPoolExecutor(1, "featcache-commit"))
            forward = ThreadPoolExecutor(self.engine.parallel, "featcache-forward")
            most = self.engine.parallel + _MAX_WAITING
            # Runs in reverse order, also on Ctrl-C and on an error: stop decoding, cancel the
            # batches that wait for the backbone, commit all rows that were computed.
            stack.callback(forward.shutdown, wait=True, cancel_futures=True)
            stack.callback(stream.close)
            pending: deque[Future[None]] = deque()
            for batch in stream:
                rows = forward.submit(self._forward, batch)
                pending.append(committer.submit(self._commit, batch, rows))
                if len(pending) > most:
                    pending.popleft().result()
            while pending:
                pending.popleft().result()

    def _load(self, item: Item) -> Pixels:
        pixels = self._decoded.get(item.position)
        view = self.work.views[item.view]
        if view.is_plain:
            return pixels
        height, width = pixels.shape[:2]
        with self._memory.reservation() as held:
            held.for_decoding(0, view.working_bytes(height, width, item.image_id))
            started = time.perf_counter()
            augmented = view.apply(pixels, item.image_id)
        with self._lock:
            self.timings.decode += time.perf_counter() - started
        return augmented

    def _decode(self, position: int) -> Pixels:
        started = time.perf_counter()
        file = self.work.contents[position]
        with self._memory.reservation() as held:
            data = self._read(position, held.for_file)
            check_content(data, str(file.image_id))
            read = time.perf_counter()
            try:
                box = self.work.dataset.box(position)
                return pixels_of(data, self.work.image_size, self.work.resize, box, held)
            finally:
                ended = time.perf_counter()
                with self._lock:  # several threads decode
                    self.timings.read += read - started
                    self.timings.decode += ended - read

    def _forward(self, batch: Batch[Item]) -> NDArray[np.float32] | None:
        if not batch.items:
            return None
        started = time.perf_counter()
        rows = self.engine.embed(batch.pixels)
        with self._lock:  # one thread per device, or more
            self.timings.forward += time.perf_counter() - started
        return rows

    def _commit(self, batch: Batch[Item], computed: Future[NDArray[np.float32] | None]) -> None:
        for item, failure in batch.failures:
            self.failures[item.view][item.image_id] = failure
        self._bar.update(len(batch.failures))
        if computed.cancelled():
            return
        rows = computed.result()
        if rows is not None and self._check is not None:
            self._check.update(rows)
        if rows is not None:
            self._computed.append((rows, batch.items))
        elapsed = time.perf_counter() - self._since
        if self.engine.commits_each_batch or elapsed >= self._interval:
            self._flush()

    def _flush(self) -> None:
        """Commit the rows that were computed since the last commit."""
        computed, self._computed = self._computed, []
        if computed:
            rows = np.concatenate([rows for rows, _ in computed])
            items = [item for _, several in computed for item in several]
            self._append(rows, items)
            self._bar.update(len(rows))

    def _append(self, rows: NDArray[np.float32], items: Sequence[Item]) -> None:
        started = time.perf_counter()
        seconds_per_row = (started - self._since) / len(rows)
        self._since = started
        self._unusable += self._store(self.stores, rows, items, seconds_per_row)
        self.timings.write += time.perf_counter() - started

    def _store(
        self,
        stores: Sequence[Store],
        rows: NDArray[np.float32],
        items: Sequence[Item],
        seconds_per_row: float,
    ) -> list[tuple[Item, BadImage]]:
        """Commit rows to the stores of their views; return what cannot be stored, and why."""
        reasons = unusable_reasons(rows, stores[0].dtype)  # that of all views
        usable = np.array([why is None for why in reasons])
        views = np.array([item.view for item in items])
        for view in np.unique(views):
            chosen = np.flatnonzero((views == view) & usable)
            if len(chosen):
                seconds = seconds_per_row * np.count_nonzero(views == view)
                metadata = {**self._versions, "seconds": f"{seconds:.6f}"}
                ids = [items[i].image_id for i in chosen.tolist()]
                stores[view].append(rows[chosen], ids, metadata)
        return [(item, BadImage(why)) for item, why in zip(items, reasons, strict=True) if why]
