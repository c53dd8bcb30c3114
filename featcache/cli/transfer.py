"""`featcache pack`, `unpack`, `push` and `pull`: stores as files, and rows between caches."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .._io.cache_dirs import cache_folder, stores_folder
from .._io.wording import format_count
from ..data.boxes import Crop
from ..data.urls import is_url
from ..errors import StoreError
from .options import Common, command, complete_store, crop, load, margin, no_progress, one_store

if TYPE_CHECKING:
    from ..store.store import Store
    from ..store.transfer import Copied


@command("pack")
@one_store
@click.argument("file", type=click.Path())
@click.option("--data", help="Pack only the rows of these images, with their paths and labels.")
@crop
@margin
def pack(
    common: Common, store: str, file: str, data: str | None, crop: Crop | None, margin: float
) -> int:
    """Write a store to one HDF5 file.

    Any HDF5 library can read it, and `featcache unpack` adds its rows to another cache.

    STORE is a folder, a name, a unique prefix of a name, or a backbone. An existing FILE is
    replaced once the new one is complete.
    """
    from ..store.pack import pack as run
    from ..store.store import Store
    from ..store.store_names import find_store

    dataset = None if data is None else load(data, crop, margin, common)
    opened = Store(find_store(store, common.stores))
    rows = run(opened, file, dataset, cache_dir=common.cache_dir)
    print(f"{rows:,} rows x {opened.width} of {opened.folder.name} are in {file}")
    return 0


@command("unpack")
@click.argument("file", type=click.Path())
def unpack(common: Common, file: str) -> int:
    """Add the rows of a packed file to the cache.

    FILE was written by `featcache pack`.
    """
    from ..store.pack import unpack as run

    store = run(file, common.cache)
    print(f"{len(store):,} rows x {store.width} are in {store.folder}")
    return 0


_some_stores = click.argument("stores", nargs=-1, shell_complete=complete_store)


@command("push")
@click.argument("folder", type=click.Path())
@_some_stores
@no_progress
def push(common: Common, folder: str, stores: Sequence[str]) -> int:
    """Copy rows to another cache, on a shared disk or in an object store.

    FOLDER is the other cache folder, or a URL such as s3://bucket/prefix. Only rows that it lacks
    are copied. STORES are names, prefixes of names, or backbones; without any, all stores. After
    an interruption the same command copies the rest. The exit status is 1 if rows of a damaged
    shard could not be copied.
    """
    from ..store.transfer import copy_rows

    here, found = common.cache, _stores_in(common.stores, stores)
    if not is_url(folder):
        target = cache_folder(folder)
        return _copy(common, here, found, lambda s: copy_rows(s, target, progress=common.progress))

    from ..store.bucket.push import push_rows

    return _copy(common, here, found, lambda store: push_rows(
        store, folder, here, progress=common.progress
    ))  # fmt: skip


@command("pull")
@click.argument("folder", type=click.Path())
@_some_stores
@no_progress
def pull(common: Common, folder: str, stores: Sequence[str]) -> int:
    """Copy rows from another cache, on a shared disk or in an object store.

    Only rows that this cache lacks are copied from FOLDER, the other cache folder, or a URL such
    as s3://bucket/prefix. STORES are names, prefixes of names, or backbones (of a URL: names or
    prefixes); without any, all stores.
    """
    from ..store.transfer import copy_rows

    cache = common.cache
    place: Path | str = folder
    if is_url(folder):
        from ..store.bucket.store import bucket_stores

        found = bucket_stores(folder, stores, cache)
    else:
        place = cache_folder(folder)
        if not place.is_dir():
            raise StoreError(f"{place} is not a folder; give another cache folder.", path=place)
        found = _stores_in(stores_folder(place), stores)
    return _copy(common, place, found, lambda s: copy_rows(s, cache, progress=common.progress))


def _stores_in(folder: Path, names: Sequence[str]) -> list[Store]:
    """Open the stores of some names in a folder; without names, all."""
    from ..store.manifest import find_stores
    from ..store.store import Store
    from ..store.store_names import find_store

    found = [find_store(name, folder) for name in names] or [p for p, _ in find_stores(folder)]
    return [Store(path, write_sidecars=False) for path in found]


def _copy(
    common: Common, place: Path | str, stores: Sequence[Store], copy: Callable[[Store], Copied]
) -> int:
    """Copy the rows of the stores of a cache, and print what was done."""
    records = []
    for store in stores:
        name, found = store.spec.folder, copy(store)
        records.append({
            "name": name, "copied": found.rows, "present": found.present,
            "damaged": list(found.damaged), "folder": str(found.store.folder),
        })  # fmt: skip
        if not common.json:
            print(f"{name}: {format_count(found.rows, 'row')} copied, {found.present:,} there")
            for shard in found.damaged:
                print(f"  {shard} is damaged: run `featcache repair {store.folder}`")
    if common.json:
        print(json.dumps(records, indent=2))
    elif not stores:
        print(f"There is no store to copy in {place}.")
    return 1 if any(record["damaged"] for record in records) else 0
