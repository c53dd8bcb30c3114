"""How many threads a training may use: no more than there are idle cores, or work, for."""

from __future__ import annotations

import os
import time

import joblib

_SECONDS = 0.1  # ten ticks of the kernel's clock, in which it counts
_MARGIN = 0.1  # a core that is shared counts as idle if more than 0.5 + this of it is idle
_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_STAT = "/proc/stat"


def threads_for_idle_cores() -> int:
    """Return the number of cores that other processes leave idle now, at least 1.

    OpenMP and BLAS threads wait for each other many times per second, spinning. On a core that
    another process keeps busy one of them is late each time and all others spin until it is
    there: with as many threads as cores a busy machine then takes many times longer than with
    the threads that idle cores can run.

    This process must not compute during the measurement: busy cores would be shared with it, and
    look partly idle. Takes a tenth of a second. Returns the number of all cores of this process
    where the system does not report their load (other than Linux).
    """
    cores = int(joblib.cpu_count())
    started, own, busy = time.monotonic(), time.process_time(), _busy_seconds()
    if busy is None:
        return cores
    time.sleep(_SECONDS)
    elapsed = time.monotonic() - started
    others = (_busy_seconds() or 0.0) - busy - (time.process_time() - own)
    return idle_threads(cores, len(os.sched_getaffinity(0)), others / elapsed)


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
    return max(1, min(cores, round(visible - max(0.0, busy) - _MARGIN)))


def _busy_seconds() -> float | None:
    """Return the seconds that the visible cores have worked since the start; None if unknown."""
    try:
        visible = os.sched_getaffinity(0)
        # Not psutil.cpu_times, which lists cores without their numbers, and no offline ones.
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
