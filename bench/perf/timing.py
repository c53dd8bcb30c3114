"""Interleaved time measurements, their medians as text, and a description of the machine."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

import psutil


def run_interleaved(
    actions: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, list[float]]:
    """Run all actions once per round, in reverse order in every other round.

    A temporary load of the machine then affects all of them alike.

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
    measured: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(repeats):
        for name in list(actions)[:: -1 if number % 2 else 1]:
            measured[name].append(actions[name]())
    return measured


def seconds_of(action: Callable[[], object]) -> float:
    """Return the seconds that one call of an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def run_in_subprocess(*arguments: object) -> dict[str, Any]:
    """Run Python with arguments in a new process; return the JSON in the last line it prints."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return record


def resident_bytes(name: str) -> int:
    """Return the resident memory of this process: current (VmRSS) or peak (VmHWM). Linux only.

    The peak of `resource` is unsuitable, since a child starts with that of its parent, and
    psutil has none.
    """
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))


def reset_peak_rss() -> None:
    """Set the peak resident memory (VmHWM) to the current one."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def markdown_table(*rows: Sequence[object]) -> list[str]:
    """Return the lines of a Markdown table; the first row is the header."""
    header, *body = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [header, f"| {' | '.join('---' for _ in rows[0])} |", *body]


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def format_spread(values: list[float]) -> str:
    """Format the median, the minimum and the maximum of values."""
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def describe_machine() -> dict[str, str]:
    """Return processor, memory, system and versions of packages as text."""
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
        "accelerator": _accelerators(),
    }


def _accelerators() -> str:
    """Return the names of the GPUs of NVIDIA, as their driver gives them."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return "no accelerator"
    query = [command, "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(query, stdout=subprocess.PIPE, text=True, check=False)
    names = Counter(done.stdout.splitlines() if done.returncode == 0 else ())
    return ", ".join(f"{count} x {name}" for name, count in names.items()) or "no accelerator"


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
