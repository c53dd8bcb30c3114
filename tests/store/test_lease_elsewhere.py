"""Leases where clocks differ, processes are hidden, disks are full or know no links."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from featcache.store import lease as leases
from featcache.store.lease import NAME, is_in_use, lease, mark_in_use


def test_a_clock_that_is_off_makes_no_claim_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {**leases._describe_process(), "host": "another"}
    for name in (NAME, f"{leases.USE_PREFIX}{'a' * 32}"):
        (tmp_path / name).write_bytes(leases._encode_claim(owner))
    now = time.time
    for seconds in (-1000, 1000):
        monkeypatch.setattr(time, "time", lambda seconds=seconds: now() + seconds)
        assert is_in_use(tmp_path)
        with lease(tmp_path) as held:
            assert not held
    monkeypatch.undo()
    for path in list(tmp_path.iterdir()):
        os.utime(path, (now() - 1000, now() - 1000))
    assert not is_in_use(tmp_path)
    with lease(tmp_path) as held:
        assert held


HIDDEN = """
import os, sys
from pathlib import Path
from featcache.store.lease import _describe_machine, is_in_use, lease
_describe_machine()  # what comes later cannot read the standard library
os.setgroups([])
os.setegid(65534)
os.seteuid(65534)
assert not os.path.exists(f"/proc/{sys.argv[2]}"), "not hidden"
with lease(Path(sys.argv[1])) as held:
    print(bool(held), is_in_use(Path(sys.argv[1])))
"""


def test_a_process_that_is_hidden_is_not_taken_for_a_dead_one(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("this user may not mount")
    for path in [tmp_path, *tmp_path.parents]:
        if path.stat().st_uid == 0 and "pytest" in str(path):
            path.chmod(0o755)
    tmp_path.chmod(0o777)
    with lease(tmp_path) as held, mark_in_use(tmp_path):
        assert held
        for path in tmp_path.iterdir():
            path.chmod(0o644)
        mount = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
        code = [sys.executable, "-c", HIDDEN, str(tmp_path), str(os.getpid())]
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", mount, "sh", *code], capture_output=True, text=True
        )
        if "mount" in done.stderr or "unshare" in done.stderr or "not hidden" in done.stderr:
            pytest.skip("no such /proc can be mounted")
        assert done.stdout.strip() == "False True", done.stderr
        assert held.still_held()


WITHOUT_LINKS = """
import sys
from pathlib import Path
from featcache.store.lease import lease
folder = Path(sys.argv[1])
with lease(folder) as first:
    with lease(folder) as second:
        print(bool(first), bool(second), first.still_held())
print(sorted(path.name for path in folder.iterdir()))
"""


def test_a_disk_without_links_has_leases(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "-qq", "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed, or this user may not trace processes")
    rule = ["-e", "inject=?link,?linkat:error=EPERM"]
    done = subprocess.run(
        [strace, "-f", "-qq", "-o", "/dev/null", *rule, sys.executable, "-c", WITHOUT_LINKS,
         str(tmp_path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["True False True", "[]"], done.stderr


def fill(disk: Path) -> None:
    for number in range(20):
        (disk / f"{number}").touch()


@pytest.fixture
def disk_of_few_files(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    options = "size=1m,nr_inodes=8"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system of its own can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_does_not_hide_that_another_holds_the_lease(disk_of_few_files: Path) -> None:
    with lease(disk_of_few_files) as held:
        assert held
        with pytest.raises(OSError, match="No space"):
            fill(disk_of_few_files)
        with lease(disk_of_few_files) as other:
            assert (bool(other), other.refused) == (False, None)
        assert held.still_held()
    (disk_of_few_files / NAME).touch()  # the room of the lease
    (disk_of_few_files / NAME).rename(disk_of_few_files / "last")
    with lease(disk_of_few_files) as other:
        assert other.refused is not None


def test_a_process_that_may_start_no_thread_has_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    with lease(tmp_path) as held:
        assert held.still_held()
    assert list(tmp_path.iterdir()) == []
