"""Removal of objects, rows and stores in an object store; time is that of the server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bucket_stores import push, reopen
from featcache._io.hashes import json_hash
from featcache.errors import StoreError, StoreWriteError
from featcache.store.bucket import collection, compaction, manifests, removal
from featcache.store.bucket.collection import collect_objects
from featcache.store.bucket.compaction import compact_bucket
from featcache.store.bucket.leases import BucketLease, bucket_lease, mark_bucket_in_use
from featcache.store.bucket.manifests import change_shards, listed_numbers, store_prefix
from featcache.store.bucket.objects import Bucket, ObjectState
from featcache.store.bucket.removal import remove_all_shards, remove_bucket_rows, unused_seconds
from featcache.store.bucket.store import BucketStore
from featcache.store.removal import Removal, Removals
from stores import SPEC, ids_of, rows_of

pytest.importorskip("fsspec", reason="fsspec is not installed")

NAME = SPEC.folder
DAY = 86400.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket"


def days_later(tmp_path: Path, days: float) -> None:
    """Let time pass on the server."""
    for path in (tmp_path / "bucket").rglob("*"):
        modified = path.stat().st_mtime - days * DAY
        os.utime(path, (modified, modified))


def collect(store: BucketStore, **options: Any) -> Removals:
    return collect_objects(store.bucket, NAME, store.folder, **options)


def objects(store: BucketStore) -> set[str]:
    return {one for one in store.bucket.objects(store_prefix(NAME)) if one.endswith(".h5")}


def test_merged_shards_are_removed_a_day_later(url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1,), (2,))
    store = reopen(url, tmp_path / "b")
    days_later(tmp_path, 3)
    compact_bucket(store, many=2)
    early = objects(store)
    assert collect(store) == []  # another process may hold the list before the merge
    days_later(tmp_path, 0.9)
    assert collect(store) == []
    days_later(tmp_path, 0.2)
    would = collect(store, dry_run=True)
    assert objects(store) == early
    found = collect(store)
    assert found == would
    assert [(one.name, one.rows) for one in found] == [(NAME, 0)]
    assert "4 objects" in found[0].reason
    assert found[0].bytes > 0
    assert found.kept == []
    assert objects(store) == set(store.manifest.shards)
    assert np.array_equal(reopen(url, tmp_path / "c").read(ids_of(1, 2)), rows_of(1, 2))
    assert collect(store) == []


def test_what_killed_writers_left_is_removed_a_day_later(url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1,), (2,))
    store = reopen(url, tmp_path / "b")
    name = store.shard_names[0]
    found = store.read_shard(name)
    assert found is not None
    data = (store.folder / name).read_bytes()
    left = compaction.ShardWriter(store.bucket, NAME).create(data, *found)
    store.bucket.create(f"{store_prefix(NAME)}/notes.txt", b"of a user")
    assert collect(store) == []
    assert collect(store, grace=0)[0].reason.startswith("2 objects")
    assert left not in objects(store)
    with pytest.raises(StoreWriteError, match="may have removed it"):  # as if it was suspended
        change_shards(
            store.bucket, NAME, store.folder, store.manifest, add={left: 1}, known=store.manifest
        )
    assert len(reopen(url, tmp_path / "c")) == 2
    assert "notes.txt" in store.bucket.objects(store_prefix(NAME))


def test_what_is_listed_in_the_last_moment_stays(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(url, tmp_path / "a", (1,), (2,))
    store = reopen(url, tmp_path / "b")
    shards = dict(store.manifest.shards)
    name = store.shard_names[0]
    change_shards(store.bucket, NAME, store.folder, store.manifest, remove=[name])
    days_later(tmp_path, 2)

    def list_again(*arguments: Any, **options: Any) -> Any:
        change_shards(store.bucket, NAME, store.folder, store.manifest, add={name: shards[name]})
        return change_shards(*arguments, **options)

    monkeypatch.setattr(collection, "change_shards", list_again)
    assert collect(store) == []
    assert objects(store) == set(shards)


def test_a_listing_that_lags_behind_removes_nothing_that_is_listed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(url, tmp_path / "a", (1,), (2,))
    store = reopen(url, tmp_path / "b")
    compact_bucket(store, many=2)
    push(url, tmp_path / "c", (3,))
    days_later(tmp_path, 2)
    states = Bucket.states

    def lagging(self: Bucket, folder: str) -> dict[str, ObjectState]:
        found = states(self, folder)
        return {n: s for n, s in found.items() if not n.startswith(("change", "snapshot"))}

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "states", lagging)
        assert collect(store) == []  # changes that are not listed may be recent
    assert len(collect(store)) == 1
    assert np.array_equal(reopen(url, tmp_path / "d").read(ids_of(3, 1)), rows_of(3, 1))


def test_old_changes_are_removed_and_everyone_goes_on(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "SNAPSHOT_EVERY", 3)
    push(url, tmp_path / "a", (0,))
    early = reopen(url, tmp_path / "b")
    assert collect(early, grace=0) == []
    for n in range(1, 12):
        push(url, tmp_path / f"{n}", (n,))
    assert collect(early) == []
    days_later(tmp_path, 2)
    assert listed_numbers(early.bucket, NAME) == (list(range(1, 13)), [3, 6, 9, 12])
    early.bucket.remove(manifests.change_key(NAME, 5))  # by hand: the snapshots hold its shard
    would = collect(early, dry_run=True)
    assert collect(early) == would
    assert [one.reason[:10] for one in would] == ["8 objects "]
    assert listed_numbers(early.bucket, NAME) == ([1, 9, 10, 11, 12], [9, 12])
    numbers = range(12)
    for store in (early, reopen(url, tmp_path / "c")):
        store.refresh()
        assert np.array_equal(store.read(ids_of(*numbers)), rows_of(*numbers))
    push(url, tmp_path / "d", (20,))
    assert len(reopen(url, tmp_path / "c")) == 13


def test_snapshots_that_are_wrong_keep_the_changes(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "SNAPSHOT_EVERY", 2)
    for n in range(7):
        push(url, tmp_path / f"{n}", (n,))
    store = reopen(url, tmp_path / "b")
    path = tmp_path / "bucket" / manifests.snapshot_key(NAME, 4)
    body = json.loads(path.read_text())
    del body["checksum"]
    body["shards"].popitem()
    path.write_text(json.dumps({**body, "checksum": json_hash(body)}))
    days_later(tmp_path, 2)
    (kept,) = collect(store).kept
    assert "does not give the present list" in kept.reason
    assert kept.failed
    assert listed_numbers(store.bucket, NAME)[0] == list(range(1, 8))


def test_a_damaged_change_before_a_snapshot_is_no_hindrance(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "SNAPSHOT_EVERY", 2)
    for n in range(5):
        push(url, tmp_path / f"{n}", (n,))
    store = reopen(url, tmp_path / "b")
    (tmp_path / "bucket" / manifests.change_key(NAME, 2)).write_bytes(b"damaged")
    found = collect(store)
    assert (list(found), found.kept) == ([], [])


def test_nothing_is_removed_without_the_lease(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(url, tmp_path / "a", (1,), (2,))
    store = reopen(url, tmp_path / "b")
    compact_bucket(store, many=2)
    before = objects(store)
    with bucket_lease(store.bucket, NAME):
        (kept,) = collect(store, grace=0).kept
        assert not kept.failed
    assert collect_objects(store.bucket, "none", store.folder).kept[0].failed
    remove, calls = Bucket.remove, list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(BucketLease, "still_held", lambda self: False)
        (kept,) = collect(store, grace=0).kept
        assert "taken over" in kept.reason
    assert objects(store) == before

    def refused(self: Bucket, name: str) -> None:
        if name.endswith(".head"):
            calls.append(name)
            raise StoreWriteError("403")
        remove(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "remove", refused)
        found = collect(store, grace=0)
        assert found[0].reason.startswith("1 object ")
        assert found.kept[0].reason == "403"
    assert collect(store, grace=0)[0].reason.startswith("3 objects")


def test_marks_of_ended_processes_are_removed(url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1,))
    store = reopen(url, tmp_path / "b")
    with mark_bucket_in_use(store.bucket, NAME):
        days_later(tmp_path, 1)
        assert collect(store) == []
        assert not [one for one in store.bucket.objects(f"leases/{NAME}") if "use-" in one]


def test_all_rows_are_removed_from_the_list(url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1, 2), (3,))
    store, early = reopen(url, tmp_path / "b"), reopen(url, tmp_path / "c")
    with mark_bucket_in_use(store.bucket, NAME):
        for dry_run in (False, True):
            kept = remove_all_shards(store, "test", dry_run=dry_run)
            assert "in use" in kept.reason
    with bucket_lease(store.bucket, NAME):
        assert "another process" in remove_all_shards(store, "test").reason
    would = remove_all_shards(store, "test", dry_run=True)
    assert remove_all_shards(store, "test") == would
    assert isinstance(would, Removal)
    assert would.rows == 3
    assert would.bytes > 1000
    assert len(reopen(url, tmp_path / "d")) == 0
    assert np.array_equal(early.read(ids_of(3, 2)), rows_of(3, 2))
    days_later(tmp_path, 2)
    assert collect(store)[0].bytes == would.bytes
    push(url, tmp_path / "e", (1,))
    assert len(reopen(url, tmp_path / "d")) == 1


def test_rows_of_other_images_are_removed(url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1, 2, 3), (4,), (5, 6))
    store, kept = reopen(url, tmp_path / "b"), set(ids_of(1, 3, 5, 6, 9))
    with mark_bucket_in_use(store.bucket, NAME):
        for dry_run in (False, True):
            assert "in use" in remove_bucket_rows(store, kept, dry_run=dry_run).kept[0].reason
    with bucket_lease(store.bucket, NAME):
        assert "another process" in remove_bucket_rows(store, kept).kept[0].reason
    would = remove_bucket_rows(store, kept, dry_run=True)
    assert remove_bucket_rows(store, kept) == would
    assert would[0].rows == 2
    found = reopen(url, tmp_path / "c")
    assert sorted(found.ids()) == sorted(ids_of(1, 3, 5, 6))
    assert np.array_equal(found.read(ids_of(3, 6, 1, 5)), rows_of(3, 6, 1, 5))
    assert remove_bucket_rows(store, kept) == []


def test_rows_that_cannot_be_removed_are_reported(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(url, tmp_path / "a", (1, 2), (4,))
    store = reopen(url, tmp_path / "b")
    (bad,) = [path for path in (tmp_path / "bucket").rglob("*.h5") if "-2-" in path.name]
    bad.write_bytes(bad.read_bytes()[:-9])
    found = remove_bucket_rows(store, ids_of(1))
    assert found[0].rows == 1
    assert "1 of the rows to remove are left" in found.kept[0].reason
    found = remove_bucket_rows(store, ids_of(1))
    assert (list(found), found.kept[0].failed) == ([], True)

    def refused(*arguments: Any, **options: Any) -> None:
        raise StoreError("503")

    monkeypatch.setattr(removal, "change_shards", refused)
    for kept in (remove_bucket_rows(store, []).kept[0], remove_all_shards(store, "test")):
        assert kept.reason == "503"


def test_the_time_of_last_use(url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1,))
    store = reopen(url, tmp_path / "b")
    assert unused_seconds(store) < 60
    days_later(tmp_path, 3)
    collect(store)
    assert 3 * DAY - 60 < unused_seconds(store) < 3 * DAY + 60
    with mark_bucket_in_use(store.bucket, NAME):
        pass
    assert unused_seconds(store) < 60
