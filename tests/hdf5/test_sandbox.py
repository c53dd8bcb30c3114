"""Inspection of HDF5 files in a child process, and what is said when that process goes wrong."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featcache.errors import FeatcacheError, InspectionError, StoreCorrupt, StoreFormatError
from featcache.hdf5 import child as inspection
from featcache.hdf5 import sandbox
from featcache.hdf5.protocol import DONE, HEADER, IDLE_STATUS, MEMORY_STATUS, READ
from featcache.hdf5.sandbox import inspect_shard, unsafe_hdf5_reason
from featcache.hdf5.shard_file import ShardFile
from featcache.hdf5.shard_metadata import metadata_path
from featcache.store.store import Store
from hostile_shards import HOSTILE, planted
from stores import SPEC, WIDTH, ids_of, rows_of


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    store = Store.create(tmp_path / "store", SPEC, WIDTH)
    return store.folder / store.append(rows_of(1, 2, 3), ids_of(1, 2, 3), {"seconds": "1.5"})


@pytest.fixture
def inspector(monkeypatch: pytest.MonkeyPatch) -> Iterator[sandbox.Inspector]:
    """One of our own, so that its end touches no other test."""
    inspector = sandbox.Inspector()
    monkeypatch.setattr(sandbox, "_inspector", inspector)
    yield inspector
    inspector.close()


def child_is(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let the child run some other code once it has read the question."""
    start = sandbox._START.replace("from featcache.hdf5.child import main; main()", "")
    imports = "import os, signal, time; sys.stdin.buffer.readline()\n"
    monkeypatch.setattr(sandbox, "_START", start + imports + code)


def test_the_child_finds_what_hdf5_finds_in_this_process(shard: Path) -> None:
    found = inspect_shard(shard)
    with ShardFile(shard) as reader:
        expected = reader.metadata
    assert np.array_equal(found.image_ids, expected.image_ids)
    assert np.array_equal(found.views, expected.views)
    assert np.array_equal(found.layout.offsets, expected.layout.offsets)
    assert found.layout.rows_per_chunk == expected.layout.rows_per_chunk
    assert (found.width, found.components, found.seconds) == (WIDTH, SPEC.components(), 1.5)


