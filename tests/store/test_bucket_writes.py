"""Rows that are written to a store in an object store, by several processes at once."""

from __future__ import annotations

import pickle
import random
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import featcache
from featcache.errors import (
    InvalidRequest,
    StoreError,
    StoreMismatch,
    StoreWriteError,
    UnknownStore,
)
from featcache.store import quarantine
from featcache.store.bucket import lister as lister_module
from featcache.store.bucket import store as bucket_store
from featcache.store.bucket import writable
from featcache.store.bucket.collection import collect_objects
from featcache.store.bucket.leases import (
    BucketLease,
    bucket_lease,
    claims_folder,
    is_bucket_in_use,
)
from featcache.store.bucket.lister import ShardLister
from featcache.store.bucket.objects import Bucket
from featcache.store.bucket.place import BucketPlace
from featcache.store.bucket.removal import remove_all_shards
from featcache.store.bucket.writable import WritableBucketStore
from featcache.store.place import place_of
from featcache.store.removal import Removal
from stores import BOTH, SPEC, WIDTH, as_stored, ids_of, rows_of

pytest.importorskip("fsspec", reason="fsspec is not installed")


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket" if request.param == "file" else memory_url()


@pytest.fixture
def memory() -> str:
    return memory_url()


def memory_url() -> str:
    return f"memory://{uuid.uuid4().hex}/prefix"


def place(url: str, cache: Path, spec: Any = SPEC) -> BucketPlace:
    return BucketPlace.of(cache, url, spec.folder)


def writer(url: str, cache: Path, spec: Any = SPEC) -> WritableBucketStore:
    return place(url, cache, spec).create(spec, WIDTH, {"backbone": "tiny"})


def add(store: WritableBucketStore, *numbers: int) -> str:
    return store.append(rows_of(*numbers), ids_of(*numbers), {"seconds": "6.0"})


def objects(url: str, ending: str) -> list[str]:
    return [one for one in Bucket(url).objects(f"stores/{SPEC.folder}") if one.endswith(ending)]


@pytest.mark.parametrize("spec", BOTH)
def test_rows_are_read_back_here_and_elsewhere(spec: Any, url: str, tmp_path: Path) -> None:
    store = writer(url, tmp_path / "a", spec)
    assert len(store) == 0
    names = {add(store, 1, 2, 3), add(store, 4)}
    for cache in ("a", "b"):
        found = place(url, tmp_path / cache, spec).open(spec, WIDTH, {})
        assert found is not None
        assert set(found.shard_names) == names
        numbers = (4, 2, 1, 3, 2)
        assert np.array_equal(found.read(ids_of(*numbers)), as_stored(rows_of(*numbers), spec))
        assert found.metadata == {"backbone": "tiny"}
        assert found.seconds_per_image() == 3.0
    assert store.manifest.generation == 3
    store.write_manifest()
    store.write_manifest_under_lease(without=names)
    assert writer(url, tmp_path / "c", spec).manifest.generation == 3


