"""Death and errors of the system at every call of repair, merging, removal and packing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scale import FULL, times

SCENARIOS = (
    "repair",
    "repair-itself",
    "repair-all",
    "compact",
    "gc-rows",
    "gc-stores",
    "pack",
    "unpack",
)
GROUPS = SCENARIOS if FULL else (",".join(SCENARIOS),)  # one start of Python for all
POINTS = times(3, 10**6)
ERRORS = [("EIO", "once"), ("ENOSPC", "lasting")]
if FULL:
    ERRORS += [("EIO", "lasting"), ("ENOSPC", "once")]


def run(tmp_path: Path, scenarios: str, fault: str, lasting: str) -> dict[str, Any]:
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-qq", "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed, or this user may not trace processes")
    script = Path(__file__).with_name("attached_faults.py")
    done = subprocess.run(
        [sys.executable, str(script), scenarios, fault, lasting, str(POINTS), str(tmp_path)],
        capture_output=True, text=True, timeout=3000,
        env={**os.environ, "FEATCACHE_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps({"fault": fault, "lasting": lasting, "found": found}))
    return found


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("scenarios", GROUPS)
def test_death_at_every_call_loses_no_row(tmp_path: Path, scenarios: str) -> None:
    for found in run(tmp_path, scenarios, "KILL", "once").values():
        assert found["wrong"] == []
        # 4: not this process was killed, but the one that inspects HDF5 files for it.
        assert found["ends"].get("-9", 0) + found["ends"].get("4", 0) == found["points"] > 0


@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("fault", "lasting"), ERRORS)
@pytest.mark.parametrize("scenarios", GROUPS)
def test_errors_at_every_call_are_ours_and_lose_no_row(
    tmp_path: Path, scenarios: str, fault: str, lasting: str
) -> None:
    found = run(tmp_path, scenarios, fault, lasting)
    assert {name: each["wrong"] for name, each in found.items() if each["wrong"]} == {}
    for each in found.values():
        assert set(each["ends"]) <= {"0", "4"}
    # A lease that nobody holds would block merging until it is old.
    assert {name: each["leases left"] for name, each in found.items() if each["leases left"]} == {}
