"""Marks that a store is used by an extraction, so that no other process removes it."""

from __future__ import annotations

import contextlib
import os
from contextlib import ExitStack
from pathlib import Path

from .._io.atomic import make_folder
from .._io.logs import get_logger
from ..errors import StoreError
from ..store.lease import NAME as LEASE_NAME
from ..store.lease import lease, mark_in_use
from ..store.manifest import NAME as MANIFEST_NAME
from ..store.store import Store
from .prepare import ExtractionJob, plan_again

log = get_logger(__name__)

_ATTEMPTS = 3
_LEASE_WAIT_SECONDS = 10.0


def mark_store(job: ExtractionJob, marks: ExitStack, retry_failed: bool) -> ExtractionJob:
    """Mark the store as in use, so that it is not removed; plan again if rows were just removed."""
    if job.plan.compute:
        marks.callback(_remove_empty_store, job.folder)
    for _ in range(_ATTEMPTS):
        if job.plan.compute:
            make_folder(job.folder)
        mark = marks.enter_context(mark_in_use(job.folder))
        if mark or not isinstance(mark.refused, FileNotFoundError):
            break  # else the folder was removed after it was made
    if os.path.lexists(job.folder / LEASE_NAME):
        _wait_for_lease(job.folder)  # a process that removes rows may not have seen the mark
    if job.store is None or _plan_holds(job, job.store):
        return job
    again = plan_again(job, job.resolved, retry_failed)
    return mark_store(again, marks, retry_failed) if again.store is None else again


def _wait_for_lease(folder: Path) -> None:
    while True:
        with lease(folder, wait=_LEASE_WAIT_SECONDS) as held:
            if held or held.refused is not None:
                return
        log.info("%s: waiting for a process that merges or removes its shards", folder.name)


def _plan_holds(job: ExtractionJob, store: Store) -> bool:
    """Refresh a store, and return whether it still holds the rows that were found when planning."""
    ids = [file.image_id for file in job.files if file.image_id is not None]
    names, before = store.shard_names, store.contains(ids)
    try:
        store.refresh()
    except StoreError:
        return False
    # Shards are immutable: the same shards hold the same rows.
    return names == store.shard_names or not (before & ~store.contains(ids)).any()


def _remove_empty_store(folder: Path) -> None:
    """Remove a store without rows, unless another process has just begun to use it."""
    with contextlib.suppress(OSError):
        # Under the lease: a process that marks the store from here on waits for it and plans again.
        with lease(folder) as held:
            if not held or not set(os.listdir(folder)) <= {MANIFEST_NAME, LEASE_NAME}:
                return
            (folder / MANIFEST_NAME).unlink(missing_ok=True)
        folder.rmdir()
