"""`featcache pack` and `featcache unpack`: a store as one file, and back."""

from __future__ import annotations

import click

from ..data.boxes import Crop
from .options import Common, command, crop, load, margin, one_store


@command("pack")
@one_store
@click.argument("file", type=click.Path())
@click.option("--data", help="Only the rows of these images, with paths and labels.")
@crop
@margin
def pack(
    common: Common, store: str, file: str, data: str | None, crop: Crop | None, margin: float
) -> int:
    """Write a store to one plain HDF5 file.

    STORE is a folder, a name, a unique beginning of one, or a backbone. FILE is replaced
    once the new one is complete.
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
    """Take the rows of a packed file into the cache."""
    from ..store.pack import unpack as run

    store = run(file, common.cache)
    print(f"{len(store):,} rows x {store.width} are in {store.folder}")
    return 0
