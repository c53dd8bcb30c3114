"""What reproduces a report: versions, seeds and weights; what to be careful about."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from featcache import __version__

from ..analysis.summary import Summary
from ..evaluation.results import OVERLAP, Results

_PACKAGES = ("keras", "tensorflow", "numpy", "scikit-learn", "lightgbm", "h5py", "Pillow")


def facts(summary: Summary) -> list[tuple[str, str]]:
    """Return versions, system, seeds, and the weights and notes of each contender."""
    rows = [("featcache", __version__), ("Python", platform.python_version())]
    rows += [("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores")]
    for package in _PACKAGES:
        try:
            rows.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            continue
    rows.append(("seeds", ", ".join(str(run.random_state) for run in summary.runs)))
    for result in summary.first:
        notes = "; ".join(f"{k}: {v}" for k, v in result.facts.notes.items() if k != "model")
        rows.append((result.name, f"weights: {result.facts.weights}; {notes}"))
    return rows


def warnings(results: Results) -> list[str]:
    """Return what limits the results: overlap with training data, random weights."""
    found = []
    if results.overlaps_imagenet:
        found.append(OVERLAP)
    random = [result.name for result in results if result.facts.weights_kind == "random"]
    if random:
        found.append(
            f"{', '.join(random)}: with seeded random weights. The figures show that the steps "
            "work and what is to be beaten, not what the backbone can do."
        )
    return found


def unusable_images(results: Results) -> list[tuple[str, str]]:
    """Return path and reason of each image that was left out."""
    split = results.split
    return [
        (split.dataset.paths[i], results.unusable[image_id])
        for i, image_id in enumerate(split.example_ids)
        if image_id in results.unusable
    ]