def test_a_spec_that_is_no_json_is_damage(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        file.attrs["spec"] = "{"
    with pytest.raises(StoreCorrupt, match="structure is damaged"):
        ShardFile(shard)
    with pytest.raises(StoreCorrupt, match="structure is damaged"):
        inspect_shard(shard)


@pytest.mark.parametrize("build", HOSTILE)
def test_the_child_says_of_a_hostile_shard_what_would_be_said_here(
    tmp_path: Path, build: Any
) -> None:
    path = planted(Store.create(tmp_path / "store", SPEC, WIDTH), build)
    with open(path, "rb") as file:
        said, _ = inspection._inspect_shard(file)
    try:
        inspect_shard(path)
    except (StoreCorrupt, StoreFormatError) as error:
        evidence = {
            "reason": getattr(error, "reason", None),
            "version": getattr(error, "version", None),
        }
        assert said.items() <= evidence.items()
    else:  # of the right form, but of another store
        assert said["rows"] in (2, 3)


def test_many_shards_are_inspected_by_one_child(
    tmp_path: Path, inspector: sandbox.Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.create(tmp_path / "store", SPEC, WIDTH)
    for number in range(30):
        store.append(rows_of(number), ids_of(number))
    for path in store.folder.glob("*.h5"):
        metadata_path(path).unlink()
    started = []
    popen = subprocess.Popen

    def counted(*arguments: Any, **options: Any) -> Any:
        started.append(arguments)
        return popen(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", counted)
    again = Store(store.folder)
    assert np.array_equal(again.read(ids_of(*range(30))), rows_of(*range(30)))
    assert len(started) == 1
    again = Store(store.folder)  # the sidecars are there again
    assert len(again) == 30
    inspector.close()
    assert len(Store(store.folder)) == 30
    assert len(started) == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"it crashes HDF5 \(SIGSEGV\)"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "does not finish"),
        ("time.sleep(600)", "does not finish"),
        (f"os._exit({MEMORY_STATUS})", "more memory than a file of its size should"),
        (f"os.write(1, {HEADER.pack(READ, 0, 2**20)!r})", "reads it without end"),
        (f"os.write(1, {HEADER.pack(READ, 2**40, 1)!r})", "reads it without end"),
        (f"os.write(1, {HEADER.pack(b'X', 0, 1)!r})", "reads it without end"),
        (
            f"while True: os.write(1, {HEADER.pack(READ, 0, 900)!r}); sys.stdin.buffer.read(900)",
            "reads it without end",
        ),
        (f"while True: os.write(1, {HEADER.pack(READ, 0, 900)!r})", "does not finish"),
        (f"os.write(1, {HEADER.pack(DONE, 9, 9)!r}); time.sleep(600)", "does not finish"),
        (f"os.write(1, {HEADER.pack(DONE, 2**40, 0)!r})", "more data than the file contains"),
        (f"os.write(1, {HEADER.pack(DONE, 2, 0)!r} + b'{{}}')", "contradictory metadata"),
        (f"os.write(1, {HEADER.pack(DONE, 2, 0)!r} + b'no')", "contradictory metadata"),
    ],
    ids=range(13),
)
def test_a_child_that_goes_wrong_over_a_file_refuses_it(
    shard: Path,
    inspector: sandbox.Inspector,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    reason: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "_SILENCE_SECONDS", 1.5 if "not finish" in reason else 60.0)
        child_is(patch, code)
        with pytest.raises(StoreCorrupt, match=reason):
            inspect_shard(shard)
        if "crashes" in reason or "bytes" in reason:
            assert unsafe_hdf5_reason(shard) is not None
    inspector._kill()
    assert len(inspect_shard(shard).views) == 3  # the next one is as ever


