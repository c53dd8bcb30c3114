"""Writers, merges, removals and garbage collection of a store in an object store, interleaved.

Before any request that changes an object, other processes may do anything, as if this one had been
suspended; or it is killed. Leases count as expired, so that nothing depends on them.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.errors import MissingRows, StoreCorrupt, StoreError
from featcache.hdf5.shard_file import encode_shard
from featcache.store.bucket import leases, manifests
from featcache.store.bucket.collection import collect_objects
from featcache.store.bucket.compaction import compact_bucket
from featcache.store.bucket.manifests import BucketManifest, change_shards, latest_manifest
from featcache.store.bucket.objects import Bucket
from featcache.store.bucket.removal import remove_bucket_rows
from featcache.store.bucket.shard_writer import ShardWriter
from featcache.store.bucket.store import BucketStore
from featcache.store.manifest import Manifest
from featcache.store.renewal import Renewable
from featcache.store.row_index import pack_ids
from stores import SPEC, WIDTH, ids_of, rows_of

pytest.importorskip("fsspec", reason="fsspec is not installed")

NAME = SPEC.folder
FIRST = Manifest(SPEC, WIDTH, metadata={"backbone": "tiny"})


class Killed(BaseException):
    """The process ends here."""


class World:
    """A bucket, and what its readers must find.

    Attributes
    ----------
    rows : set of int
        Rows that were listed, and not removed.
    unsure : set of int
        Rows that may be there or not, since they were added during a removal.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.url, self.folder = f"memory://{uuid.uuid4().hex}/cache", folder
        self.bucket = Bucket(self.url)
        self.rows: set[int] = set()
        self.unsure: set[int] = set()
        self.readers: list[BucketStore] = []
        self.waiting: list[tuple[BucketManifest | None, str, int]] = []
        self.removing = self.depth = self.next = 0
        change_shards(self.bucket, NAME, self.mirror(), FIRST)

    def mirror(self) -> Path:
        return self.folder / str(self.random.randrange(3)) / NAME

    def open(self) -> BucketStore:
        return BucketStore(self.url, NAME, self.mirror())

    def begin_write(self) -> None:
        """Create a shard; it is listed later, or never."""
        known = latest_manifest(self.bucket, NAME, self.mirror())
        self.next += 1
        rows = rows_of(self.next)
        data, metadata = encode_shard(
            rows, pack_ids(ids_of(self.next)), np.zeros(1, np.int32), SPEC.components(), {}
        )
        number = self.next
        shard = ShardWriter(self.bucket, NAME).create(data, rows, metadata)
        self.waiting.append((known, shard, number))

    def end_write(self) -> None:
        if not self.waiting:
            self.begin_write()
        known, shard, number = self.waiting.pop(self.random.randrange(len(self.waiting)))
        self.unsure.add(number)  # if it is killed
        change_shards(self.bucket, NAME, self.mirror(), FIRST, add={shard: 1}, known=known)
        self.rows.add(number)
        if not self.removing:
            self.unsure.discard(number)

    def compact(self) -> None:
        compact_bucket(self.open(), many=2)

    def collect(self) -> None:
        collect_objects(self.bucket, NAME, self.mirror(), grace=0)

    def remove(self) -> None:
        gone = set(self.random.sample(sorted(self.rows), min(2, len(self.rows))))
        self.rows -= gone
        self.unsure |= gone
        self.removing += 1
        try:
            store = self.open()
            kept = set(store.ids()) - set(ids_of(*gone))
            done = remove_bucket_rows(store, kept)
            if not done.kept:
                self.unsure -= gone
        finally:
            self.removing -= 1

    def begin_read(self) -> None:
        self.readers.append(self.open())

    def end_read(self) -> None:
        if self.readers:
            self.check(self.random.choice(self.readers))

    def check(self, store: BucketStore) -> None:
        """Read each row that a store lists; only one that was removed may be missing."""
        numbers = [n for n in range(1, self.next + 1) if store.contains(ids_of(n))[0]]
        for number in numbers:
            try:
                assert np.array_equal(store.read(ids_of(number)), rows_of(number))
            except MissingRows:
                assert number not in self.rows - self.unsure
            except StoreCorrupt as error:
                raise AssertionError(str(error)) from error

    def act(self) -> None:
        """Do something, be killed in the middle of it, or be refused."""
        actions: list[Callable[[], None]] = [
            self.begin_write, self.end_write, self.end_write, self.compact, self.compact,
            self.collect, self.collect, self.remove, self.begin_read, self.end_read,
        ]  # fmt: skip
        self.depth += 1
        removing = self.removing
        try:
            self.random.choice(actions)()
        except (Killed, StoreError):
            self.removing = removing
        finally:
            self.depth -= 1

    def before_request(self) -> None:
        chance = self.random.random()
        if self.depth and chance < 0.02:
            raise Killed
        if 0 < self.depth < 3 and chance < 0.1:
            self.act()


@contextlib.contextmanager
def not_renewed(held: Renewable, _: float) -> Iterator[None]:
    try:
        yield
    finally:
        held.release()


def interleave(seed: int) -> None:
    """Do 25 things in an order that follows from a seed, and check what is left."""
    create, remove = Bucket.create, Bucket.remove
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        world = World(seed, Path(folder))

        def creating(bucket: Bucket, name: str, data: bytes) -> bool:
            world.before_request()
            return create(bucket, name, data)

        def removing(bucket: Bucket, name: str) -> None:
            world.before_request()
            remove(bucket, name)

        patch.setattr(leases, "LIFETIME", -1.0)
        patch.setattr(leases, "renewed", not_renewed)
        patch.setattr(manifests, "SNAPSHOT_EVERY", 4)
        patch.setattr(Bucket, "create", creating)
        patch.setattr(Bucket, "remove", removing)
        for _ in range(25):
            world.act()
        world.depth = 0
        for reader in world.readers:
            world.check(reader)
        store = world.open()
        world.check(store)
        there = {n for n in range(1, world.next + 1) if store.contains(ids_of(n))[0]}
        assert world.rows - world.unsure <= there
        assert there <= world.rows | world.unsure
        assert store.damaged == []


@given(st.integers(0, 2**32))
@settings(max_examples=3, deadline=None)
def test_no_row_that_is_listed_is_lost_or_wrong(seed: int) -> None:
    interleave(seed)


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_no_row_is_lost_in_many_orders(seed: int) -> None:
    interleave(seed)
