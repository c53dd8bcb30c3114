"""Leases on a disk that fails at any of their steps: exclusive, or refused with the reason."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from featcache._io.atomic import is_temporary_name, remove_stale
from featcache.errors import LeaseLost
from featcache.store import lease as leases
from featcache.store.lease import NAME, is_in_use, lease, mark_in_use
from refusals import before_first_call, open_files, refuse

MARK = f"{leases.USE_PREFIX}{'a' * 32}"


def is_claim(path: Any, *_: Any) -> bool:
    return Path(path).name == NAME


def is_temporary(path: Any, *_: Any) -> bool:
    return not isinstance(path, int) and is_temporary_name(Path(path).name)


def is_open_temporary(handle: int) -> bool:
    return is_temporary(os.readlink(f"/proc/self/fd/{handle}"))


def write_claim(path: Path, **changes: object) -> None:
    path.write_bytes(leases._encode_claim({**leases._describe_process(), **changes}))


def age(path: Path) -> None:
    os.utime(path, (1, 1))


@pytest.fixture(autouse=True)
def _no_file_stays_open(tmp_path: Path) -> Iterator[None]:
    yield
    assert open_files(tmp_path) == []


# Whether it is still held


def test_a_look_at_the_lease_that_fails_once_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lease(tmp_path) as held:
        failed = refuse(monkeypatch, os, "lstat", errno.EIO, concerns=is_claim, times=1)
        held.check()
        assert len(failed) == 1


def test_a_lease_that_cannot_be_looked_at_counts_as_lost(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    with lease(folder) as held:
        folder.rename(tmp_path / "away")
        folder.write_text("a file in the place of the folder")
        with pytest.raises(LeaseLost, match="taken over"):
            held.check()


def test_a_lease_is_renewed_by_its_own_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LIFETIME", 0.3)
    with lease(tmp_path) as held:
        age(tmp_path / NAME)
        deadline = time.monotonic() + 30
        while (tmp_path / NAME).stat().st_mtime == 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - (tmp_path / NAME).stat().st_mtime < 60
        assert held.still_held()


def test_a_released_lease_touches_the_next_holders_no_more(tmp_path: Path) -> None:
    with lease(tmp_path) as held:
        held.release()
        assert not held.still_held()
        write_claim(tmp_path / NAME, host="another")
        age(tmp_path / NAME)
        held.renew()
        held.release()
    assert (tmp_path / NAME).stat().st_mtime == 1


def test_a_lease_that_the_disk_does_not_remove_is_abandoned_once_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = refuse(monkeypatch, Path, "unlink", errno.EIO, concerns=is_claim)
    with lease(tmp_path):
        pass
    assert len(failed) == 2
    monkeypatch.undo()
    with lease(tmp_path) as held:
        assert not held
    age(tmp_path / NAME)
    with lease(tmp_path) as held:
        assert held


def test_a_temporary_file_that_the_disk_does_not_remove_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, Path, "unlink", errno.EIO, concerns=is_temporary)
    with lease(tmp_path) as held, lease(tmp_path) as other:
        assert (bool(held), bool(other)) == (True, False)
    monkeypatch.undo()
    left = list(tmp_path.iterdir())
    assert {path.name[:5] for path in left} == {".tmp-"}
    for path in left:
        age(path)
    remove_stale(tmp_path)
    assert list(tmp_path.iterdir()) == []


# How it is created


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_lease_that_cannot_be_named_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    refuse(monkeypatch, os, "link", code)
    with lease(tmp_path) as held:
        assert not held
        assert held.refused is not None
        assert held.refused.errno == code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", leases._NO_LINKS)
def test_a_claim_on_a_disk_without_links_names_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    refuse(monkeypatch, os, "link", code)
    with lease(tmp_path) as held:
        assert held.still_held()
        assert leases._parse_claim((tmp_path / NAME).read_bytes())["pid"] == os.getpid()
        age(tmp_path / NAME)
        with mark_in_use(tmp_path), lease(tmp_path / "absent") as other:
            assert is_in_use(tmp_path)
            assert not other
    assert list(tmp_path.iterdir()) == []


def test_of_two_on_a_disk_without_links_one_has_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, os, "link", errno.EPERM)
    with lease(tmp_path) as first, lease(tmp_path) as second:
        assert (bool(first), bool(second), second.refused) == (True, False, None)
        assert first.still_held()


# When it counts as abandoned


def test_a_folder_under_the_name_of_a_claim_is_removed_once_it_is_old(tmp_path: Path) -> None:
    (tmp_path / NAME / "inner").mkdir(parents=True)
    with lease(tmp_path) as held:
        assert not held
    age(tmp_path / NAME)
    with lease(tmp_path) as held:
        assert held
        assert stat.S_ISREG((tmp_path / NAME).stat().st_mode)
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_was_released_before_it_was_looked_at_is_acquired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_claim(tmp_path / NAME)
    looks = before_first_call(monkeypatch, leases, "_abandoned_claim", (tmp_path / NAME).unlink)
    with lease(tmp_path, wait=30) as held:
        assert held
    assert len(looks) == 1


def old_mark_of_another_machine(folder: Path) -> Path:
    write_claim(folder / MARK, host="another")
    age(folder / MARK)
    return folder / MARK


def test_on_a_read_only_disk_the_local_clock_tells_an_old_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = old_mark_of_another_machine(tmp_path)
    failed = refuse(monkeypatch, os, "open", errno.EROFS, concerns=is_temporary)
    assert not is_in_use(tmp_path, remove_abandoned=False)
    assert len(failed) == 1
    os.utime(mark)
    assert is_in_use(tmp_path, remove_abandoned=False)


def test_where_a_new_file_cannot_be_dated_the_local_clock_tells_an_old_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = old_mark_of_another_machine(tmp_path)
    failed = refuse(monkeypatch, os, "fstat", errno.EIO, concerns=is_open_temporary)
    assert not is_in_use(tmp_path, remove_abandoned=False)
    assert len(failed) == 1
    assert list(tmp_path.iterdir()) == [mark]


@pytest.mark.parametrize(
    "changes", [{"pid": 0}, {"pid": -1}, {"pid": 2**31}, {"started": 5}, {"started": None}]
)
def test_a_claim_of_an_impossible_process_counts_until_it_is_old(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    write_claim(tmp_path / NAME, **changes)
    with lease(tmp_path) as held:
        assert not held
    age(tmp_path / NAME)
    with lease(tmp_path) as held:
        assert held


@pytest.fixture
def _foreign_proc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The ``/proc`` of another process namespace, which shows other process ids."""
    real = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: "1" if path == "/proc/self" else real(path))
    leases._describe_machine.cache_clear()
    yield
    leases._describe_machine.cache_clear()


@pytest.mark.usefixtures("_foreign_proc")
def test_where_proc_is_of_another_namespace_no_owner_is_taken_for_dead(tmp_path: Path) -> None:
    write_claim(tmp_path / NAME, pid=2**22 + 1)
    write_claim(tmp_path / MARK, pid=2**22 + 1)
    leases._describe_machine.cache_clear()  # as in another process
    assert is_in_use(tmp_path)
    with lease(tmp_path) as held:
        assert not held


def test_a_process_of_another_user_that_proc_hides_is_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = "/proc/1/stat"
    refuse(monkeypatch, Path, "read_bytes", errno.ENOENT, concerns=lambda path: str(path) == hidden)
    users = os.getresuid()
    if users[1] == 0:
        os.setresuid(65534, 65534, 0)  # process 1 belongs to root
    try:
        state = leases._start_time(1)
    finally:
        os.setresuid(*users)
    assert state == "running"
    write_claim(tmp_path / NAME, pid=1, started="1")
    with lease(tmp_path) as held:
        assert not held
