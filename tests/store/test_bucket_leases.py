"""Leases and marks of use as objects; time is that of the server."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from featcache.errors import LeaseLost, StoreWriteError
from featcache.store.bucket import leases
from featcache.store.bucket.leases import (
    LIFETIME,
    BucketLease,
    bucket_lease,
    claims_folder,
    expired_claims,
    is_bucket_in_use,
    mark_bucket_in_use,
    server_time,
)
from featcache.store.bucket.objects import Bucket, ObjectState

pytest.importorskip("fsspec", reason="fsspec is not installed")

FOLDER = claims_folder("tiny")


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(f"file://{tmp_path}/bucket")


def acquired(bucket: Bucket) -> BucketLease:
    found = BucketLease(bucket, FOLDER, "exclusive")
    assert found.acquire()
    return found


def make_old(tmp_path: Path, seconds: float = LIFETIME + 10) -> None:
    """Let time pass on the server."""
    for path in (tmp_path / "bucket" / FOLDER).iterdir():
        os.utime(path, (time.time() - seconds, time.time() - seconds))


def names(bucket: Bucket) -> list[str]:
    return sorted(bucket.states(FOLDER))


def test_one_process_holds_the_lease(bucket: Bucket) -> None:
    with bucket_lease(bucket, "tiny") as held:
        assert held
        held.check()
        with bucket_lease(bucket, "tiny") as other:
            assert not other
            with pytest.raises(LeaseLost):
                other.check()
        with bucket_lease(bucket, "another") as other:
            assert other
        assert held.still_held()
    assert not held.still_held()
    held.release()
    assert names(bucket) == ["exclusive-0000000002.json"]
    with bucket_lease(bucket, "tiny") as again:
        assert again


def test_a_number_that_somebody_has_written_gives_no_second_holder(bucket: Bucket) -> None:
    bucket.create(f"{FOLDER}/exclusive-9999999999.json", b'{"holder": "x", "state": "free"}')
    held = acquired(bucket)
    assert not BucketLease(bucket, FOLDER, "exclusive").acquire()
    held.release()
    acquired(bucket)


def test_a_waiting_process_gets_a_released_lease(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = acquired(bucket)
    monkeypatch.setattr(time, "sleep", lambda seconds: first.release())
    with bucket_lease(bucket, "tiny", wait=60) as held:
        assert held


def test_a_renewed_lease_has_one_object(bucket: Bucket, tmp_path: Path) -> None:
    held = acquired(bucket)
    make_old(tmp_path)
    held.renew()
    assert names(bucket) == ["exclusive-0000000002.json"]
    held.check()
    assert not BucketLease(bucket, FOLDER, "exclusive").acquire()


def test_an_expired_lease_is_taken_over_and_its_holder_notices(
    bucket: Bucket, tmp_path: Path
) -> None:
    first = acquired(bucket)
    make_old(tmp_path, LIFETIME - 60)
    assert not BucketLease(bucket, FOLDER, "exclusive").acquire()
    make_old(tmp_path)
    second = acquired(bucket)
    for _ in range(2):  # the second time its own object is long gone
        with pytest.raises(LeaseLost, match="taken over"):
            first.check()
        first.renew()
        second.renew()
    second.check()
    first.release()
    second.check()
    assert len(names(bucket)) == 1


@pytest.mark.parametrize("found", [b"", b"[]", b"[" * 4000, b'{"holder": "x"}'])
def test_of_a_damaged_lease_the_age_counts(bucket: Bucket, tmp_path: Path, found: bytes) -> None:
    bucket.create(f"{FOLDER}/exclusive-0000000007.json", found)
    assert not BucketLease(bucket, FOLDER, "exclusive").acquire()
    make_old(tmp_path)
    acquired(bucket)
    assert names(bucket) == ["exclusive-0000000008.json"]


def test_an_answer_that_was_lost_is_no_other_holder(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Bucket.create
    monkeypatch.setattr(Bucket, "create", lambda *a: create(*a) and False)
    held = acquired(bucket)
    held.renew()
    held.check()


def test_a_listing_that_lags_behind_gives_no_second_holder(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = acquired(bucket)
    states = Bucket.states
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "states", lambda self, folder: {})
        with pytest.raises(StoreWriteError, match="ages are unknown"):
            BucketLease(bucket, FOLDER, "exclusive").acquire()

    def lagging(self: Bucket, folder: str) -> dict[str, ObjectState]:
        return {n: s for n, s in states(self, folder).items() if n.startswith("clock")}

    make_old(tmp_path)
    monkeypatch.setattr(Bucket, "states", lagging)
    assert not BucketLease(bucket, FOLDER, "exclusive").acquire()
    held.check()


def test_a_server_that_fails_does_not_end_the_holder(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = acquired(bucket)

    def refused(*arguments: object) -> bool:
        raise StoreWriteError("503")

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "create", refused)
        held.renew()
    held.check()
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "create", refused)
        with mark_bucket_in_use(bucket, "tiny") as mark:
            assert not mark
            assert mark.refused is not None
        held.release()
    assert not held


def test_marks_show_use_and_leave_its_time(bucket: Bucket, tmp_path: Path) -> None:
    assert not is_bucket_in_use(bucket, "tiny")
    with mark_bucket_in_use(bucket, "tiny") as one, mark_bucket_in_use(bucket, "tiny") as other:
        assert one
        assert other
        assert is_bucket_in_use(bucket, "tiny")
        assert expired_claims(bucket, "tiny") == []
    assert not is_bucket_in_use(bucket, "tiny")
    assert [name[:5] for name in names(bucket)] == ["used-"]
    with mark_bucket_in_use(bucket, "tiny") as mark:
        make_old(tmp_path)
        assert not is_bucket_in_use(bucket, "tiny")
        (expired,) = expired_claims(bucket, "tiny")
        bucket.remove(expired)
        mark.renew()
        assert not mark.still_held()


def test_of_two_processes_at_once_one_gets_the_lease(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, others = Bucket.create, [BucketLease(bucket, FOLDER, "exclusive")]

    def overtaken(self: Bucket, name: str, data: bytes) -> bool:
        if others:
            assert others.pop().acquire()
        return create(self, name, data)

    monkeypatch.setattr(Bucket, "create", overtaken)
    assert not BucketLease(bucket, FOLDER, "exclusive").acquire()


def test_times_are_those_of_the_server(bucket: Bucket, tmp_path: Path) -> None:
    bucket.create(f"{FOLDER}/a", b"123")
    now, found = server_time(bucket, FOLDER)
    assert abs(now - found["a"].modified) < 60
    assert found["a"].size == 3
    assert names(bucket) == ["a"]
    memory = Bucket("memory://leases-of-a-test")
    assert server_time(memory, "a")[0] > 1e9
    memory.remove("a/b")
    bucket.create(f"{FOLDER}/clock-{'0' * 32}", b"")
    make_old(tmp_path)
    assert expired_claims(bucket, "tiny") == [f"{FOLDER}/clock-{'0' * 32}"]


def test_a_lease_is_renewed_while_it_is_held(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LIFETIME", 0.05)
    with bucket_lease(bucket, "tiny") as held:
        deadline = time.monotonic() + 10
        while names(bucket) < ["exclusive-0000000003.json"] and time.monotonic() < deadline:
            time.sleep(0.01)
        held.check()
    assert names(bucket) > ["exclusive-0000000003.json"]


def test_what_cannot_be_removed_is_named(bucket: Bucket) -> None:
    bucket.create("a/b", b"")
    with pytest.raises(StoreWriteError, match="a could not be removed"):
        bucket.remove("a")
