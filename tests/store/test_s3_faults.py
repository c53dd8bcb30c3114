"""A cache in a real object store behind a network that fails: nothing lost, wrong or endless."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fault_proxy import KINDS, SENT, UNSENT, FaultProxy
from featcache import extract
from featcache._io.cache_dirs import stores_folder
from featcache.errors import FeatcacheError, StoreError, StoreWriteError
from featcache.store.bucket.push import push_rows
from featcache.store.bucket.store import BucketStore, find_bucket_store
from featcache.store.store import Store
from featcache.store.transfer import copy_rows
from s3_server import ObjectServer
from stores import SPEC, WIDTH, filled, ids_of, rows_of

s3fs = pytest.importorskip("s3fs")

pytestmark = [pytest.mark.s3, pytest.mark.timeout(600)]

# How long any call may take that meets a server that answers with errors only: a push also tries to
# list what it has created.
BOUND_SECONDS = 180.0
NUMBERS = [*range(8), *range(100, 108)]


@pytest.fixture
def proxy(s3_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy((s3_server.ip, s3_server.port)).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()  # those of the address before
        yield proxy
        s3fs.S3FileSystem.clear_instance_cache()


def make(cache: Path) -> Store:
    store = Store.create(stores_folder(cache) / SPEC.folder, SPEC, WIDTH, {"backbone": "tiny"})
    return filled(store, *[(n, 100 + n) for n in range(8)])


def opened(url: str, cache: Path) -> BucketStore:
    store = find_bucket_store(url, SPEC.folder, cache)
    assert store is not None
    return store


def check_all(url: str, cache: Path) -> None:
    store = opened(url, cache)
    assert store.damaged == []
    assert len(store) == len(NUMBERS)
    assert np.array_equal(store.read(ids_of(*NUMBERS)), rows_of(*NUMBERS))


def until_done(call: Callable[[], Any]) -> Any:
    """Call a function again after each of our errors, as a user would."""
    for _ in range(20):
        started = time.monotonic()
        try:
            return call()
        except FeatcacheError:  # no other kind is expected
            pass
        finally:
            assert time.monotonic() - started < BOUND_SECONDS
    raise AssertionError("it did not succeed in 20 attempts")


@pytest.mark.parametrize("kind", [*UNSENT, *SENT, "delay"])
def test_a_fault_is_survived(kind: str, proxy: FaultProxy, tmp_path: Path) -> None:
    """Each request of a push and of a pull meets it in turn, and is sent again."""
    url = f"s3://photos/once-{kind}"
    proxy.rates, proxy.delay = {kind: 0.15}, 0.1
    for match in ("PUT", "GET", "list-type", ".h5.head", "change-"):
        proxy.fail_next(kind, 1, match)
    assert push_rows(make(tmp_path / "a"), url, tmp_path / "a").rows == len(NUMBERS)
    proxy.fail_next(kind, 2, ".h5")
    assert copy_rows(opened(url, tmp_path / "b"), tmp_path / "b").rows == len(NUMBERS)
    assert proxy.counts[kind] >= 5
    proxy.rates = {}
    check_all(url, tmp_path / "c")


@pytest.mark.parametrize("seed", range(3))
def test_all_faults_at_once(seed: int, proxy: FaultProxy, tmp_path: Path) -> None:
    url = f"s3://photos/all-{seed}"
    proxy.rates, proxy.delay = dict.fromkeys(KINDS, 0.03), 0.1
    source = make(tmp_path / "a")
    seen: set[str] = set()

    def push() -> None:
        try:
            push_rows(source, url, tmp_path / "a")
        finally:
            rates, proxy.rates = proxy.rates, {}
            store = find_bucket_store(url, SPEC.folder, tmp_path / "reader")
            now = set() if store is None else set(store.ids())
            assert seen <= now
            seen.update(now)
            proxy.rates = rates

    until_done(push)
    assert seen == set(source.ids())

    def pull() -> None:
        store = opened(url, tmp_path / "b")
        found = list(compress(source.ids(), store.contains(source.ids())))
        expected = source.read(found)
        assert np.array_equal(store.read(found), expected)
        copy_rows(store, tmp_path / "b")

    until_done(pull)
    proxy.rates = {}
    check_all(url, tmp_path / "c")


def test_a_server_that_only_fails_is_an_error_in_time(proxy: FaultProxy, tmp_path: Path) -> None:
    url = "s3://photos/down"
    source = make(tmp_path / "a")
    push_rows(source, url, tmp_path / "a")
    more = filled(Store(source.folder), (200, 201))
    proxy.fail_next("slow_down", 10**6, "PUT")
    started = time.monotonic()
    with pytest.raises(StoreWriteError, match=r"could not be written.*reduce your request rate"):
        push_rows(more, url, tmp_path / "a")
    assert time.monotonic() - started < BOUND_SECONDS
    proxy.fail_next("lost", 10**6)
    started = time.monotonic()
    with pytest.raises(StoreError, match="cannot be"):
        find_bucket_store(url, SPEC.folder, tmp_path / "b")
    assert time.monotonic() - started < BOUND_SECONDS


def test_old_listings_hide_no_row(proxy: FaultProxy, tmp_path: Path) -> None:
    url = "s3://photos/stale"
    proxy.rates = {"stale": 1.0}
    source = make(tmp_path / "a")
    assert find_bucket_store(url, SPEC.folder, tmp_path / "b") is None  # the first listing
    push_rows(source, url, tmp_path / "a")
    check_all(url, tmp_path / "b")
    push_rows(filled(Store(source.folder), (200, 201)), url, tmp_path / "a")
    assert len(opened(url, tmp_path / "b")) == len(NUMBERS) + 2
    assert proxy.counts["stale"] > 3


@pytest.mark.parametrize("match", ["change-", ".h5.head", ".h5?", "GET"])
def test_half_an_answer_gives_no_wrong_row(match: str, proxy: FaultProxy, tmp_path: Path) -> None:
    url = "s3://photos/halves"
    push_rows(make(tmp_path / "a"), url, tmp_path / "a")
    for _ in range(6):
        proxy.fail_next("short", 1, match)

        def read() -> None:
            store = opened(url, tmp_path / "b")
            ids = [i for i in ids_of(*NUMBERS) if store.contains([i])[0]]
            numbers = dict(zip(ids_of(*NUMBERS), NUMBERS, strict=True))
            expected = rows_of(*[numbers[i] for i in ids])
            assert np.array_equal(store.read(ids), expected.reshape(len(ids), WIDTH))

        until_done(read)
    check_all(url, tmp_path / "b")


def test_an_extraction_over_a_failing_bucket(
    photos: Path, tiny_model: Any, proxy: FaultProxy, tmp_path: Path
) -> None:
    url = "s3://photos/overlay"
    whole = extract(tiny_model, photos, cache_dir=tmp_path / "whole")
    cats = extract(tiny_model, photos / "cat", cache_dir=tmp_path / "a")
    push_rows(Store(cats.summary.folder), url, tmp_path / "a")
    proxy.rates = dict.fromkeys(set(KINDS) - {"delay"}, 0.05)
    for attempt in range(4):
        features = until_done(
            lambda cache=tmp_path / f"own-{attempt}": extract(
                tiny_model, photos, cache_dir=cache, shared_dir=url
            )
        )
        assert list(features.ids) == list(whole.ids)
        assert np.allclose(until_done(lambda features=features: features.X[:]), whole.X, atol=1e-4)
    assert sum(proxy.counts.values()) > 0
