"""The commands that look at stores and care for them."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InvalidRequest, StoreError
from .shards import rows_of

if TYPE_CHECKING:
    from .dataset import Dataset

Add = Callable[..., argparse.ArgumentParser]
_ROWS_SHOWN = 5
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def add_commands(command: Add) -> None:
    """Tell a parser of the commands; `command` makes one of a name, a function and a help."""
    command("ls", _ls, "list the stores of the cache folder")
    where = "folder of the store, or its name"
    command("info", _info, "describe a store").add_argument("store", help=where)
    verify = command("verify", _verify, "check every byte of a store; exit status 1 on damage")
    verify.add_argument("store", help=where)
    verify.add_argument("--sample", type=int, metavar="N", help="compute N images of --data again")
    verify.add_argument("--weights", help="for --sample: a weights file that lies elsewhere now")
    _add_data(verify, "for --sample: where the images are")
    help_ = "save the sound rows of damaged shards, so that only the others are computed anew"
    command("repair", _repair, help_).add_argument("store", help=where)
    _add_gc(command("gc", _gc, "remove stores and rows that are not needed any more"))
    pack = command("pack", _pack, "write a store to one plain HDF5 file")
    pack.add_argument("store", help=where)
    pack.add_argument("file", help="the file to write; replaced once the new one is whole")
    _add_data(pack, "only the rows of these images, with paths and labels")
    unpack = command("unpack", _unpack, "take the rows of a packed file into the cache")
    unpack.add_argument("file", help="a file that pack wrote")


def _add_data(parser: argparse.ArgumentParser, help_: str) -> None:
    parser.add_argument("--data", help=help_)
    parser.add_argument("--crop", choices=["whole", "box"], help="as for extract")
    parser.add_argument("--margin", type=float, default=0.0, help="as for extract")


def _add_gc(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("store", nargs="*", help="names of stores; default: all of the cache folder")
    add("--unused-days", type=float, metavar="N", help="stores that nothing used for N days")
    add("--keep", metavar="SIZE", help="stores, the longest unused first, until SIZE is left: 20G")
    add(
        "--only",
        action="append",
        metavar="DATA",
        help="rows of all images that are not in DATA; may be given several times",
    )
    add("--crop", choices=["whole", "box"], help="of DATA, as for extract")
    add("--margin", type=float, default=0.0, help="of DATA, as for extract")
    add("--dry-run", action="store_true", help="only tell what would go")


def _stores_folder(options: argparse.Namespace) -> Path:
    from .cachedir import cache_folder, stores_folder

    return stores_folder(cache_folder(options.cache_dir))


def _store_path(options: argparse.Namespace) -> Path:
    for path in (Path(options.store), _stores_folder(options) / options.store):
        if path.is_dir():
            return path
    raise StoreError(
        f"There is no store {options.store!r}, neither as a folder nor in "
        f"{_stores_folder(options)}. `featcache ls` lists the stores.",
        path=options.store,
    )


def _dataset(options: argparse.Namespace, data: str) -> Dataset:
    from .loading import load_dataset

    return load_dataset(data, crop=options.crop, margin=options.margin, cache_dir=options.cache_dir)


def _ls(options: argparse.Namespace) -> int:
    from .manifest import find_stores
    from .store import Store

    folder = _stores_folder(options)
    records: list[dict[str, Any]] = []
    for path, manifest in find_stores(folder):
        store = Store(path)
        records.append(
            {
                "name": path.name,
                "rows": len(store),
                "width": manifest.width,
                "bytes": store.size_on_disk(),
                "layer": manifest.spec.layer,
                "weights": manifest.about.get("weights", "?"),
            }
        )
    if options.json:
        print(json.dumps(records, indent=2))
        return 0
    if not records:
        print(f"No store in {folder} yet; `featcache extract` makes the first.")
    for r in records:
        size = f"{r['bytes'] / 2**20:,.1f} MiB"
        shape = f"{r['rows']:>9,} x {r['width']:<6}"
        print(f"{r['name']:<42} {shape} {size:>13}  {r['layer']}, {r['weights']}")
    return 0


def _info(options: argparse.Namespace) -> int:
    from .store import Store

    store = Store(_store_path(options))
    record = {
        "folder": str(store.folder),
        "key": store.spec.key,
        "rows": len(store),
        "width": store.width,
        "shards": len(store.shard_names),
        "bytes": store.size_on_disk(),
        "quarantined": len(store.quarantined),
        "damaged_shards": [vars(damage) for damage in store.damaged],
        "about": dict(store.about),
        "spec": store.spec.components(),
    }
    if options.json:
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


def _verify(options: argparse.Namespace) -> int:
    from .maintenance import verify

    folder = _store_path(options)
    if options.sample is None:
        return _tell(options, folder, verify(folder), "damaged", status=1)
    if options.data is None:
        raise InvalidRequest("--sample computes images again: say where they are with --data.")
    from .sampling import verify_sample

    damages = verify(folder)
    check = verify_sample(
        folder,
        options.data,
        options.sample,
        crop=options.crop,
        margin=options.margin,
        weights=options.weights,
        cache_dir=options.cache_dir,
    )
    if options.json:
        print(json.dumps({"damaged": [vars(d) for d in damages], **vars(check)}, indent=2))
    else:
        _tell(options, folder, damages, "damaged", status=1)
        print(check)
        for path, error in check.differing[:20]:
            print(f"  differs by {error:.2g}: {path}")
    return int(bool(damages or check.differing))


def _repair(options: argparse.Namespace) -> int:
    from .maintenance import repair

    folder = _store_path(options)
    return _tell(options, folder, repair(folder), "set aside or rewritten", status=0)


def _tell(
    options: argparse.Namespace, folder: Path, found: list[Any], word: str, status: int
) -> int:
    if options.json:
        print(json.dumps([vars(damage) for damage in found], indent=2))
    elif not found:
        print(f"{folder}: sound, every byte is the one that was committed")
    else:
        for damage in found:
            total = rows_of(damage.name)
            lost = f" ({damage.rows} of {total} rows lost)" if total else ""
            print(f"{word}: {damage.name}{lost}: {damage.reason}")
            for image_id in damage.ids[:_ROWS_SHOWN]:
                print(f"  row {image_id}")
            if len(damage.ids) > _ROWS_SHOWN:
                print(f"  and {len(damage.ids) - _ROWS_SHOWN} more; --json lists all")
    return status if found else 0


def _gc(options: argparse.Namespace) -> int:
    from .cachedir import cache_folder
    from .collection import collect

    removed = collect(
        cache_folder(options.cache_dir),
        unused_days=options.unused_days,
        most_bytes=None if options.keep is None else _size(options.keep),
        keep_ids=_ids(options) if options.only else None,
        names=options.store or None,
        dry_run=options.dry_run,
    )
    if options.json:
        print(json.dumps([vars(removal) for removal in removed], indent=2))
        return 0
    word = "would go" if options.dry_run else "gone"
    for r in removed:
        print(f"{word}: {r.name}, {r.rows:,} rows, {r.bytes / 2**20:,.1f} MiB: {r.reason}")
    room = sum(removal.bytes for removal in removed) / 2**20
    print(f"{len(removed)} removals, {room:,.1f} MiB" + (" (dry run)" if options.dry_run else ""))
    return 0


def _ids(options: argparse.Namespace) -> set[str]:
    """Return the ids of the images that stay; an unreadable one would make its row go."""
    from .fileindex import content_ids
    from .imagefile import example_ids

    kept: set[str] = set()
    for data in options.only:
        dataset = _dataset(options, data)
        contents = content_ids(dataset, options.cache_dir)
        unreadable = [p for p, c in zip(dataset.paths, contents, strict=True) if not c]
        if unreadable:
            raise InvalidRequest(
                f"{len(unreadable)} files of {data} cannot be read (the first is "
                f"{unreadable[0]}), so their rows could not be told from others. Nothing was "
                "removed.",
                received=unreadable,
            )
        kept |= set(example_ids(contents, dataset.boxes))
    return kept


def _size(text: str) -> int:
    """Read a size such as ``20G`` or ``500M``, in bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise InvalidRequest(f"--keep {text} is no size; give one such as 20G or 500M.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _pack(options: argparse.Namespace) -> int:
    from .packing import pack
    from .store import Store

    dataset = None if options.data is None else _dataset(options, options.data)
    store = Store(_store_path(options))
    rows = pack(store, options.file, dataset, cache_dir=options.cache_dir)
    print(f"{rows:,} rows x {store.width} of {store.folder.name} are in {options.file}")
    return 0


def _unpack(options: argparse.Namespace) -> int:
    from .cachedir import cache_folder
    from .packing import unpack

    store = unpack(options.file, cache_folder(options.cache_dir))
    print(f"{len(store):,} rows x {store.width} are in {store.folder}")
    return 0
