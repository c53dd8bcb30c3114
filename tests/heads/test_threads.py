"""Training on a busy machine uses the cores that are idle."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contracts import blobs
from heads import LightGBMHead, threads
from heads.threads import idle_threads, threads_for_idle_cores


@pytest.mark.parametrize(
    ("cores", "visible", "busy", "expected"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 1.0, 1),
        (2, 2, 2.0, 1),
        (16, 16, 3.0, 13),
        (2, 64, 30.0, 2),  # a quota of two cores on a large machine
        (8, 8, 40.0, 1),
        (4, 4, -0.2, 4),  # clocks of two kinds never agree exactly
    ],
)
def test_threads_are_for_idle_cores(cores: int, visible: int, busy: float, expected: int) -> None:
    assert idle_threads(cores, visible, busy) == expected


@pytest.fixture
def busy_cores() -> Iterator[None]:
    import os

    loop = [sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(loop) for _ in range(len(os.sched_getaffinity(0)))]
    time.sleep(0.3)
    yield
    for process in loops:
        process.kill()
        process.wait()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells")
def test_beside_a_busy_loop_on_all_cores_one_thread_is_left(busy_cores: None) -> None:
    assert threads_for_idle_cores() == 1


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells")
def test_what_the_process_itself_computes_is_not_taken_for_that_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = {"busy": 10.0, "own": 5.0, "now": 100.0}
    other_cores = 0.0

    def sleep(seconds: float) -> None:
        clock["now"] += seconds
        clock["own"] += 2 * seconds
        clock["busy"] += (2 + other_cores) * seconds

    monkeypatch.setattr(threads, "_busy_seconds", lambda: clock["busy"])
    monkeypatch.setattr(threads.time, "process_time", lambda: clock["own"])
    monkeypatch.setattr(threads.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(threads.time, "sleep", sleep)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(threads.joblib, "cpu_count", lambda: 4)
    assert threads_for_idle_cores() == 4
    other_cores = 3.0
    assert threads_for_idle_cores() == 1


def test_a_system_that_does_not_tell_gives_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_STAT", "/nowhere/stat")
    monkeypatch.setattr(threads.joblib, "cpu_count", lambda: 6)
    assert threads_for_idle_cores() == 6


def test_the_trees_do_not_depend_on_the_number_of_threads() -> None:
    X, y = blobs(8, 60, 32)
    scores = [LightGBMHead(n_jobs=n, n_estimators=40).fit(X, y).predict_proba(X) for n in (1, 2)]
    assert np.array_equal(*scores)