def test_what_was_written_here_is_not_fetched(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(writer(memory, tmp_path), 1, 2)
    reads, read = list[str](), Bucket.read
    monkeypatch.setattr(Bucket, "read", lambda *a: reads.append(a[1]) or read(*a))
    again = writer(memory, tmp_path)
    assert np.array_equal(again.read(ids_of(2)), rows_of(2))
    assert not [name for name in reads if ".h5" in name]


def test_copies_of_what_is_written_have_a_limit(memory: str, tmp_path: Path) -> None:
    first = writer(memory, tmp_path / "a")
    add(first, 0)
    (copy,) = first.folder.glob("*.h5")
    few = WritableBucketStore(
        memory, SPEC.folder, tmp_path / "b", max_bytes=3 * copy.stat().st_size
    )
    for number in range(1, 7):
        add(few, number)
    assert len(list(few.folder.glob("*.h5"))) <= 3
    few.refresh()
    assert np.array_equal(few.read(ids_of(*range(7))), rows_of(*range(7)))


def test_a_worker_lists_its_own_shards_of_a_large_store(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, other = (
        BucketPlace.of(tmp_path / tag, memory, SPEC.folder, tag) for tag in ("abcdef", "123456")
    )
    store = task.create(SPEC, WIDTH, {})
    own, theirs = add(store, 1, 2), add(other.create(SPEC, WIDTH, {}), 3)
    assert (own[:6], theirs[:6]) == ("abcdef", "123456")
    task.refresh(store)
    assert store.contains(ids_of(1, 2, 3)).tolist() == [True, True, True]
    monkeypatch.setattr(bucket_store, "MAX_LISTED", 1)
    task.refresh(store)
    assert store.contains(ids_of(1, 2, 3)).tolist() == [True, True, False]
    other.refresh(pickle.loads(pickle.dumps(store)))
    other.refresh(store)
    assert store.contains(ids_of(1, 2, 3)).tolist() == [False, False, True]
    everything = place(memory, tmp_path / "reader").open(SPEC, WIDTH, {})
    assert everything is not None
    assert len(everything) == 3


def test_a_full_disk_here_costs_no_row(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = writer(memory, tmp_path)

    def full(*arguments: Any, **options: Any) -> None:
        raise StoreWriteError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("featcache.store.bucket.fetching.write_atomic", full)
        add(store, 1)
    store.refresh()
    assert np.array_equal(store.read(ids_of(1)), rows_of(1))


@pytest.mark.parametrize("refused", [".h5", ".head", "/change-"])
def test_a_lost_connection_says_what_is_committed(
    refused: str, memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, create = writer(memory, tmp_path), Bucket.create
    add(store, 1, 2)

    def lost(self: Bucket, name: str, data: bytes) -> bool:
        if refused in name:
            raise StoreWriteError(f"{self.url}/{name} could not be written: no route to host.")
        return create(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "create", lost)
        with pytest.raises(StoreWriteError, match=r"1 row could not .*no route.*committed 2 rows"):
            add(store, 3)
    assert not writer(memory, tmp_path / "b").contains(ids_of(3)).any()
    add(store, 3)
    found = writer(memory, tmp_path / "c")
    assert np.array_equal(found.read(ids_of(3, 1)), rows_of(3, 1))
    assert found.damaged == []


def test_other_errors_are_passed_on(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = writer(memory, tmp_path)

    def other(*arguments: Any, **options: Any) -> None:
        raise StoreMismatch("another width")

    monkeypatch.setattr(writable, "change_shards", other)
    with pytest.raises(StoreMismatch, match="another width"):
        add(store, 1)


def test_images_that_cannot_be_decoded_are_remembered(url: str, tmp_path: Path) -> None:
    store = writer(url, tmp_path / "a")
    store.add_to_quarantine({})
    store.add_to_quarantine({"1" * 64: "it is no image"})
    store.add_to_quarantine({"2" * 64: "it is cut off"})
    expected = {"1" * 64: "it is no image", "2" * 64: "it is cut off"}
    assert store.quarantined == expected
    other = writer(url, tmp_path / "b")
    assert other.quarantined == expected
    other.refresh()
    assert other.quarantined == expected
    for copy in other.folder.glob("*.quarantine.json"):
        copy.write_bytes(b"{}")  # damaged here: fetched again
    assert writer(url, tmp_path / "b").quarantined == expected


def test_a_store_that_is_removed_forgets_its_failures(memory: str, tmp_path: Path) -> None:
    store = writer(memory, tmp_path)
    add(store, 1)
    store.add_to_quarantine({"1" * 64: "it is no image"})
    store._bucket.create(f"quarantine/{SPEC.folder}/other", b"of someone else")
    store.refresh()
    assert isinstance(remove_all_shards(store, "it is old"), Removal)
    found = writer(memory, tmp_path)
    assert (len(found), found.quarantined) == (0, {})
    assert store._bucket.read(f"quarantine/{SPEC.folder}/other", 99) is not None


def test_a_damaged_quarantine_list_counts_for_nothing(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    store = writer(url, tmp_path / "a")
    store.add_to_quarantine({"1" * 64: "it is no image"})
    folder = tmp_path / "bucket" / "quarantine" / SPEC.folder
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes().replace(b"no", b"an"))
    (folder / "other.json").write_text("{}")
    assert writer(url, tmp_path / "b").quarantined == {}
    assert quarantine.is_name(path.name)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_writers_and_readers_in_any_order(seed: int, tmp_path_factory: Any) -> None:
    """Rows that were listed stay and are right, whoever is killed at any step of a commit."""
    source, url, folder = random.Random(seed), memory_url(), tmp_path_factory.mktemp("any")
    stores = [writer(url, folder / str(n)) for n in range(3)]
    listed: set[int] = set()
    told: list[tuple[ShardLister, dict[str, int], set[int]]] = []
    numbers = iter(range(1000))
    for _ in range(source.randrange(4, 14)):
        who = source.randrange(3)
        store, rows = stores[who], {next(numbers) for _ in range(source.randrange(1, 4))}
        match source.randrange(5):
            case 0:  # killed before it has listed the shard, or after
                killed = source.choice([".h5", ".head", "/change-"])
                with pytest.MonkeyPatch.context() as patch:
                    _kill(patch, killed, before=source.random() < 0.5)
                    with pytest.raises(KeyboardInterrupt):
                        add(store, *rows)
                stores[who] = writer(url, folder / str(who))
                if rows <= {n for n in rows if stores[who].contains(ids_of(n)).all()}:
                    listed |= rows
            case 1:  # a worker of a cluster, whose client lists the shard later
                client = ShardLister(place(url, folder / "client")._open)
                store.list_shards = client
                add(store, *rows)
                store.list_shards = store.list_here
                told.append((client, {}, rows))
            case 2 if told:
                client, shards, waiting = told.pop(source.randrange(len(told)))
                client.flush()
                client(shards)
                listed |= waiting
            case 3:
                stores[who] = writer(url, folder / source.choice("0123"))
            case _:
                add(store, *rows)
                listed |= rows
        reader = stores[source.randrange(3)]
        reader.refresh()
        everything = list(range(60))
        there = {n for n in everything if reader.contains(ids_of(n)).all()}
        assert there == {n for n in listed if n < 60}
        assert np.array_equal(reader.read(ids_of(*sorted(there))), rows_of(*sorted(there))) or (
            not there
        )
        assert reader.damaged == []


def _kill(patch: pytest.MonkeyPatch, ending: str, *, before: bool) -> None:
    create = Bucket.create

    def killed(self: Bucket, name: str, data: bytes) -> bool:
        done = create(self, name, data) if not (before and ending in name) else False
        if ending in name:
            raise KeyboardInterrupt
        return done

    patch.setattr(Bucket, "create", killed)


# The shards of the workers of a cluster


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lister_module, "LIST_SECONDS", 0.01)


def unlisted(store: WritableBucketStore, *numbers: int) -> dict[str, int]:
    """Append rows as a worker does; return what it tells its client."""
    told: dict[str, int] = {}
    BucketPlace(store._url, store._name, store.folder).list_through(store, told.update)
    add(store, *numbers)
    return told


def test_shards_of_workers_are_listed_together(memory: str, tmp_path: Path) -> None:
    worker = writer(memory, tmp_path / "a")
    shards = {**unlisted(worker, 1, 2), **unlisted(worker, 3)}
    assert len(writer(memory, tmp_path / "b")) == 0
    with place(memory, tmp_path / "c").lister() as listing:
        listing({})
        listing(shards)
        listing(dict(list(shards.items())[:1]))
    found = writer(memory, tmp_path / "b")
    assert np.array_equal(found.read(ids_of(3, 1)), rows_of(3, 1))
    assert found.manifest.generation == 2


def test_a_shard_is_listed_once(memory: str, tmp_path: Path) -> None:
    worker = writer(memory, tmp_path / "a")
    shards = unlisted(worker, 1)
    with place(memory, tmp_path / "c").lister() as listing:
        listing(shards)
        listing.flush()
        found = writer(memory, tmp_path / "b")
        writable.change_shards(
            found._bucket, SPEC.folder, found.folder, found.manifest, remove=list(shards)
        )  # merged into a larger one, say
        listing(shards)
    assert writer(memory, tmp_path / "b").shard_names == []


def test_shards_are_listed_while_workers_go_on(memory: str, tmp_path: Path, quick: None) -> None:
    worker = writer(memory, tmp_path / "a")
    with place(memory, tmp_path / "c").lister() as listing:
        listing(unlisted(worker, 1))
        deadline = time.monotonic() + 30
        while not len(writer(memory, tmp_path / "b")):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_listing_that_fails_is_tried_again(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    worker, real = writer(memory, tmp_path / "a"), WritableBucketStore.list_here
    failures = [StoreWriteError("throttled")] * 3

    def failing(self: WritableBucketStore, shards: Any, **options: Any) -> None:
        if failures:
            raise failures.pop()
        real(self, shards, **options)

    monkeypatch.setattr(WritableBucketStore, "list_here", failing)
    with place(memory, tmp_path / "c").lister() as listing:
        listing(unlisted(worker, 1))
        while failures:
            time.sleep(0.01)
    assert len(writer(memory, tmp_path / "b")) == 1


@pytest.mark.parametrize("told", [False, True])
def test_additions_do_not_let_suspended_writers_list_what_is_gone(
    told: bool, memory: str, tmp_path: Path
) -> None:
    suspended = writer(memory, tmp_path / "a")
    shards = unlisted(suspended, 1)
    assert collect_objects(Bucket(memory), SPEC.folder, tmp_path / "b" / SPEC.folder, grace=0)
    add(writer(memory, tmp_path / "c"), 2)
    client = place(memory, tmp_path / "d").lister()  # opens the store only now
    client(shards)
    list_them = client.flush if told else lambda: suspended.list_here(shards)
    with pytest.raises(StoreWriteError, match="may have removed it"):
        list_them()
    assert writer(memory, tmp_path / "e").ids() == ids_of(2)


def test_shards_that_cannot_be_listed_are_an_error(memory: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):  # noqa: SIM117
        with place(memory, tmp_path / "c").lister() as listing:
            listing({"a": 1})
    with pytest.raises(ZeroDivisionError):  # noqa: SIM117
        with place(memory, tmp_path / "c").lister() as listing:
            listing({"a": 1 // 0})
    lister = place(memory, tmp_path / "c").lister()
    lister({"a": 1})
    with pytest.raises(ZeroDivisionError), lister:
        raise ZeroDivisionError


# Where a store lies


def test_a_process_elsewhere_sees_the_mark(url: str, tmp_path: Path) -> None:
    here, there = place(url, tmp_path / "a"), place(url, tmp_path / "b")
    with here.announced() as mark:
        assert there.sees(mark)
        assert not place(memory_url(), tmp_path / "b").sees(mark)
    assert not there.sees(mark)


def test_a_bucket_that_cannot_be_written_to_is_an_error(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Bucket, name: str, data: bytes) -> bool:
        raise StoreWriteError("access denied.")

    monkeypatch.setattr(Bucket, "create", refused)
    with pytest.raises(StoreWriteError, match=r"denied\. Workers look for a mark"):  # noqa: SIM117
        with place(memory, tmp_path).announced():
            pass


def test_a_store_is_found_by_its_url(memory: str, tmp_path: Path) -> None:
    store = writer(memory, tmp_path)
    add(store, 1)
    assert store.location == f"{memory}/stores/{SPEC.folder}"
    assert np.array_equal(featcache.open_store(store.location).read(ids_of(1)), rows_of(1))
    with pytest.raises(UnknownStore, match="has no store"):
        featcache.open_store(f"{memory}/stores/other-{'0' * 16}")
    assert place(memory_url(), tmp_path).open(SPEC, WIDTH, {}) is None
    with pytest.raises(InvalidRequest, match="not the URL of a cache"):
        place_of(tmp_path, "https://host/x", SPEC.folder)


def test_stores_of_the_same_backbone_are_compared(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    writer(url, tmp_path)
    writer(url, tmp_path, BOTH[1])
    stores = tmp_path / "bucket" / "stores"
    (stores / f"tiny-{'1' * 16}").mkdir()
    (stores / f"other-{'1' * 16}" / "manifest").mkdir(parents=True)
    found = place(url, tmp_path).stores()
    assert {str(path) for path, _ in found} == {SPEC.folder, BOTH[1].folder}
    (change,) = (stores / SPEC.folder / "manifest").iterdir()
    change.write_bytes(b"{")
    found = place(url, tmp_path).stores()
    assert [(str(path), manifest.spec) for path, manifest in found] == [(BOTH[1].folder, BOTH[1])]


def test_a_process_waits_for_one_that_removes_rows(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, waited = Bucket(memory), list[float]()
    with ExitStack() as lease, ExitStack() as marks:
        lease.enter_context(bucket_lease(bucket, SPEC.folder))

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 2:
                lease.close()

        monkeypatch.setattr("featcache.store.bucket.leases.time.sleep", sleep)
        place(memory, tmp_path).mark(marks, append=True)
        assert len(waited) == 2
        place(memory, tmp_path).mark(marks, append=False)
        assert is_bucket_in_use(bucket, SPEC.folder)
        monkeypatch.setattr("featcache.store.bucket.leases.LIFETIME", 0.1)
        assert BucketLease(bucket, claims_folder(SPEC.folder), "exclusive").acquire()
        threading.Event().wait(0.2)
        place(memory, tmp_path).mark(marks, append=True)  # it has ended, and left its lease
    assert len(waited) == 2


def test_a_bucket_that_is_only_read_needs_no_mark(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(writer(memory, tmp_path), 1)

    def refused(self: Bucket, name: str, data: bytes) -> bool:
        raise StoreWriteError("access denied.")

    monkeypatch.setattr(Bucket, "create", refused)
    with ExitStack() as marks:
        place(memory, tmp_path).mark(marks, append=False)
        found = place(memory, tmp_path).open(SPEC, WIDTH, {})
        assert found is not None
        assert len(found) == 1


def test_small_shards_are_merged_at_the_end(memory: str, tmp_path: Path) -> None:
    store = writer(memory, tmp_path)
    for number in range(24):
        add(store, number)
    place(memory, tmp_path).complete(store)
    found = writer(memory, tmp_path / "b")
    assert len(found.shard_names) == 1
    assert np.array_equal(found.read(ids_of(*range(24))), rows_of(*range(24)))


def test_the_rest_of_a_place(memory: str, tmp_path: Path) -> None:
    where = place(memory, tmp_path)
    where.check_space(10**18, "rows need", "Free some.")
    where.mark_used()
    store = writer(memory, tmp_path)
    where.complete(store)
    assert where.location == store.location
