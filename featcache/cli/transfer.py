"""`featcache pack` and `featcache unpack`: a store as one file, and back."""

from __future__ import annotations

import click

from ..data.boxes import Crop
from .options import Common, command, crop, load, margin, one_store


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