@pytest.mark.parametrize(
    "said",
    [
        {"width": 0}, {"rows_per_chunk": 0}, {"offsets": []}, {"offsets": [-1]},
        {"offsets": [2**40]}, {"offsets": [2**70]}, {"rows": 2**40}, {"rows": "x"},
        {"components": 5},
    ],
    ids=str,
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_no_head(shard: Path, said: dict[str, Any]) -> None:
    answer = {
        "rows": 3, "width": WIDTH, "rows_per_chunk": 3, "offsets": [100], "components": {},
        "seconds": 0,
    }  # fmt: skip
    values = bytes(3 * 36)
    assert sandbox._shard_metadata(answer, values, 1000).width == WIDTH
    with pytest.raises((ValueError, TypeError, OverflowError)):
        sandbox._shard_metadata({**answer, **said}, values, 1000)


def test_a_child_that_the_system_kills_says_nothing_of_the_file(
    shard: Path, inspector: sandbox.Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_is(monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(InspectionError, match=r"status -9\..* Free some memory"):
        inspect_shard(shard)
    with pytest.raises(InspectionError):
        unsafe_hdf5_reason(shard)


def test_a_child_that_cannot_work_says_nothing_of_the_file(
    shard: Path, inspector: sandbox.Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code in ("import nothing_of_this_name", "os._exit(0)"):
        with monkeypatch.context() as patch:
            child_is(patch, code)
            with pytest.raises(InspectionError, match="ended with status"):
                inspect_shard(shard)
            with pytest.raises(InspectionError, match="ended with status"):
                unsafe_hdf5_reason(shard)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(InspectionError, match="No such file or directory"):
            inspect_shard(shard)
    metadata_path(shard).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(FeatcacheError, match="cannot be started"):
            Store(shard.parent)
    assert len(Store(shard.parent)) == 3


def test_a_pipe_that_fails_is_said(
    shard: Path, inspector: sandbox.Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "_exchange", fails)
        with pytest.raises(InspectionError, match="No space left on device"):
            inspect_shard(shard)
    assert len(inspect_shard(shard).views) == 3


def test_an_interruption_leaves_no_half_conversation(
    shard: Path, inspector: sandbox.Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "_receive_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            inspect_shard(shard)
    assert inspector._process is None
    assert len(inspect_shard(shard).views) == 3


def test_a_child_that_went_to_rest_is_replaced(
    shard: Path, inspector: sandbox.Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect_shard(shard)
    first = inspector._process
    assert first is not None
    with monkeypatch.context() as patch:  # it ends after it was looked at
        patch.setattr(first, "poll", lambda: None)
        first.kill()
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
        assert len(inspect_shard(shard).views) == 3
    second = inspector._process
    assert second is not None
    second.terminate()
    second.wait()
    assert len(inspect_shard(shard).views) == 3
    inspector._kill()
    once = shard.parent / "once"
    start = sandbox._START
    rest = f"import os\nif not os.path.exists({str(once)!r}):\n"
    rest += f"    open({str(once)!r}, 'x'); sys.stdin.buffer.readline(); os._exit({IDLE_STATUS})\n"
    first_line, last_line = start.rsplit("; ", 1)[0].rsplit("from ", 1)
    code = f"{first_line}\n{rest}from {last_line}; main()"
    monkeypatch.setattr(sandbox, "_START", code)
    assert len(inspect_shard(shard).views) == 3
    assert once.exists()


def test_a_child_that_does_not_end_is_killed(
    inspector: sandbox.Inspector, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = HEADER.pack(DONE, 15, 0) + b'{"reason": "x"}'
    child_is(monkeypatch, f"os.write(1, {answer!r}); time.sleep(600)")
    assert unsafe_hdf5_reason(shard) == "x"
    process = inspector._process
    inspector.close()
    assert process is not None
    assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_a_child_of_its_own(shard: Path) -> None:
    inspect_shard(shard)
    before = sandbox._inspector._process
    pid = os.fork()
    if not pid:
        status = 1
        try:
            own = len(inspect_shard(shard).views) == 3
            own = own and sandbox._inspector._process is not before
            sandbox._of_parents[-1].close()  # does nothing
            sandbox._inspector.close()
            status = 0 if own else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(inspect_shard(shard).views) == 3
    assert sandbox._inspector._process is before


def test_a_fork_leaves_the_child_where_it_is(
    inspector: sandbox.Inspector, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "_of_parents", [])
    inspect_shard(shard)
    sandbox._after_fork()
    assert sandbox._of_parents == [inspector]
    assert sandbox._inspector is not inspector
    assert inspector._process is not None
    assert inspector._process.poll() is None
    inspector._owner = -1  # as it is in the new process
    process = inspector._process
    inspector.close()
    assert process.poll() is None
    inspector._owner, inspector._process = os.getpid(), process


def test_what_lies_in_the_current_folder_is_not_imported(
    shard: Path, inspector: sandbox.Inspector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("h5py", "json", "numpy", "featcache"):
        (trap / f"{name}.py").write_text(f"open({str(trap / 'sprung')!r}, 'w')\n")
    monkeypatch.chdir(trap)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert len(inspect_shard(shard).views) == 3
    assert not (trap / "sprung").exists()


def test_files_that_are_not_there_or_not_whole(shard: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        inspect_shard(tmp_path / "gone.h5")
    assert "cannot be read (No such file" in str(unsafe_hdf5_reason(tmp_path / "gone.h5"))
    assert "cannot be read (Is a directory" in str(unsafe_hdf5_reason(tmp_path))

    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return b""

    assert unsafe_hdf5_reason(Shrinking(shard.read_bytes())) == "it was truncated while it was read"


def test_a_disk_that_fails_is_said(shard: Path, inspector: sandbox.Inspector) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    assert unsafe_hdf5_reason(Failing(b"x" * 99)) == "it cannot be read (Input/output error)"


def test_a_newer_shard_is_said_to_be_one(shard: Path) -> None:
    with h5py.File(shard, "r+") as file:
        file.attrs["format_version"] = 9
    with pytest.raises(StoreFormatError, match="format version 9"):
        inspect_shard(shard)
