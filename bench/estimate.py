"""Estimate the time and disk space of a comparison from a measured batch of each kind of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from featcache.toolkit import format_count, free_bytes, get_logger

from .contenders.base import Contender, Training
from .contenders.measure import Estimate
from .evaluation.evaluate import training_of
from .splits import Images, Split, images_of

log = get_logger(__name__)


def estimates(
    contenders: Mapping[str, Contender], runs: Sequence[tuple[Split, int]]
) -> list[Estimate]:
    """Estimate the work of contenders from a measured batch of each kind.

    Parameters
    ----------
    contenders : mapping of str to Contender
    runs : sequence of (Split, int)
        The splits and seeds that they are trained on, of one data set.

    Returns
    -------
    list of Estimate
        One per kind of work; work that contenders share occurs once. Training heads is not
        included: it takes seconds to minutes.
    """
    split = runs[0][0]
    everything = np.concatenate([split.train, split.test])
    images = images_of(split, dict(enumerate(split.dataset.paths)), everything)
    trainings = [training_of(*run) for run in runs]
    found: dict[str, Estimate | None] = {}
    for name, contender in contenders.items():
        work = contender.shared_work() or name
        if work not in found:
            log.info("%s: estimating time and disk space", name)
            found[work] = _estimate(contender, images, trainings)
        estimate = found[work]
        if estimate is not None:
            found[work] = replace(estimate, contenders=(*estimate.contenders, name))
    return [estimate for estimate in found.values() if estimate is not None]


def _estimate(
    contender: Contender, images: Images, trainings: Sequence[Training]
) -> Estimate | None:
    """Estimate one kind of work; what was trained in earlier runs is not measured."""
    trained = contender.count_trained(trainings)
    if trained == len(trainings):
        return Estimate("training", 0, 0, at_most=True, times=0, trained=trained)
    first = trainings[0]
    found = contender.estimate(images, len(first.images), first.n_classes)
    return found and replace(found, times=len(trainings) - trained, trained=trained)


def describe(found: Sequence[Estimate], folder: Path) -> str:
    """Return estimates as human-readable text, with the free space on the disk of `folder`.

    Training is repeated for each split and seed; features and decoded pixels are shared.
    """
    free = free_bytes(folder)
    seconds = sum(e.total_seconds for e in found)
    room = sum(e.disk_bytes for e in found)
    lines = ["Estimates, from a measured batch of each kind of work:"]
    for e in found:
        lines.append(f"  {_line(e)}")
        lines += [f"    for {', '.join(e.contenders)}"] if e.contenders else []
    total = f"about {duration(seconds)}" if seconds else "nothing to compute: all is stored"
    lines.append(
        f"Total: {total}, and {room / 1e9:.1f} GB of {free / 1e9:.1f} GB free in {folder}. "
        "Training heads is not included. After Ctrl-C the same command resumes."
    )
    if room > free:
        lines.append("NOT ENOUGH DISK SPACE: choose another folder with --cache-dir.")
    return "\n".join(lines)


def _line(estimate: Estimate) -> str:
    """Return the description of one kind of work, with what earlier runs have done of it."""
    e = estimate
    if e.trained and not e.times:
        return f"{e.what}: done in an earlier run"
    line = f"{e.what}: {'at most' if e.at_most else 'about'} {duration(e.seconds)}"
    line += f", {e.times} times" if e.at_most and e.times > 1 else ""
    line += f", {e.disk_bytes / 1e9:.2f} GB"
    if e.trained:
        line += f" ({format_count(e.trained, 'other run')} trained already)"
    return line + (f" ({e.stored:,} stored already)" if e.stored else "")


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
