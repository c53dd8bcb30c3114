"""Estimate the time and disk space of a comparison from a measured batch of each kind of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from featcache.toolkit import format_count, free_bytes, get_logger

from .contenders.base import Contender, Training
from .contenders.measure import Estimate, Work
from .evaluation.evaluate import training_of
from .splits import Images, Split, images_of

log = get_logger(__name__)

# Earlier runs have trained it; it is not measured.
_FINISHED = Work("", 0, lambda: Estimate("training", 0, 0, at_most=True))


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
    works: dict[str, Work] = {}
    needed_by: dict[str, list[str]] = {}
    trained = {name: one.count_trained(trainings) for name, one in contenders.items()}
    for name, contender in contenders.items():
        done = trained[name] == len(trainings)
        own = [_FINISHED] if done else _works(contender, images, trainings[0])
        for work in own:
            shared = work.name or name
            if shared not in works or work.images > works[shared].images:
                works[shared] = work
            needed_by.setdefault(shared, []).append(name)
    found = []
    for shared, work in works.items():
        names = needed_by[shared]
        log.info("%s: estimating time and disk space", name_several(names))
        estimate = work.measure()
        if estimate is not None:
            n_trained = trained[names[0]] if estimate.at_most else 0
            left = len(trainings) - n_trained
            found.append(replace(estimate, contenders=tuple(names), times=left, trained=n_trained))
    return found


def _works(contender: Contender, images: Images, training: Training) -> Sequence[Work]:
    """Return the kinds of work of a contender; its own estimate, if it does not divide it."""
    count, n_classes = len(training.images), training.n_classes
    return contender.works(images, count, n_classes) or [
        Work("", count, lambda: contender.estimate(images, count, n_classes))
    ]


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
        lines += [f"    for {name_several(e.contenders)}"] if e.contenders else []
    total = f"about {duration(seconds)}" if seconds else "nothing to compute: all is stored"
    lines.append(
        f"Total: {total}, and {room / 1e9:.1f} GB of {free / 1e9:.1f} GB free in {folder}. "
        "Training heads is not included. After Ctrl-C the same command resumes."
    )
    if room > free:
        lines.append("NOT ENOUGH DISK SPACE: choose another folder with --cache-dir.")
    return "\n".join(lines)


def name_several(names: Sequence[str]) -> str:
    """Return the names of contenders; of more than three the first, and how many others.

    Examples
    --------
    >>> name_several(["a", "b"]), name_several(["a", "b", "c", "d"])
    ('a, b', 'a and 3 other contenders')
    """
    if len(names) <= 3:
        return ", ".join(names)
    return f"{names[0]} and {len(names) - 1} other contenders"


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
