"""`featcache pack`, `unpack`, `push` and `pull`: stores as files, and rows between caches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from .._io.cache_dirs import cache_folder, stores_folder
from .._io.wording import format_count
from ..data.boxes import Crop
from .options import Common, command, complete_store, crop, load, margin, no_progress, one_store


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
    """Copy rows to another cache, such as one on a shared disk.

    Only rows that FOLDER, the other cache folder, lacks are copied. STORES are names, prefixes of
    names, or backbones; without any, all stores. After an interruption the same command copies
    the rest. The exit status is 1 if rows of a damaged shard could not be copied.
    """
    return _copy(common, common.cache, cache_folder(folder), stores)


@command("pull")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@_some_stores
@no_progress
def pull(common: Common, folder: str, stores: Sequence[str]) -> int:
    """Copy rows from another cache, such as one on a shared disk.

    Only rows that this cache lacks are copied from FOLDER, the other cache folder. STORES are
    names, prefixes of names, or backbones; without any, all stores.
    """
    return _copy(common, cache_folder(folder), common.cache, stores)


def _copy(common: Common, source: Path, target: Path, names: Sequence[str]) -> int:
    """Copy stores from one cache folder to another, and print what was done."""
    from ..store.manifest import find_stores
    from ..store.store import Store
    from ..store.store_names import find_store
    from ..store.transfer import copy_rows

    folder = stores_folder(source)
    chosen = [find_store(name, folder) for name in names] or [p for p, _ in find_stores(folder)]
    records = []
    for path in chosen:
        found = copy_rows(Store(path, write_sidecars=False), target, progress=common.progress)
        records.append({
            "name": path.name, "copied": found.rows, "present": found.present,
            "damaged": list(found.damaged), "folder": str(found.store.folder),
        })  # fmt: skip
        if not common.json:
            print(f"{path.name}: {format_count(found.rows, 'row')} copied, {found.present:,} there")
            for name in found.damaged:
                print(f"  {name} is damaged: run `featcache repair {path}`")
    if common.json:
        print(json.dumps(records, indent=2))
    elif not chosen:
        print(f"No store in {folder}.")
    return 1 if any(record["damaged"] for record in records) else 0
