"""The child process that inspects HDF5 files: its limits, its answers, and its end."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from featcache.hdf5 import child as inspection
from featcache.hdf5.protocol import DONE, HEADER, IDLE_STATUS, MEMORY_STATUS
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    store = Store.create(tmp_path / "store", SPEC, WIDTH)
    return store.folder / store.append(rows_of(1, 2, 3), ids_of(1, 2, 3), {"seconds": "1.5"})


LIMITED = """
import resource, sys, time
from featcache.hdf5.child import Limits, warm_up
warm_up()
import subprocess, errno
import numpy as np
limits = Limits()
limits.forbid_files()
limits.set_limits(1000)
if sys.argv[1] == "files":
    for path, mode in (("/etc/passwd", "r"), (sys.argv[2], "w")):
        try:
            open(path, mode)
        except OSError as error:
            print(errno.errorcode[error.errno])
    try:
        subprocess.Popen(["true"])
    except OSError as error:
        print(errno.errorcode[error.errno])
elif sys.argv[1] == "memory":
    try:
        np.ones(2**30, "u1")
    except MemoryError:
        print("MemoryError")
else:
    limits._lower(resource.RLIMIT_CPU, 1)
    while True:
        pass
"""


def limited(what: str, path: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, what, str(path)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")
def test_the_limits_hold(tmp_path: Path) -> None:
    assert limited("files", tmp_path / "new") == (0, ["EMFILE", "EMFILE", "EMFILE"])
    assert not (tmp_path / "new").exists()
    assert limited("memory", tmp_path) == (0, ["MemoryError"])
    assert limited("time", tmp_path)[0] == -signal.SIGXCPU


class Recorded:
    """Stands in for `resource`, so that this process keeps its own limits."""

    RLIMIT_FSIZE, RLIMIT_CORE, RLIMIT_NOFILE, RLIMIT_CPU, RLIMIT_AS = range(5)
    RLIM_INFINITY, RUSAGE_SELF = -1, 0

    def __init__(self, hard: int = -1) -> None:
        self.hard, self.set = hard, dict[int, tuple[int, int]]()

    def getrlimit(self, kind: int) -> tuple[int, int]:
        return -1, self.hard

    def setrlimit(self, kind: int, limits: tuple[int, int]) -> None:
        self.set[kind] = limits

    def getrusage(self, who: int) -> Any:
        return Usage()


class Usage:
    ru_utime, ru_stime = 2.5, 1.0


def questions(tmp_path: Path, shard: Path, *kinds: str) -> list[dict[str, Any]]:
    """Serve in this process: the answers to some questions about a shard."""
    limits = inspection.Limits()
    limits._resource = None
    data = shard.read_bytes()
    requests = io.BytesIO(
        b"".join(json.dumps({"kind": k, "size": len(data)}).encode() + b"\n" + data for k in kinds)
    )
    replies = io.BytesIO()
    inspection.serve(requests, replies, limits)
    text = replies.getvalue()
    answers = []
    while text:
        tag, first, second = HEADER.unpack(text[: HEADER.size])
        text = text[HEADER.size :]
        if tag == DONE:
            answers.append(json.loads(text[:first]))
            text = text[first + second :]
    return answers


def test_questions_are_answered_one_after_the_other(shard: Path, tmp_path: Path) -> None:
    first, second = questions(tmp_path, shard, "shard", "weights")
    assert (first["rows"], first["width"]) == (3, WIDTH)
    assert second == {"reason": None}


def test_limits_grow_with_the_file_and_stay_below_the_systems(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, recorded = inspection.Limits(), Recorded()
    limits._resource, limits._addresses = recorded, 1000
    limits.forbid_files()
    assert recorded.set == {0: (0, 0), 1: (0, 0), 2: (3, 3)}
    limits.set_limits(100 << 20)
    assert recorded.set[Recorded.RLIMIT_CPU] == (3 + 1 + 5 + 10, -1)
    assert recorded.set[Recorded.RLIMIT_AS] == (1000 + (256 << 20) + (400 << 20), -1)
    limits._resource = recorded = Recorded(hard=7)
    limits.set_limits(0)
    assert recorded.set == {3: (7, 7), 4: (7, 7)}
    monkeypatch.setitem(sys.modules, "resource", None)
    limits = inspection.Limits()  # a system without any
    limits.forbid_files()
    limits.set_limits(5)
    limits.exit_if_idle(io.BytesIO())


class Left(BaseException):
    pass


def test_the_child_ends_when_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def left(status: int) -> None:
        raise Left(status)

    monkeypatch.setattr(os, "_exit", left)
    monkeypatch.setattr(inspection, "_IDLE_SECONDS", 0.01)
    reading, writing = os.pipe()
    with open(reading, "rb") as requests, open(writing, "wb") as other:
        with pytest.raises(Left, match=str(IDLE_STATUS)):
            inspection.Limits().exit_if_idle(requests)
        other.write(b"\n")
        other.flush()
        inspection.Limits().exit_if_idle(requests)
    with pytest.raises(Left, match="0"):
        inspection.RemoteFile(9, io.BytesIO(b"x"), io.BytesIO()).readinto(bytearray(3))
    monkeypatch.setattr(inspection.Limits, "forbid_files", lambda limits: None)
    for error, status in ((MemoryError, MEMORY_STATUS), (BrokenPipeError, 0)):

        def fails(*arguments: Any, error: type[Exception] = error) -> None:
            raise error

        monkeypatch.setattr(inspection, "serve", fails)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        with pytest.raises(Left, match=str(status)):
            inspection.main()


def test_a_remote_file_refuses_what_lies_beyond_its_end() -> None:
    file = inspection.RemoteFile(9, io.BytesIO(), io.BytesIO())
    assert file.readable()
    assert file.seekable()
    assert file.seek(-2, os.SEEK_END) == 7
    with pytest.raises(OSError, match="beyond the end"):
        file.readinto(bytearray(3))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_child_is_gone_once_its_process_was_killed(shard: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from featcache.hdf5 import sandbox\n"
        "sandbox.inspect_shard(Path(sys.argv[1])); print(sandbox._inspector._process.pid)\n"
        "sys.stdout.flush(); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(shard)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.kill()
    deadline = time.monotonic() + 20
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
