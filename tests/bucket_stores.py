"""Stores in an object store, of rows that were pushed there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from featcache._io.cache_dirs import stores_folder
from featcache.store.bucket.push import push_rows
from featcache.store.bucket.store import BucketStore, find_bucket_store
from featcache.store.store import Store
from stores import SPEC, WIDTH, filled


def push(url: str, cache: Path, *batches: tuple[int, ...], spec: Any = SPEC) -> None:
    store = Store.create(stores_folder(cache) / spec.folder, spec, WIDTH, {"backbone": "tiny"})
    push_rows(filled(store, *batches), url, cache)


def reopen(url: str, cache: Path, spec: Any = SPEC) -> BucketStore:
    found = find_bucket_store(url, spec.folder, cache)
    assert found is not None
    return found
