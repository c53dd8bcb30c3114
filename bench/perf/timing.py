"""Side-by-side measurements: interleaved, in one run, with medians and a word on the machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

import psutil


def in_turns(actions: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Run actions one after the other, again and again, every other round in reverse.

    What slows the machine for a while then slows all of them.

    Parameters
    ----------
    actions : mapping of str to callable
        Each returns its own measurement.
    repeats : int

    Returns
    -------
    dict of str to list of float
        `repeats` measurements of each.
    """
    found: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(repeats):
        for name in list(actions)[:: -1 if turn % 2 else 1]:
            found[name].append(actions[name]())
    return found


def seconds_of(action: Callable[[], object]) -> float:
    """Return how long an action takes, once."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def in_a_process(*arguments: object) -> dict[str, Any]:
    """Run Python with arguments in a process of its own; return the JSON of its last line."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def resident(name: str) -> int:
    """Return the bytes of this process in memory: now (VmRSS), or at most (VmHWM). Linux.

    The largest size that `resource` knows is no use: a child begins with its parent's. psutil
    does not know it.
    """
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def forget_the_peak() -> None:
    """Let VmHWM begin again."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def table(*rows: Sequence[object]) -> list[str]:
    """Return the lines of a table in Markdown, the head first."""
    head, *body = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [head, f"| {' | '.join('---' for _ in rows[0])} |", *body]


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def spread(values: list[float]) -> str:
    """Return the median, and the least and the largest value."""
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def machine() -> dict[str, str]:
    """Describe processor, memory, system and versions."""
    packages = ("tensorflow", "keras", "openvino", "h5py", "scikit-learn", "lightgbm", "numpy")
    versions = []
    for name in packages:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "packages": ", ".join(versions),
        "accelerator": "no accelerator",
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = {
        line.split(":")[0].strip(): line.split(":")[-1].strip() for line in lines if ":" in line
    }
    flags = found.get("flags", "").split()
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    extras = [flag for flag in known if flag in flags]
    return f"{found.get('model name', platform.machine())} with {', '.join(extras) or 'no AVX2'}"
