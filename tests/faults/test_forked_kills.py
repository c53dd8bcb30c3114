"""Thousands of kills at random moments: no acknowledged row is lost, every store opens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scale import times

SCRIPT = Path(__file__).with_name("forked_kills.py")


def kill(what: str, kills: int, folder: Path, seed: int = 0) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), what, str(kills), str(seed), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    print(f"{what}: {found}")
    assert not found["unopened"], done.stderr[-3000:]
    return found


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("what", ["store", "extract"])
def test_no_acknowledged_row_is_lost_to_a_kill(what: str, tmp_path: Path) -> None:
    kills = times(20, 1000)
    found = kill(what, kills, tmp_path)
    assert found["kills"] == kills
    assert found["lost"] == 0
    assert found["damaged"] == 0
    assert found["acknowledged"] > kills // 3  # else the kills came before any work
    if what == "extract":
        assert found["finished"] >= kills // 100
