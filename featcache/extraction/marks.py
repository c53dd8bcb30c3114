"""Marks that a store is used by an extraction, so that no other process removes it."""

from __future__ import annotations

from contextlib import ExitStack

from ..errors import StoreError
from ..store.store import Store
from .prepare import ExtractionJob, plan_again


def mark_store(job: ExtractionJob, marks: ExitStack, retry_failed: bool) -> ExtractionJob:
    """Mark the store as in use, so that it is not removed; plan again if rows were just removed."""
    job.place.mark(marks, append=bool(job.plan.compute))
    if job.store is None or _plan_holds(job, job.store):
        return job
    again = plan_again(job, job.resolved, retry_failed)
    return mark_store(again, marks, retry_failed) if again.store is None else again


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
