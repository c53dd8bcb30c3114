"""The pipeline of an extraction: decode, run the backbone and commit, on separate threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.progress import StageTimings
from ..data.dataset import Dataset
from ..data.file_index import FileIdentity
from ..engines.select import Engine
from ..images.decode import Pixels, Resize, pixels_of
from ..images.image_file import BadImage, read_expected
from ..images.limits import MemoryBudget
from ..store.store import Store
from .pipeline import Batch, batches
from .row_check import RowCheck

Item = tuple[int, str]  # position in the data set, and example id
_MAX_IN_FLIGHT = 2  # batches in the backbone or before it; more would only take memory
# Batches that are computed quickly are committed together: a commit costs a file, two fsyncs
# and the merging of its shard at the end.
_COMMIT_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True)
class Work:
    """The images to compute, and how to decode them."""

    items: Sequence[Item]
    dataset: Dataset
    contents: Sequence[FileIdentity]
    image_size: tuple[int, int]
    resize: Resize


class Computation:
    """Computes the rows of images, commits them to a store and records the failures.

    Parameters
    ----------
    work : Work
    engine : Engine
    store : Store
    bar : progress bar
        Counts the images that are done: committed or failed.
    check : RowCheck, optional
        Checks the rows of each batch.

    Attributes
    ----------
    failures : dict of str to BadImage
        The reason for each image that cannot be used, by example id.
    timings : StageTimings
        Seconds that each stage worked.
    """

    def __init__(
        self, work: Work, engine: Engine, store: Store, bar: Any, check: RowCheck | None = None
    ) -> None:
        self.work, self.engine, self.store, self._bar = work, engine, store, bar
        self._check = check
        self._not_finite: dict[str, BadImage] = {}
        self.failures: dict[str, BadImage] = {}
        self.timings = StageTimings()
        self._computed: list[tuple[NDArray[np.float32], list[str]]] = []  # not committed yet
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
            If a stage fails, or no row is finite. Rows that are already computed are committed
            first.
        KeyboardInterrupt
            On Ctrl-C, once the batch that is in the backbone is committed.
        """
        try:
            self._run(workers)
        finally:
            # Without any finite row the model is at fault, not the images.
            if self._check is None or self._check.any_finite:
                self.failures.update(self._not_finite)
        if self._check is not None:
            self._check.finish()

    def _run(self, workers: int) -> None:
        stream = batches(self.work.items, self._load, lambda: self.engine.batch_size, workers)
        with ExitStack() as stack:
            stack.callback(self._flush)
            committer = stack.enter_context(ThreadPoolExecutor(1, "featcache-commit"))
            forward = ThreadPoolExecutor(1, "featcache-forward")
            # Runs in reverse order, also on Ctrl-C and on an error: stop decoding, cancel the
            # batches that wait for the backbone, commit all rows that were computed.
            stack.callback(forward.shutdown, wait=True, cancel_futures=True)
            stack.callback(stream.close)
            pending: deque[Future[None]] = deque()
            for batch in stream:
                rows = forward.submit(self._forward, batch)
                pending.append(committer.submit(self._commit, batch, rows))
                if len(pending) > _MAX_IN_FLIGHT:
                    pending.popleft().result()
            while pending:
                pending.popleft().result()

    def _load(self, item: Item) -> Pixels:
        position = item[0]
        started = time.perf_counter()
        file = self.work.contents[position]
        with self._memory.reservation() as held:
            path, image_id = self.work.dataset.paths[position], str(file.image_id)
            data = read_expected(path, image_id, held.for_file)
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
        self.timings.forward += time.perf_counter() - started
        return rows

    def _commit(self, batch: Batch[Item], computed: Future[NDArray[np.float32] | None]) -> None:
        self.failures.update({item[1]: failure for item, failure in batch.failures})
        self._bar.update(len(batch.failures))
        if computed.cancelled():
            return
        rows = computed.result()
        if rows is not None and self._check is not None:
            self._check.update(rows)
        if rows is not None:
            self._computed.append((rows, [item[1] for item in batch.items]))
        elapsed = time.perf_counter() - self._since
        if self.engine.commits_each_batch or elapsed >= _COMMIT_INTERVAL_SECONDS:
            self._flush()

    def _flush(self) -> None:
        """Commit the rows that were computed since the last commit."""
        computed, self._computed = self._computed, []
        if computed:
            rows = np.concatenate([rows for rows, _ in computed])
            self._append(rows, [name for _, ids in computed for name in ids])
            self._bar.update(len(rows))

    def _append(self, rows: NDArray[np.float32], ids: list[str]) -> None:
        finite = np.isfinite(rows).all(axis=1)
        for i in np.flatnonzero(~finite):
            self._not_finite[ids[i]] = BadImage(
                "the backbone gives values for it that are not finite"
            )
        started = time.perf_counter()
        metadata = {**self._versions, "seconds": f"{started - self._since:.6f}"}
        self._since = started
        if finite.any():
            keep = np.flatnonzero(finite)
            self.store.append(rows[keep], [ids[i] for i in keep], metadata)
        self.timings.write += time.perf_counter() - started
