"""Estimate the time and disk space of a comparison from a measured batch of each kind of work."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from featcache.toolkit import get_logger

from .contenders.base import Contender
from .contenders.measure import Estimate
from .splits import Split, images_of

log = get_logger(__name__)


def estimates(contenders: Mapping[str, Contender], split: Split) -> list[Estimate]:
    """Estimate the work of contenders from a measured batch of each kind.

    Parameters
    ----------
    contenders : mapping of str to Contender
    split : Split

    Returns
    -------
    list of Estimate
        One per kind of work; work that contenders share occurs once. Training heads is not
        included: it takes seconds to minutes.
    """
    everything = np.concatenate([split.train, split.test])
    images = images_of(split, dict(enumerate(split.dataset.paths)), everything)
    found: dict[str, Estimate | None] = {}
    for name, contender in contenders.items():
        work = contender.shared_work() or name
        if work not in found:
            log.info("%s: measuring a batch to estimate the time of the whole", name)
            found[work] = contender.estimate(images, len(split.train), len(split.classes))
    return [estimate for estimate in found.values() if estimate is not None]


def describe(found: Sequence[Estimate], folder: Path, runs: int = 1) -> str:
    """Return estimates as human-readable text, with the free space on the disk of `folder`.

    Training is repeated for each of `runs` splits and seeds; features and decoded pixels are
    shared.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    seconds = sum(e.seconds * (runs if e.at_most else 1) for e in found)
    room = sum(e.disk_bytes for e in found)
    lines = ["Estimates, from a measured batch of each kind of work:"]
    for e in found:
        about = "at most" if e.at_most else "about"
        times = f", {runs} times" if e.at_most and runs > 1 else ""
        lines.append(
            f"  {e.what}: {about} {duration(e.seconds)}{times}, {e.disk_bytes / 1e9:.2f} GB"
        )
    lines.append(
        f"Total: about {duration(seconds)} if nothing is done yet, and {room / 1e9:.1f} GB of "
        f"{free / 1e9:.1f} GB free in {folder}. Training heads is not included. After Ctrl-C the "
        "same command resumes."
    )
    if room > free:
        lines.append("NOT ENOUGH DISK SPACE: choose another folder with --cache-dir.")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a duration in seconds as human-readable text.

    Examples
    --------
    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
