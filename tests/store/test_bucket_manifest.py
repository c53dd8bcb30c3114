"""The log of changes by which a store in an object store lists its shards."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache._io.hashes import json_hash
from featcache.errors import StoreCorrupt, StoreError, StoreMismatch, StoreWriteError
from featcache.hdf5.shard_name import make_shard_name
from featcache.store.bucket import fields, manifests
from featcache.store.bucket.manifests import (
    BucketManifest,
    ShardsChanged,
    change_key,
    change_shards,
    latest_manifest,
    listed_numbers,
    snapshot_key,
)
from featcache.store.bucket.objects import Bucket
from featcache.store.manifest import Manifest
from stores import SPEC, WIDTH

pytest.importorskip("fsspec", reason="fsspec is not installed")

NAME = SPEC.folder
MIRROR = Path("/nowhere") / NAME
FIRST = Manifest(SPEC, WIDTH, metadata={"backbone": "tiny"})


def shard(number: int) -> str:
    return make_shard_name("0" * 8, number, number + 1, f"{number:064x}")


def added(*numbers: int) -> dict[str, int]:
    return {shard(number): number + 1 for number in numbers}


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(f"memory://{uuid.uuid4().hex}/cache")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "SNAPSHOT_EVERY", 3)


def change(bucket: Bucket, *add: int, remove: Any = (), known: Any = None) -> BucketManifest:
    return change_shards(
        bucket, NAME, MIRROR, FIRST,
        add=added(*add), remove=[shard(n) for n in remove], known=known,
    )  # fmt: skip


def shards_of(bucket: Bucket, known: BucketManifest | None = None) -> dict[str, int]:
    found = latest_manifest(bucket, NAME, MIRROR, known)
    assert found is not None
    return dict(found.shards)


def rewrite(bucket: Bucket, key: str, edit: Callable[[Any], Any], *, sign: bool = True) -> None:
    """Write an object again with other fields, and by default the checksum that fits them."""
    path = f"{bucket._root}/{key}"
    body = json.loads(bucket._system.cat_file(path))
    if sign:
        del body["checksum"]
    edit(body)
    if sign:
        body = {**body, "checksum": json_hash(body)}
    bucket._system.pipe_file(path, json.dumps(body).encode())


def remove(bucket: Bucket, key: str) -> None:
    bucket._system.rm_file(f"{bucket._root}/{key}")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_readers_see_the_changes_of_all_writers(seed: int) -> None:
    bucket, source = Bucket(f"memory://{uuid.uuid4().hex}/cache"), random.Random(seed)
    model: dict[str, int] = {}
    known: list[BucketManifest | None] = [None, None, None]
    numbers = iter(range(1000))
    for _ in range(source.randrange(1, 16)):
        who = source.randrange(3)  # each knows the list as it was when it looked
        if source.random() < 0.3:
            known[who] = found = latest_manifest(bucket, NAME, MIRROR, known[who])
            assert dict(found.shards if found else {}) == model
            continue
        add = {shard(n): n + 1 for n in (next(numbers) for _ in range(source.randrange(3)))}
        gone = source.sample(sorted(model), min(len(model), source.randrange(2)))
        known[who] = change_shards(
            bucket, NAME, MIRROR, FIRST, add=add, remove=gone, known=known[who]
        )
        model = {name: rows for name, rows in {**model, **add}.items() if name not in gone}
        assert dict(shards_of(bucket, known[who])) == model
        _, snapshots = listed_numbers(bucket, NAME)
        if len(snapshots) > 2 and source.random() < 0.3:  # what a garbage collection may remove
            for number in listed_numbers(bucket, NAME)[0]:
                if 1 < number < snapshots[-2]:
                    remove(bucket, change_key(NAME, number))
            for number in snapshots[:-2]:
                remove(bucket, snapshot_key(NAME, number))
    for one in (None, *known):
        found = latest_manifest(bucket, NAME, MIRROR, one)
        assert dict(found.shards if found else {}) == model
        assert found is None or found.metadata == FIRST.metadata


def test_a_reader_reads_what_is_new(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        known = change(bucket, number)
    assert listed_numbers(bucket, NAME) == ([1, 2, 3, 4, 5, 6, 7], [3, 6])
    reads, read = list[str](), Bucket.read
    monkeypatch.setattr(Bucket, "read", lambda *a: reads.append(a[1]) or read(*a))
    assert shards_of(bucket) == shards_of(bucket, known) == added(*range(7))
    assert reads == [
        snapshot_key(NAME, 6), change_key(NAME, 6), change_key(NAME, 7), change_key(NAME, 8),
        change_key(NAME, 7), change_key(NAME, 8),
    ]  # fmt: skip


def test_a_change_is_small_however_many_shards_there_are(bucket: Bucket) -> None:
    change(bucket, *range(200))
    change(bucket, 200)
    sizes = bucket.objects(manifests.manifest_folder(NAME))
    assert sizes["change-0000000002.json"] < sizes["change-0000000001.json"] / 8


def test_removals_of_what_is_not_listed_are_refused(bucket: Bucket) -> None:
    change(bucket, 1, 2, 3)
    known = change(bucket, 4, remove=[1, 2])
    assert change(bucket, 4, remove=[1, 2]) == replace(known, snapshot=0)  # a repeated request
    with pytest.raises(ShardsChanged, match="1 of the 2 shards to remove"):
        change(bucket, 5, remove=[2, 3])
    assert shards_of(bucket) == added(3, 4)
    assert change(bucket).generation == 2
    with pytest.raises(ShardsChanged):
        change_shards(bucket, "other", MIRROR, FIRST, remove=[shard(1)])


def test_a_store_begins_without_shards(bucket: Bucket) -> None:
    assert latest_manifest(bucket, NAME, MIRROR) is None
    assert change(bucket).generation == 1
    with pytest.raises(StoreMismatch, match="another spec or width"):
        change_shards(bucket, NAME, MIRROR, replace(FIRST, width=WIDTH + 1))


def _of_another_spec(body: Any) -> None:
    other = replace(SPEC, row_dtype="float16")
    body.update(spec=other.components(), key=other.key)


@pytest.mark.parametrize(
    "edit",
    [
        lambda body: body.update(generation=4),
        lambda body: body.update(previous="0" * 64),
        lambda body: body.pop("previous"),
        lambda body: body.update(removed=[shard(77)]),
        lambda body: body.update(removed=7),
        lambda body: body.pop("removed"),
        lambda body: body.update(width=WIDTH + 1),
        lambda body: body.update(shards={"../x.h5": 1}),
        _of_another_spec,
    ],
)
def test_a_malformed_change_is_an_error(bucket: Bucket, edit: Any) -> None:
    for number in range(5):
        known = change(bucket, number)
    before = known
    change(bucket, 9)
    remove(bucket, snapshot_key(NAME, 6))
    rewrite(bucket, change_key(NAME, 6), edit)
    for one in (None, before):
        with pytest.raises(StoreCorrupt, match=rf"{bucket.url}/.*change-0000000006"):
            latest_manifest(bucket, NAME, MIRROR, one)


@pytest.mark.parametrize("edit", [
    lambda body: body.update(change="x"), lambda body: body.pop("change"),
    lambda body: body.update(generation=2), lambda body: body.update(change="0" * 64),
])  # fmt: skip
def test_a_malformed_snapshot_is_an_error(bucket: Bucket, edit: Any) -> None:
    for number in range(4):
        change(bucket, number)
    rewrite(bucket, snapshot_key(NAME, 3), edit)
    with pytest.raises(StoreCorrupt, match="cannot be used"):
        latest_manifest(bucket, NAME, MIRROR)
    remove(bucket, snapshot_key(NAME, 3))  # as the message says
    assert shards_of(bucket) == added(*range(4))


def test_every_object_has_a_checksum(bucket: Bucket) -> None:
    for number in range(4):
        known = change(bucket, number)
    for key in (snapshot_key(NAME, 3), change_key(NAME, 4)):
        intact = bucket.read(key, 10**6)
        rewrite(bucket, key, lambda body: body["shards"].clear(), sign=False)
        with pytest.raises(StoreCorrupt, match="its checksum does not fit"):
            latest_manifest(bucket, NAME, MIRROR)
        bucket._system.pipe_file(f"{bucket._root}/{key}", intact)
    assert shards_of(bucket, known) == added(*range(4))


def test_no_list_is_written_that_is_too_large_to_be_read(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (fields, manifests):
        monkeypatch.setattr(module, "MAX_BYTES", 2500)
    for number in range(24):  # the last snapshots would be too large
        known = change(bucket, number)
    assert shards_of(bucket) == added(*range(24))
    with pytest.raises(StoreWriteError, match="readers accept 2,500"):
        change(bucket, *range(24, 60))
    assert shards_of(bucket) == added(*range(24))
    assert change(bucket, 24, known=known).shards == added(*range(25))


def test_a_missing_change_is_an_error_and_no_shorter_list(bucket: Bucket) -> None:
    for number in range(5):
        known = change(bucket, number)
    remove(bucket, change_key(NAME, 4))
    assert shards_of(bucket, known) == added(*range(5))
    with pytest.raises(StoreCorrupt, match=r"change-0000000004.json.*it is missing, but change 5"):
        latest_manifest(bucket, NAME, MIRROR)


def test_a_change_that_was_removed_and_made_again_is_noticed(bucket: Bucket) -> None:
    change(bucket, 1)
    before = change(bucket, 2)
    remove(bucket, change_key(NAME, 2))  # as an error message advises for a damaged one
    change(bucket, 3)
    assert shards_of(bucket, before) == added(1, 3)
    assert change(bucket, 2, known=before).generation == 3
    assert shards_of(bucket) == shards_of(bucket, before) == added(1, 2, 3)


def test_a_snapshot_that_is_gone_is_looked_for_again(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        change(bucket, number)
    listed = [([6], [6, 9]), ([6], [6])]
    monkeypatch.setattr(manifests, "listed_numbers", lambda *_: listed.pop(0))
    assert shards_of(bucket) == added(*range(6))
    monkeypatch.setattr(manifests, "listed_numbers", lambda *_: ([6], [9]))
    with pytest.raises(StoreCorrupt, match="it is listed, but missing"):
        latest_manifest(bucket, NAME, MIRROR)


def test_a_snapshot_that_cannot_be_written_is_no_failure(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Bucket.create

    def refusing(self: Bucket, name: str, data: bytes) -> bool:
        if "snapshot" in name:
            raise StoreWriteError("refused")
        return create(self, name, data)

    with monkeypatch.context() as inner:
        inner.setattr(Bucket, "create", refusing)
        for number in range(4):
            change(bucket, number)
    assert listed_numbers(bucket, NAME)[1] == []
    change(bucket, 4)
    assert listed_numbers(bucket, NAME)[1] == [5]
    assert shards_of(bucket) == added(*range(5))


def test_a_writer_that_is_never_first_gives_up(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    monkeypatch.setattr(Bucket, "create", lambda *_: False)
    with pytest.raises(StoreError, match="other writers during each of 50"):
        change(bucket, 1)
    assert len(waits) == 50
    assert max(waits) <= 2


def test_what_may_have_been_removed_is_not_listed(bucket: Bucket) -> None:
    known = change(bucket, 1)
    key = f"stores/{NAME}/{shard(2)}"
    bucket.create(key, b"")
    state = bucket.state(key)
    assert state is not None
    collect = change_shards(bucket, NAME, MIRROR, FIRST, collected=state.modified + 1)
    assert collect.shards == known.shards
    assert change_shards(bucket, NAME, MIRROR, FIRST, collected=state.modified) == collect
    for n in range(5):  # also from a snapshot
        for earlier in (None, known, latest(bucket)):
            with pytest.raises(StoreWriteError, match="may have removed it"):
                change(bucket, 2, known=earlier)
        later = change_shards(bucket, NAME, MIRROR, FIRST, collected=state.modified + 2 + n)
        assert later.collected == latest(bucket).collected == state.modified + 2 + n
    with pytest.raises(StoreWriteError, match="may have removed it"):
        change(bucket, 3, known=known)
    change_shards(bucket, NAME, MIRROR, FIRST, add=added(1), known=known)
    assert bucket.state("nothing") is None


def latest(bucket: Bucket) -> BucketManifest:
    found = latest_manifest(bucket, NAME, MIRROR)
    assert found is not None
    return found


@pytest.mark.parametrize("suspended", [1, 2, 3])
def test_a_suspended_writer_makes_no_change_that_readers_do_not_find(
    suspended: int, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is that of a change which was removed, since snapshots follow it."""
    for n in range(suspended):
        known = change(bucket, n)
    create, woken = Bucket.create, []

    def slow(self: Bucket, name: str, data: bytes) -> bool:
        if not woken:
            woken.append(name)
            for n in range(10, 20):
                change(bucket, n)
            before = listed_numbers(bucket, NAME)[1][-2]
            for number in range(2, before):
                remove(bucket, change_key(NAME, number))
        return create(self, name, data)

    monkeypatch.setattr(Bucket, "create", slow)
    found = change(bucket, 99, known=known)
    assert woken == [change_key(NAME, suspended + 1)]
    assert shard(99) in found.shards
    assert shards_of(bucket) == shards_of(bucket, known) == added(
        *range(suspended), *range(10, 20), 99
    )  # fmt: skip


def test_what_was_created_since_is_listed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    known = change(bucket, 1)
    change_shards(bucket, NAME, MIRROR, FIRST, collected=1.0)
    bucket.create(f"stores/{NAME}/{shard(2)}", b"")
    assert change(bucket, 2, known=known).shards == added(1, 2)
    several = range(3, 20)
    for n in several:
        bucket.create(f"stores/{NAME}/{shard(n)}", b"")
    assert change(bucket, *several).shards == added(1, 2, *several)

    def refused(path: str) -> None:
        raise OSError("503")

    monkeypatch.setattr(bucket._system, "info", refused, raising=False)
    with pytest.raises(StoreError, match="cannot be read"):
        bucket.state("a")
