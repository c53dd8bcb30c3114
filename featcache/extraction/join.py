"""Join the rows of a store to the data set: labels, columns, and reasons of failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.wording import format_count
from ..data.dataset import Dataset
from ..data.labels import label_codes
from ..data.listing import extras_for, ignored_by_ending
from ..errors import NoUsableImages, StoreMismatch, UnknownStore
from ..store.lazy_rows import StoredRows
from ..store.row_index import pack_ids
from ..store.store import Store
from .compute import Computed
from .features import Features
from .prepare import ExtractionJob
from .summary import ExtractionSummary, Quarantined


def join_rows(
    jobs: Sequence[ExtractionJob],
    computed: Computed | None,
    conflicts: Sequence[Mapping[str, Any]],
    seconds: float,
) -> Features:
    """Join the stored rows to the labels and the failures to their reasons.

    The rows are in the data set's order: all of the first view, then all of the next one.
    """
    job = jobs[0]
    reasons = _reasons(jobs, computed)
    quarantined = _quarantined(job.dataset, reasons)
    usable = [i for i in range(len(job.dataset)) if i not in reasons]
    if not usable:
        raise NoUsableImages(_no_usable_images(quarantined), quarantined=quarantined)
    kept = np.array(usable * len(jobs), np.int64)
    views = np.repeat(np.arange(len(jobs)), len(usable))
    # Opened again only if rows were committed since it was opened for the plan.
    ids = [str(job.files[i].image_id) for i in usable]
    stores, sources = _find_rows(jobs, ids)
    dataset = job.dataset.take(kept.tolist())
    summary = _summary(
        jobs, computed, quarantined,
        unlabelled=dataset.unlabelled // len(jobs), conflicts=conflicts, seconds=seconds,
        seconds_per_image=sum(found[0].seconds_per_image() for found in stores),
        folder=stores[0][0].location,
    )  # fmt: skip
    return Features(
        X=StoredRows(list(chain(*stores)), pack_ids(ids * len(jobs)), sources[:, None]),
        views=views,
        ids=[str(job.contents[i].image_id) for i in kept],
        positions=kept,
        spec=job.resolved.spec,
        summary=summary,
        quarantined=quarantined,
        arguments=job.resolved.arguments(),
        **columns_of(dataset, job.dataset),
    )


def _find_rows(
    jobs: Sequence[ExtractionJob], ids: list[str]
) -> tuple[list[list[Store]], NDArray[np.int64]]:
    """Return the stores of each view, and the one of each row as a position among all of them."""
    stores: list[list[Store]] = []
    sources = []
    for job in jobs:
        found = [] if job.store is None or job.plan.compute else [job.store]
        if job.plan.compute or (job.store is None and job.shared is None):
            found = [_opened(job)]  # rows were committed since it was opened for the plan
        first = sum(map(len, stores))
        places = np.full(len(ids), first, np.int64)
        if job.shared is not None:
            if found:
                _check_widths(found[0], job.shared)
                places[~found[0].contains(ids, confirm=True)] += 1
            found.append(job.shared)
        stores.append(found)
        sources.append(places)
    return stores, np.concatenate(sources)


def _opened(job: ExtractionJob) -> Store:
    store = job.open_store()
    if store is None:
        raise UnknownStore(
            f"The store {job.place.location} was removed while its rows were used. Run the same "
            "command again.",
            path=job.place.location,
        )
    return store


def _check_widths(own: Store, shared: Store) -> None:
    if own.width != shared.width:
        raise StoreMismatch(
            f"The rows in the shared store {shared.location} have width {shared.width}, but those "
            f"in {own.location} have width {own.width}. `featcache verify` says which is damaged.",
            path=shared.location,
            stored=shared.width,
            requested=own.width,
        )


def columns_of(chosen: Dataset, dataset: Dataset) -> dict[str, Any]:
    """Return what a data set says of its usable images, by the attribute of `Features`."""
    classes = dataset.classes
    return {
        "y": None if chosen.labels is None else label_codes(chosen.labels, classes or []),
        "classes": classes,
        "paths": list(chosen.paths),
        "parts": None if chosen.split is None else list(chosen.split),
        "attributes": dict(chosen.attributes),
        "boxes": None if chosen.boxes is None else list(chosen.boxes),
        "categorical": dataset.categories is not None,
    }


def _reasons(jobs: Sequence[ExtractionJob], computed: Computed | None) -> dict[int, str]:
    """Return the reason of each image that lacks a row, by its position in the data set.

    An image that lacks the row of one view is left out with all its views.
    """
    reasons: dict[int, str] = {}
    for number, job in enumerate(jobs):
        failures = {} if computed is None else computed.failures[number]
        reasons = {**job.plan.quarantined, **reasons}
        for position, file in enumerate(job.files):
            bad = failures.get(file.image_id or "")
            if position not in reasons and bad is not None:
                reasons[position] = bad.reason
    return reasons


def _quarantined(dataset: Dataset, reasons: Mapping[int, str]) -> list[Quarantined]:
    labels = dataset.labels
    return [
        Quarantined(dataset.paths[i], reason, i, labels[i] if labels is not None else None)
        for i, reason in sorted(reasons.items())
    ]


def _summary(
    jobs: Sequence[ExtractionJob],
    computed: Computed | None,
    quarantined: list[Quarantined],
    *,
    unlabelled: int,
    conflicts: Sequence[Mapping[str, Any]],
    seconds: float,
    seconds_per_image: float,
    folder: Path | str,
) -> ExtractionSummary:
    """Return what the extraction found stored, computed and left out."""
    job = jobs[0]
    weights = job.resolved.request.weights
    n_failures = 0 if computed is None else sum(map(len, computed.failures))
    ignored = job.dataset.ignored
    return ExtractionSummary(
        stored=sum(job.plan.stored for job in jobs),
        computed=sum(len(job.plan.compute) for job in jobs) - n_failures,
        quarantined=len(quarantined),
        seconds=seconds,
        folder=folder,
        backbone=job.resolved.request.name,
        weights=weights.origin,
        weights_kind=weights.kind,
        seconds_per_image=seconds_per_image,
        reasons=Counter(bad.reason for bad in quarantined),
        engine=computed.engine if computed is not None else None,
        stages=computed.timings if computed is not None else None,
        unlabelled=unlabelled,
        ignored=ignored_by_ending(ignored),
        ignored_files=list(ignored),
        hints=extras_for(ignored),
        conflicts=conflicts,
        workers=computed.workers if computed is not None else (),
    )


def _no_usable_images(quarantined: list[Quarantined]) -> str:
    shown = "; ".join(f"{Path(q.path).name!r}: {q.reason}" for q in quarantined[:3])
    return (
        f"No image can be used: {format_count(len(quarantined), 'image')} quarantined. The first: "
        f"{shown}. Replace the files, or try again with retry_failed=True (--retry-failed)."
    )
