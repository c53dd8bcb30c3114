"""How many threads a training may use: no more than there are idle cores, or work, for."""

from __future__ import annotations

import os
import time

import joblib

_SHORTEST = 0.1  # seconds: the kernel counts in hundredths
_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_STAT = "/proc/stat"


class CoreUse:
    """What the cores that this process may use do beside it, from now on.

    OpenMP threads wait for each other many times per tree, spinning. On a core that another
    process keeps busy one of them is late each time and all others spin until it is there:
    with as many threads as cores a busy machine then takes many times longer than with the
    threads that idle cores can run.
    """

    def __init__(self) -> None:
        self._started = time.monotonic(), time.process_time(), _busy_seconds()

    def threads(self) -> int:
        """Return the number of cores that others have left idle since, at least 1.

        All cores of this process where the system does not tell (other than Linux).
        """
        cores = int(joblib.cpu_count())
        before, own, busy = self._started
        if busy is None:
            return cores
        time.sleep(max(0.0, before + _SHORTEST - time.monotonic()))
        elapsed = time.monotonic() - before
        others = (_busy_seconds() or 0.0) - busy - (time.process_time() - own)
        visible = len(os.sched_getaffinity(0))
        return idle_threads(cores, visible, others / elapsed)


def idle_threads(cores: int, visible: int, busy: float) -> int:
    """Return how many threads find a core of their own.

    Parameters
    ----------
    cores : int
        That this process may fill: affinity and the container's quota.
    visible : int
        That it may run on.
    busy : float
        Cores among those that other processes keep busy.

    Examples
    --------
    >>> [idle_threads(2, 2, busy) for busy in (0.1, 0.9, 2.0)]
    [2, 1, 1]
    """
    return max(1, min(cores, round(visible - max(0.0, busy) - 0.1)))


def _busy_seconds() -> float | None:
    """Return the seconds that the visible cores have worked since the start; None if unknown."""
    try:
        visible = os.sched_getaffinity(0)
        with open(_STAT, encoding="ascii") as file:
            lines = [line.split() for line in file if line.startswith("cpu")]
    except (AttributeError, OSError):
        return None
    # user, nice, system, irq, softirq; not idle, iowait, nor what counts twice
    worked = [
        sum(int(fields[i]) for i in (1, 2, 3, 6, 7))
        for fields in lines
        if fields[0][3:].isdigit() and int(fields[0][3:]) in visible
    ]
    return sum(worked) / _TICK if worked else None
