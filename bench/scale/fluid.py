"""Tasks as a flow: how long workers take whose pace falls as rows are stored."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_STEPS = 100


def seconds_to_compute(
    images: float,
    workers: float,
    size: int,
    computing: float,
    fixed: float,
    per_row: float,
    caps: Mapping[str, float],
    stored: float = 0.0,
) -> dict[str, float]:
    """Return the seconds of all tasks, by what they are spent on.

    A task of `size` images takes ``computing + fixed + per_row * rows`` seconds, where `rows` are
    stored when it begins. All tasks together never exceed the lowest of `caps`.

    Parameters
    ----------
    images : float
    workers : float
        Tasks at a time.
    size : int
        Images per task.
    computing, fixed, per_row : float
        Seconds per task, and per task and stored row.
    caps : mapping of str to float
        Images per second that something shared allows.
    stored : float
        Rows that are stored before the first task.

    Returns
    -------
    dict of str to float
        Of "computing", of "growing" (`fixed` and `per_row`), and of each of `caps`; they add up
        to the whole.
    """
    edges = np.linspace(0.0, images, _STEPS + 1)
    rows = stored + (edges[1:] + edges[:-1]) / 2  # exact for a cost that grows linearly
    step = images / _STEPS
    tasks = step / (workers * size)  # of each worker
    growing = tasks * (fixed + per_row * rows)
    alone = tasks * computing + growing
    found = {"computing": tasks * computing * _STEPS, "growing": float(growing.sum())}
    if caps:
        lowest = min(caps, key=lambda name: caps[name])
        # Where the cap is lower than the pace of the workers, they wait for it.
        found |= dict.fromkeys(caps, 0.0)
        found[lowest] = float(np.maximum(0.0, step / caps[lowest] - alone).sum())
    return found
