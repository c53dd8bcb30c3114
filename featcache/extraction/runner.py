"""Decoding, the forward pass and the commits, each on threads of its own, side by side."""

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
from ..images.decode import Pixels, Resize, pixels_of, reservation
from ..images.image_file import BadImage, read_expected
from ..store.store import Store
from .pipeline import Batch, batches
from .row_check import RowCheck

Item = tuple[int, str]  # position in the data set, and id of the row
_IN_FLIGHT = 2  # batches in the backbone or before it; more would only fill the memory
# Quick batches wait for each other, since a commit costs a file, two syncs and its part of the
# merging at the end. What takes longer than this by itself does not wait.
_SECONDS_A_COMMIT = 1.0


@dataclass(frozen=True)
class Work:
    """Images to compute, and what turns one into pixels."""

    items: Sequence[Item]
    dataset: Dataset
    contents: Sequence[FileIdentity]
    image_size: tuple[int, int]
    resize: Resize


class Computation:
    """Computes and commits rows; what is not usable is told with its reason.

    Parameters
    ----------
    work : Work
    engine : Engine
    store : Store
    bar : progress bar
        Counts images whose fate is settled: committed, or found bad.
    check : RowCheck, optional
        Looks at the rows of each batch.

    Attributes
    ----------
    bad : dict of str to BadImage
        By id of the row.
    seconds : StageTimings
    """

    def __init__(
        self, work: Work, engine: Engine, store: Store, bar: Any, check: RowCheck | None = None
    ) -> None:
        self.work, self.engine, self.store, self._bar = work, engine, store, bar
        self._check = check
        self._not_finite: dict[str, BadImage] = {}
        self.bad: dict[str, BadImage] = {}
        self.seconds = StageTimings()
        self._computed: list[tuple[NDArray[np.float32], list[str]]] = []  # not committed yet
        self._lock = threading.Lock()
        self._versions = engine.provenance()
        self._since = time.perf_counter()

    def run(self, workers: int) -> None:
        """Do all of it.

        Raises
        ------
        StoreWriteError, OutOfMemory, InvalidRequest
            Whatever stopped a stage, also that no row is finite. Batches that were computed are
            committed still.
        KeyboardInterrupt
            On Ctrl-C; the batch that is in the backbone is committed first.
        """
        try:
            self._run(workers)
        finally:
            # Without a finite row they are no fault of the images.
            if self._check is None or self._check.any_finite:
                self.bad.update(self._not_finite)
        if self._check is not None:
            self._check.finish()

    def _run(self, workers: int) -> None:
        stream = batches(self.work.items, self._load, lambda: self.engine.batch_size, workers)
        with ExitStack() as stack:
            stack.callback(self._flush)
            committer = stack.enter_context(ThreadPoolExecutor(1, "featcache-commit"))
            forward = ThreadPoolExecutor(1, "featcache-forward")
            # Left in reverse: no more decoding, no further batch into the backbone, and
            # then the commit of all that has come out of it, also on Ctrl-C and on an error.
            stack.callback(forward.shutdown, wait=True, cancel_futures=True)
            stack.callback(stream.close)
            pending: deque[Future[None]] = deque()
            for batch in stream:
                rows = forward.submit(self._forward, batch)
                pending.append(committer.submit(self._commit, batch, rows))
                if len(pending) > _IN_FLIGHT:
                    pending.popleft().result()
            while pending:
                pending.popleft().result()

    def _load(self, item: Item) -> Pixels:
        position = item[0]
        started = time.perf_counter()
        file = self.work.contents[position]
        with reservation() as held:
            path, image_id = self.work.dataset.paths[position], str(file.image_id)
            data = read_expected(path, image_id, held.for_file)
            read = time.perf_counter()
            try:
                box = self.work.dataset.box(position)
                return pixels_of(data, self.work.image_size, self.work.resize, box, held)
            finally:
                ended = time.perf_counter()
                with self._lock:  # several threads decode
                    self.seconds.read += read - started
                    self.seconds.decode += ended - read

    def _forward(self, batch: Batch[Item]) -> NDArray[np.float32] | None:
        if not batch.items:
            return None
        started = time.perf_counter()
        rows = self.engine.embed(batch.pixels)
        self.seconds.forward += time.perf_counter() - started
        return rows

    def _commit(self, batch: Batch[Item], computed: Future[NDArray[np.float32] | None]) -> None:
        self.bad.update({item[1]: failure for item, failure in batch.failures})
        self._bar.update(len(batch.failures))
        if computed.cancelled():
            return
        rows = computed.result()
        if rows is not None and self._check is not None:
            self._check.see(rows)
        if rows is not None:
            self._computed.append((rows, [item[1] for item in batch.items]))
        waited = time.perf_counter() - self._since
        if self.engine.commits_each_batch or waited >= _SECONDS_A_COMMIT:
            self._flush()

    def _flush(self) -> None:
        """Commit what was computed since the last commit."""
        computed, self._computed = self._computed, []
        if computed:
            rows = np.concatenate([rows for rows, _ in computed])
            self._append(rows, [name for _, ids in computed for name in ids])
            self._bar.update(len(rows))

    def _append(self, rows: NDArray[np.float32], ids: list[str]) -> None:
        sound = np.isfinite(rows).all(axis=1)
        for i in np.flatnonzero(~sound):
            self._not_finite[ids[i]] = BadImage(
                "the backbone gives values for it that are not finite"
            )
        started = time.perf_counter()
        about = {**self._versions, "seconds": f"{started - self._since:.6f}"}
        self._since = started
        if sound.any():
            keep = np.flatnonzero(sound)
            self.store.append(rows[keep], [ids[i] for i in keep], about)
        self.seconds.write += time.perf_counter() - started
