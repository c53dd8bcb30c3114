"""Leases and marks of use: who holds a store, also after a stop, a crash, or on a full disk."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featcache.errors import LeaseLost
from featcache.store import lease as leases
from featcache.store.lease import is_in_use, lease, mark_in_use

HOLD = """
import sys, time
from pathlib import Path
from featcache.store import lease as leases
leases.LIFETIME = float(sys.argv[2])
with leases.{what}(Path(sys.argv[1])) as held:
    print("held", flush=True)
    sys.stdin.readline()
    print(held.still_held() if held is not None else "", flush=True)
"""


def holder(folder: Path, what: str = "lease", lifetime: float = 120) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(what=what), str(folder), str(lifetime)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def answer(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate("\n", timeout=60)
    return out.strip()


def test_a_lease_is_renewed_while_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holder(tmp_path, lifetime=0.6)
    monkeypatch.setattr(leases, "LIFETIME", 0.6)
    with lease(tmp_path, wait=2.0) as held:
        assert not held
    assert answer(process) == "True"
    with lease(tmp_path) as held:
        assert held


def test_a_stopped_holder_that_wakes_notices_that_its_lease_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = holder(tmp_path, lifetime=0.6)
    monkeypatch.setattr(leases, "LIFETIME", 0.6)
    process.send_signal(signal.SIGSTOP)
    with lease(tmp_path, wait=20) as held:
        assert held
        process.send_signal(signal.SIGCONT)
        assert answer(process) == "False"
        assert held.still_held()  # its end released nothing of ours


def test_a_killed_holders_lease_is_taken_at_once(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    process.communicate()
    with lease(tmp_path) as held:
        assert held


def test_check_raises_once_it_is_lost(tmp_path: Path) -> None:
    with lease(tmp_path) as held:
        held.check()
        (tmp_path / leases.NAME).unlink()
        with pytest.raises(LeaseLost, match="taken over"):
            held.check()


@pytest.mark.parametrize("change", ["host", "boot", "namespace"])
def test_an_owner_elsewhere_is_never_taken_for_a_process_of_this_machine(
    tmp_path: Path, change: str
) -> None:
    # No process has this number here; the owner may well run in another container.
    owner = {**leases._describe_process(), "pid": 2**22 + 1, change: "another"}
    (tmp_path / leases.NAME).write_bytes(leases._encode_claim(owner))
    with lease(tmp_path) as held:
        assert not held
    owner[change] = leases._describe_machine()[change]
    (tmp_path / leases.NAME).write_bytes(leases._encode_claim(owner))
    with lease(tmp_path) as held:
        assert held


def test_a_process_number_that_was_given_again_is_another_owner(tmp_path: Path) -> None:
    owner = {**leases._describe_process(), "started": "1"}
    (tmp_path / leases.NAME).write_bytes(leases._encode_claim(owner))
    with lease(tmp_path) as held:
        assert held


@pytest.mark.parametrize("days", [-1000, 1000])
def test_a_lease_of_another_time_is_abandoned(tmp_path: Path, days: int) -> None:
    (tmp_path / leases.NAME).write_bytes(b"")
    then = time.time() + days * 86400
    os.utime(tmp_path / leases.NAME, (then, then))
    with lease(tmp_path) as held:
        assert held


def test_a_wrong_bit_in_a_claim_gives_no_store_away(tmp_path: Path) -> None:
    with mark_in_use(tmp_path), lease(tmp_path):
        for path in list(tmp_path.iterdir()):
            body = path.read_bytes()
            for bit in range(8 * len(body)):
                flipped = bytearray(body)
                flipped[bit // 8] ^= 1 << bit % 8
                path.write_bytes(flipped)
                assert is_in_use(tmp_path), bytes(flipped)
                with lease(tmp_path) as other:
                    assert not other, bytes(flipped)
            path.write_bytes(body)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"1", "without checksum"])
def test_a_damaged_claim_counts_until_it_is_old(tmp_path: Path, content: bytes | str) -> None:
    if isinstance(content, str):
        content = json.dumps({**leases._describe_process(), "started": "1"}).encode()
    claims = [tmp_path / leases.NAME, tmp_path / f"{leases.USE_PREFIX}{'a' * 32}"]
    for path in claims:
        path.write_bytes(content)
    with lease(tmp_path) as held:
        assert (bool(held), is_in_use(tmp_path)) == (False, True)
    for path in claims:
        os.utime(path, (1, 1))
    with lease(tmp_path) as held:
        assert (bool(held), is_in_use(tmp_path)) == (True, False)


def test_marks_of_living_and_dead_users(tmp_path: Path) -> None:
    assert not is_in_use(tmp_path)
    with mark_in_use(tmp_path), mark_in_use(tmp_path):
        assert is_in_use(tmp_path)
    assert not is_in_use(tmp_path)
    process = holder(tmp_path, "mark_in_use")
    assert is_in_use(tmp_path)
    process.kill()
    process.communicate()
    assert not is_in_use(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_used_without_a_mark(tmp_path: Path) -> None:
    with mark_in_use(tmp_path / "absent"):
        assert not is_in_use(tmp_path / "absent")


def test_a_folder_that_refuses_a_lease_says_why(tmp_path: Path) -> None:
    with lease(tmp_path / "absent") as held:
        assert not held
        assert held.refused is not None


def test_a_disk_that_fails_once_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = Path.unlink, []

    def failing_once(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith(".tmp-") and not failed:
            failed.append(path)
            raise OSError(errno.EIO, "Input/output error")
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", failing_once)
    with lease(tmp_path) as held:
        assert held
    assert failed
    assert list(tmp_path.iterdir()) == []


def test_a_lease_is_exclusive_and_a_dead_owners_is_taken_over(tmp_path: Path) -> None:
    with lease(tmp_path) as first, lease(tmp_path) as second:
        assert (bool(first), bool(second)) == (True, False)
    pid = os.fork()
    if not pid:
        with lease(tmp_path):
            os._exit(0)
    os.waitpid(pid, 0)
    assert (tmp_path / ".lease").exists()
    with lease(tmp_path) as held:
        assert held


def test_leases_of_others_are_left_alone_and_old_ones_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".lease"
    for content in (b"", b"\xff", b"[]", b"{}", b'{"host": "elsewhere", "pid": 1}'):
        path.write_bytes(content)
        with lease(tmp_path) as held:
            assert not held
    os.utime(path, (1, 1))
    replace = os.rename
    monkeypatch.setattr(os, "rename", lambda *names: (_ for _ in ()).throw(OSError()))
    with lease(tmp_path) as held:  # another one was quicker
        assert not held
    monkeypatch.setattr(os, "rename", replace)
    with lease(tmp_path) as held:
        assert held
    assert not path.exists()


def test_a_lease_that_was_taken_over_is_not_given_back(tmp_path: Path) -> None:
    with lease(tmp_path) as held:
        assert held.still_held()
        (tmp_path / ".lease").unlink()
        (tmp_path / ".lease").write_text("another's")
        assert not held.still_held()
        with pytest.raises(LeaseLost):
            held.check()
    assert (tmp_path / ".lease").read_text() == "another's"
