"""Merging of small shards in an object store, and readers that hold an earlier list."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bucket_stores import push, reopen
from featcache.errors import LeaseLost, StoreCorrupt, StoreMismatch, StoreWriteError
from featcache.store.bucket import compaction
from featcache.store.bucket import store as bucket_store
from featcache.store.bucket.compaction import compact_bucket
from featcache.store.bucket.leases import BucketLease, bucket_lease
from featcache.store.bucket.manifests import change_shards, store_prefix
from featcache.store.bucket.objects import Bucket
from featcache.store.bucket.store import BucketStore
from featcache.store.transfer import copy_rows
from stores import BOTH, SPEC, WIDTH, as_stored, ids_of, rows_of

pytest.importorskip("fsspec", reason="fsspec is not installed")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket"


def remove_unlisted(store: BucketStore) -> None:
    """Remove the objects of shards that are not listed, as `gc` does after a day."""
    for name in store.bucket.objects(store_prefix(store.folder.name)):
        if name.removesuffix(".head") not in store.manifest.shards:
            store.bucket.remove(f"{store_prefix(store.folder.name)}/{name}")


@pytest.mark.parametrize("spec", BOTH)
def test_small_shards_are_merged_and_readers_go_on(spec: Any, url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1, 2), (3,), (4, 5), (6,), spec=spec)
    early, copying = reopen(url, tmp_path / "b", spec), reopen(url, tmp_path / "c", spec)
    store = reopen(url, tmp_path / "d", spec)
    assert compact_bucket(store, many=5) == 0
    assert compact_bucket(store, many=4) == 4
    assert len(store.shard_names) == 1
    assert np.array_equal(early.read(ids_of(6, 1)), as_stored(rows_of(6, 1), spec))
    assert len(early.shard_names) == 4
    remove_unlisted(store)
    assert np.array_equal(early.read(ids_of(4, 1)), as_stored(rows_of(4, 1), spec))
    assert len(early.shard_names) == 1
    assert copy_rows(copying, tmp_path / "c").rows == 6
    assert store.damaged == []
    assert compact_bucket(store, many=1) == 0


def test_the_size_of_merged_shards_is_bounded(url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", *[(i,) for i in range(6)])
    store = reopen(url, tmp_path / "b")
    per_row = store.spec.row_bytes(WIDTH) + 64
    assert compact_bucket(store, many=2, small=2 * per_row, merged=2 * per_row) == 6
    assert len(store.shard_names) == 3
    assert compact_bucket(store, many=2, small=2 * per_row) == 0  # they are not small now
    assert np.array_equal(store.read(ids_of(*range(6))), rows_of(*range(6)))


def test_rows_that_are_stored_twice_are_merged_into_one(url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1, 2))
    store = reopen(url, tmp_path / "b")
    (name,) = store.shard_names
    found = store.read_shard(name)
    assert found is not None
    data = (store.folder / name).read_bytes()
    twice = compaction.ShardWriter(store.bucket, SPEC.folder).create(data, *found)
    change_shards(store.bucket, SPEC.folder, store.folder, store.manifest, add={twice: 2})
    store.refresh()
    assert compact_bucket(store, many=2) == 2
    assert dict(store.manifest.shards) == {store.shard_names[0]: 2}


def test_rows_that_are_added_at_the_same_time_stay(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(url, tmp_path / "a", (1,), (2,))
    store = reopen(url, tmp_path / "b")
    change = compaction.change_shards

    def late(*arguments: Any, **options: Any) -> Any:
        push(url, tmp_path / "c", (3,))
        return change(*arguments, **options)

    monkeypatch.setattr(compaction, "change_shards", late)
    assert compact_bucket(store, many=2) == 2
    assert np.array_equal(store.read(ids_of(1, 2, 3)), rows_of(1, 2, 3))


def test_what_another_process_replaces_is_left(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(url, tmp_path / "a", (1,), (2,))
    store, other = reopen(url, tmp_path / "b"), reopen(url, tmp_path / "c")
    with bucket_lease(store.bucket, SPEC.folder):
        assert compact_bucket(store, many=2) == 0
    change = compaction.change_shards

    def overtaken(*arguments: Any, **options: Any) -> Any:
        change(
            other.bucket, SPEC.folder, other.folder, other.manifest, remove=other.shard_names[:1]
        )
        return change(*arguments, **options)

    monkeypatch.setattr(compaction, "change_shards", overtaken)
    assert compact_bucket(store, many=2) == 0
    assert len(store) == 1  # no row comes back


def test_a_store_that_cannot_be_merged_stays_as_it_is(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    push(url, tmp_path / "a", (1,), (2,))
    store = reopen(url, tmp_path / "b")

    def refused(*arguments: Any) -> bool:
        raise StoreWriteError("403")

    def lost(self: BucketLease) -> None:
        raise LeaseLost("lost")

    for method, function in (("create", refused), ("check", lost)):
        with monkeypatch.context() as patch:
            patch.setattr(BucketLease if method == "check" else Bucket, method, function)
            assert compact_bucket(store, many=2) == 0
    assert "were not merged: 403" in caplog.text
    assert "were not merged: lost" in caplog.text
    (first, second) = store.shard_names
    os.truncate(tmp_path / "bucket" / store_prefix(SPEC.folder) / first, 10)
    assert compact_bucket(store, many=2) == 0
    assert store.shard_names == [first, second]


def test_a_removed_shard_whose_metadata_are_gone_is_no_damage(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(url, tmp_path / "a", (1,), (2,))
    latest, other = bucket_store.latest_manifest, reopen(url, tmp_path / "c")
    calls: list[str] = []

    def outdated(*arguments: Any) -> Any:
        found = latest(*arguments)
        if not calls:
            calls.append("merged")
            assert compact_bucket(other, many=2) == 2
            remove_unlisted(other)
        return found

    monkeypatch.setattr(bucket_store, "latest_manifest", outdated)
    store = reopen(url, tmp_path / "b")
    assert calls
    assert store.damaged == []
    assert np.array_equal(store.read(ids_of(2, 1)), rows_of(2, 1))


def test_metadata_that_were_cut_off_are_read_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    push(url, tmp_path / "a", (1,))
    read, short = Bucket.read, list[str]()

    def cut(self: Bucket, name: str, limit: int) -> bytes | None:
        found = read(self, name, limit)
        if name.endswith(".head") and len(short) < 2 and found is not None:
            short.append(name)
            return found[:20]
        return found

    monkeypatch.setattr(Bucket, "read", cut)
    assert len(reopen(url, tmp_path / "b")) == 1
    assert caplog.text == ""
    (sidecar,) = (tmp_path / "bucket" / store_prefix(SPEC.folder)).glob("*.head")
    sidecar.write_bytes(b"damaged")
    store = reopen(url, tmp_path / "c")
    assert len(store.damaged) == 1
    assert "metadata of the shard" in caplog.text


def test_metadata_of_another_spec_are_not_used(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(url, tmp_path / "a", (1,))

    def differs(*arguments: Any) -> None:
        raise StoreMismatch("of another spec")

    monkeypatch.setattr(bucket_store, "check_metadata", differs)
    assert len(reopen(url, tmp_path / "b").damaged) == 1


def test_a_listed_shard_without_an_object_is_an_error(url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1,))
    store = reopen(url, tmp_path / "b")
    (path,) = (tmp_path / "bucket" / store_prefix(SPEC.folder)).glob("*.h5")
    path.unlink()
    with pytest.raises(StoreCorrupt, match="has no such object"):
        store.read(ids_of(1))
