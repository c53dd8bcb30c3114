"""Number of threads for training: as many as there are idle cores."""

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

    OpenMP and BLAS threads synchronise many times per second, by spinning. A thread on a core
    that another process uses is late each time, and all others spin until it arrives: on a busy
    machine, one thread per core is many times slower than one per idle core.

    The measurement takes a tenth of a second. This process must not compute during that time,
    since cores that it shares with others would look partly idle. On systems other than Linux,
    which do not report the load of cores, the number of all cores of this process is returned.
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
    """Return the number of threads that get a core of their own, at least 1.

    Parameters
    ----------
    cores : int
        Number of cores that this process may use, by affinity and the container's quota.
    visible : int
        Number of cores that it may run on, by affinity.
    busy : float
        Number of these cores that other processes use.

    Examples
    --------
    >>> [idle_threads(2, 2, busy) for busy in (0.1, 0.9, 2.0)]
    [2, 1, 1]
    """
    return max(1, min(cores, round(visible - max(0.0, busy) - _MARGIN)))


def _busy_seconds() -> float | None:
    """Return the busy seconds of the visible cores since the system start; None if unknown."""
    try:
        visible = os.sched_getaffinity(0)
        # Not psutil.cpu_times, which lists cores without their numbers, and no offline ones.
        with open(_STAT, encoding="ascii") as file:
            lines = [line.split() for line in file if line.startswith("cpu")]
    except (AttributeError, OSError):
        return None
    # user, nice, system, irq, softirq; not idle, iowait, nor the fields that are included in user
    worked = [
        sum(int(fields[i]) for i in (1, 2, 3, 6, 7))
        for fields in lines
        if fields[0][3:].isdigit() and int(fields[0][3:]) in visible
    ]
    return sum(worked) / _TICK if worked else None
