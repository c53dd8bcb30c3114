"""Lists the shards that workers of a cluster have created, for all of them, every few seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType

from ..._io.logs import get_logger
from ...errors import StoreError
from .writable import WritableBucketStore

log = get_logger(__name__)

LIST_SECONDS = 5.0


class ShardLister:
    """Adds shards to the list of a store, together.

    If each of many workers made its own changes, most of their attempts would find that another was
    first: of one generation, only one succeeds. A worker that is killed has created what it has
    told; if this process is killed, shards of the last seconds are not listed, and their rows are
    computed again.

    Parameters
    ----------
    open_store : callable
        Opens the store; returns None if there is none yet.
    """

    def __init__(self, open_store: Callable[[], WritableBucketStore | None]) -> None:
        self._open_store = open_store
        self._store: WritableBucketStore | None = None
        self._waiting: dict[str, int] = {}
        self._told: set[str] = set()
        self._lock = threading.Lock()  # of the shards
        self._flushing = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="featcache-lister", daemon=True)

    def __call__(self, shards: Mapping[str, int]) -> None:
        """List shards soon. One that was told before is not listed again.

        It may be merged into a larger one by now, and its objects may be gone.
        """
        with self._lock:
            self._waiting |= {name: n for name, n in shards.items() if name not in self._told}
            self._told |= shards.keys()

    def flush(self) -> None:
        """List all shards that were told.

        Raises
        ------
        StoreError, StoreWriteError
            If the server cannot be reached, or refuses. They are listed at the next call.
        """
        with self._flushing:
            with self._lock:
                waiting, self._waiting = self._waiting, {}
            if not waiting:
                return
            try:
                self._store = self._store or self._open_store()
                if self._store is None:
                    raise StoreError("The store in which workers have made shards does not exist.")
                # Created by workers at any time, perhaps before this store was listed.
                self._store.list_here(waiting, since=0.0)
            except BaseException:
                with self._lock:
                    self._waiting |= waiting
                raise

    def _run(self) -> None:
        while not self._done.wait(LIST_SECONDS):
            try:
                self.flush()
            except StoreError as error:
                log.warning("%s It is tried again.", error)

    def __enter__(self) -> ShardLister:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        try:
            self.flush()
        except StoreError as failure:
            if error is None:
                raise
            log.warning("%s", failure)  # the other error ended the extraction
