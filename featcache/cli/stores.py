"""`featcache ls`, `info`, `verify`, `repair` and `rm`: describe and maintain stores."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._io.wording import format_count
from ..data.boxes import Crop
from ..printable import printable
from . import bucket_care
from .options import Common, command, complete_store, crop, margin, one_store

if TYPE_CHECKING:
    from ..hdf5.shard_name import Damage
    from ..store.removal import Removal
    from ..store.store import Store

_ROWS_SHOWN = 5


@command("ls")
def ls(common: Common) -> int:
    """List the stores of the cache.

    Per store: name, rows x width, size on disk, layer, image size, precision, dtype of rows if it
    is not float32, weights, view of augmented images, and last use.
    """
    from ..images.views import describe_view

    records = [_record(store) for store in _all_stores(common)]
    if common.json:
        print(json.dumps(records, indent=2))
        return 0
    if not records:
        place = common.url or common.stores
        print(f"No store in {place} yet; `featcache extract` makes the first.")
    for r in records:
        shape = f"{r['rows']:>9,} x {r['width']:<6} {r['bytes'] / 2**20:>9,.1f} MiB"
        pixels = "x".join(str(side) for side in r["image_size"])
        view = describe_view(r["views"])
        own = "" if r["name"].startswith(r["backbone"]) else f"{r['backbone']}, "
        rows = "" if r["row_dtype"] == "float32" else f"rows of {r['row_dtype']}, "
        print(
            f"{r['name']:<42} {shape}  {own}{r['layer']}, {pixels} px, {r['precision']}, {rows}"
            f"{r['weights']}{view and ', '}{view}{_age(r['last_used'])}"
        )
    if copies := _copies_bytes(common):
        print(f"Local copies of stores in object stores: {copies / 2**20:,.1f} MiB")
    return 0


def _copies_bytes(common: Common) -> int:
    from ..store.bucket.local_copies import copies_bytes

    return copies_bytes(common.local)


def _all_stores(common: Common) -> list[Store]:
    """Open all stores of the cache."""
    if common.url is not None:
        from ..store.bucket.store import bucket_stores

        return bucket_stores(common.url, [], common.local)
    from ..store.manifest import find_stores
    from ..store.store import Store

    return [Store(path) for path, _ in find_stores(common.stores)]


def _record(store: Store) -> dict[str, Any]:
    from ..store.manifest import NAME

    is_here = store.location == store.folder
    return {
        "name": store.folder.name,
        "backbone": store.metadata.get("backbone", store.spec.backbone),
        "rows": len(store),
        "width": store.width,
        "bytes": store.size_on_disk(),
        "layer": store.spec.layer,
        "image_size": list(store.spec.image_size),
        "precision": store.spec.precision,
        "row_dtype": store.spec.row_dtype,
        "weights": store.metadata.get("weights", "?"),
        "views": store.spec.views,
        "last_used": (store.folder / NAME).stat().st_mtime if is_here else None,
    }


def _age(used: float | None) -> str:
    if used is None:
        return ""  # an object store does not say
    days = (time.time() - used) / 86400
    if days < 1 / 24:
        return "; used within the last hour"
    if days < 2:
        return f"; used {format_count(round(days * 24), 'hour')} ago"
    return f"; used {days:.0f} days ago"


@command("info")
@one_store
def info(common: Common, store: str) -> int:
    """Describe a store.

    Prints its specification (the components of its key), its numbers of rows and shards, its
    size and damaged shards.

    STORE is a folder, a name, a unique prefix of a name, or a backbone; of a cache in an object
    store, its name or a prefix.
    """
    opened = _one_store(common, store)
    record = {
        "folder": str(opened.location),
        "key": opened.spec.key,
        "rows": len(opened),
        "width": opened.width,
        "shards": len(opened.shard_names),
        "bytes": opened.size_on_disk(),
        "quarantined": len(opened.quarantined),
        "damaged_shards": [vars(damage) for damage in opened.damaged],
        "metadata": dict(opened.metadata),
        "spec": opened.spec.components(),
    }
    if common.json:
        print(json.dumps(record, indent=2))
        return 0
    for name, value in record.items():
        if isinstance(value, dict):
            print(f"{name}:")
            for part, text in value.items():
                print(f"  {part}: {text}")
        else:
            print(f"{name}: {value}")
    return 0


def _one_store(common: Common, name: str) -> Store:
    """Open the store that a name identifies."""
    if common.url is not None:
        from ..store.bucket.store import bucket_stores

        return bucket_stores(common.url, [bucket_care.one_name(common.url, name)], common.local)[0]
    from ..store.store import Store
    from ..store.store_names import find_store

    return Store(find_store(name, common.stores))


@command("verify")
@click.argument("store", required=False, shell_complete=complete_store)
@click.option("--sample", type=int, metavar="N", help="Also recompute N images of --data.")
@click.option(
    "--weights",
    metavar="FILE",
    help="For --sample: the weights, if the store does not record them or their file has moved.",
)
@click.option("--data", help="For --sample: the images, as for `extract`.")
@crop
@margin
def verify(
    common: Common,
    store: str | None,
    sample: int | None,
    weights: str | None,
    data: str | None,
    crop: Crop | None,
    margin: float,
) -> int:
    """Check every byte of a store, or of all stores.

    The exit status is 1 if something is damaged; `featcache repair` saves the rows that are
    not.

    STORE is a folder, a name, a unique prefix of a name, or a backbone; of a cache in an object
    store, its name or a prefix. Default: all stores.
    """
    from ..errors import InvalidRequest
    from ..store.maintenance import verify as run
    from ..store.store_names import find_store

    if sample is not None and (store is None or data is None):
        raise InvalidRequest(
            "--sample recomputes images: name the store, and give the images with --data."
        )
    if common.url is not None and sample is None:
        return _verify_bucket(common, common.url, store)
    if store is None:
        return _verify_all(common)
    folder = find_store(store, common.stores)
    damages = run(folder)
    if sample is None:
        return _print_damages(common, folder, damages, "damaged", status=1)
    from ..extraction.recheck import verify_sample

    check = verify_sample(
        folder, data, sample, crop=crop, margin=margin, weights=weights, cache_dir=common.cache_dir
    )
    if common.json:
        print(json.dumps({"damaged": [vars(d) for d in damages], **vars(check)}, indent=2))
    else:
        _print_damages(common, folder, damages, "damaged", status=1)
        print(check)
        for path, error in check.differing[:20]:
            print(f"  differs by {error:.2g}: {printable(path)}")
    return int(bool(damages or check.differing))


def _verify_bucket(common: Common, url: str, store: str | None) -> int:
    found = bucket_care.verify(common, url, store)
    if store is None:
        return _print_all(common, found)
    ((name, damages),) = found.items()
    return _print_damages(common, name, damages, "damaged", status=1)


def _verify_all(common: Common) -> int:
    from .._io.system_errors import system_errors
    from ..store.own_files import is_store_folder

    with system_errors(common.stores):
        folders = sorted(common.stores.iterdir()) if common.stores.is_dir() else []
        # A store whose manifest is lost counts as well.
        folders = [f for f in folders if not f.name.startswith(".") and is_store_folder(f)]
    return _print_all(common, {folder.name: _checked(folder) for folder in folders})


def _print_all(common: Common, found: Mapping[str, list[Damage]]) -> int:
    """Print the damage of stores, by name; return the exit status."""
    if common.json:
        record = {name: [vars(d) for d in damages] for name, damages in found.items()}
        print(json.dumps(record, indent=2))
    else:
        for name, damages in found.items():
            place = name if common.url else str(common.stores / name)
            _print_damages(common, place, damages, f"{name}: damaged", status=1)
        if not found:
            place = common.url or str(common.stores)
            print(f"No store in {place} yet; `featcache extract` makes the first.")
    return int(any(found.values()))


def _checked(folder: Path) -> list[Any]:
    """Return the damage of a store; one that cannot be read counts as damaged."""
    from ..errors import StoreError
    from ..hdf5.shard_name import Damage
    from ..store.maintenance import verify as run

    try:
        return run(folder)
    except StoreError as error:
        return [Damage(folder.name, 0, str(error))]


@command("repair")
@one_store
def repair(common: Common, store: str) -> int:
    """Save the valid rows of damaged shards.

    Damaged files are renamed, not deleted; in an object store, they are copied and no longer
    listed. The next `extract` recomputes only the lost rows.

    STORE is a folder, a name, a unique prefix of a name, or a backbone; of a cache in an object
    store, its name or a prefix.
    """
    if common.url is not None:
        name, damages = bucket_care.repair(common, common.url, store)
        return _print_damages(common, name, damages, "replaced", status=0)
    from ..store.maintenance import repair as run
    from ..store.store_names import find_store

    folder = find_store(store, common.stores)
    return _print_damages(common, folder, run(folder), "set aside or rewritten", status=0)


def _print_damages(
    common: Common, folder: Path | str, found: list[Any], word: str, status: int
) -> int:
    from ..hdf5.shard_name import rows_in_name

    if common.json:
        print(json.dumps([vars(damage) for damage in found], indent=2))
    elif not found:
        print(f"{folder}: intact, all bytes are as committed")
    else:
        for damage in found:
            total = rows_in_name(damage.name)
            lost = f" ({damage.rows} of {total} rows lost)" if total else ""
            print(f"{word}: {damage.name}{lost}: {damage.reason}")
            for image_id in damage.ids[:_ROWS_SHOWN]:
                print(f"  row {image_id}")
            if len(damage.ids) > _ROWS_SHOWN:
                print(f"  and {len(damage.ids) - _ROWS_SHOWN} more; --json lists all")
    return status if found else 0


@command("rm")
@one_store
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
def rm(common: Common, store: str, yes: bool) -> int:
    """Delete a store with all its rows.

    In an object store its rows are gone at once, and its objects with a later `featcache gc`.

    STORE is a folder, a name, a unique prefix of a name, or a backbone; of a cache in an object
    store, its name or a prefix.
    """
    from ..errors import InvalidRequest

    would, remove = _removal(common, store)
    what = f"{would.name}, {format_count(would.rows, 'row')}, {would.bytes / 2**20:,.1f} MiB"
    if not yes and not sys.stdin.isatty():
        raise InvalidRequest(f"This deletes {what}. Confirm with --yes.")
    if not yes and not click.confirm(f"Delete {what}?", err=True):
        return 1
    removal = remove()
    if common.json:
        print(json.dumps(vars(removal), indent=2))
    else:
        print(f"deleted: {what}")
    return 0


def _removal(common: Common, text: str) -> tuple[Removal, Callable[[], Removal]]:
    """Return what the removal of a store would remove, and a function that does it."""
    url = common.url
    if url is not None:
        would = bucket_care.remove(common, url, text, dry_run=True)
        return would, lambda: bucket_care.remove(common, url, would.name, dry_run=False)
    from ..gc.collect import remove_store
    from ..store.removal import Removal
    from ..store.store import Store
    from ..store.store_names import find_store

    folder = find_store(text, common.stores)
    opened = Store(folder, write_sidecars=False)
    would = Removal(folder.name, len(opened), opened.size_on_disk(), "requested")
    return would, lambda: remove_store(folder)
