"""`featcache gc`: remove stores and rows that are no longer needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._io.wording import format_count
from . import bucket_care
from .options import ByteSize, Common, command, complete_store

if TYPE_CHECKING:
    from ..store.removal import Removal, Removals


@command("gc")
@click.argument("store", nargs=-1, shell_complete=complete_store)
@click.option("--unused-days", type=float, metavar="N", help="Remove stores not used for N days.")
@click.option(
    "--keep",
    type=ByteSize(),
    help="Remove stores, least recently used first, until at most SIZE is left, such as 20G.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="DATA",
    help="Remove the rows of images that are not in DATA; may be given several times.",
)
@click.option(
    "--grace-days",
    type=float,
    metavar="N",
    help="In an object store: keep objects that are not listed for N days. Default: 1.",
)
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
def gc(
    common: Common,
    store: tuple[str, ...],
    unused_days: float | None,
    keep: int | None,
    only: tuple[str, ...],
    grace_days: float | None,
    dry_run: bool,
) -> int:
    """Remove old stores, or rows of images that are no longer needed.

    Give at least one of --unused-days, --keep and --only. Stores that another process is using
    are kept. The exit status is 1 if a removal fails. Local copies of stores in object stores are
    removed by age, and before any store by size.

    Of a cache in an object store, also remove objects that no store lists: those of merged or
    removed shards, and what killed processes left.

    STORE limits it to some stores: folders, names, unique prefixes of names, or backbones; of a
    cache in an object store, names or prefixes.
    """
    found = _collect(
        common, store, grace_days,
        unused_days=unused_days, max_bytes=keep, keep_data=only or None, dry_run=dry_run,
    )  # fmt: skip
    failed = any(kept.failed for kept in found.kept)
    if common.json:
        record = {"removed": [vars(r) for r in found], "kept": [vars(k) for k in found.kept]}
        print(json.dumps(record, indent=2))
        return int(failed)
    word = "would remove" if dry_run else "removed"
    for r in found:
        print(
            f"{word}: {r.name}, {format_count(r.rows, 'row')}, "
            f"{r.bytes / 2**20:,.1f} MiB: {r.reason}"
        )
    for kept in found.kept:
        print(f"kept: {kept.name}: {kept.reason}")
    print(_summary(common, list(found), dry_run))
    return int(failed)


def _collect(
    common: Common, store: Sequence[str], grace_days: float | None, **options: Any
) -> Removals:
    """Remove what the options of the command say."""
    if common.url is not None:
        return bucket_care.collect(common, common.url, grace_days, names=store, **options)
    from ..errors import InvalidRequest
    from ..gc.collect import collect

    if grace_days is not None:
        raise InvalidRequest(
            "--grace-days is for a cache in an object store: name one with --cache-dir.",
            received=grace_days,
        )
    names = [_name_of(text, common.stores) for text in store] or None
    return collect(common.cache, names=names, **options)


def _summary(common: Common, found: list[Removal], dry_run: bool) -> str:
    """Return a line of text: what was removed, and what remains."""
    freed = sum(removal.bytes for removal in found)
    count, size = _what_remains(common)
    removals = f"{format_count(len(found), 'removal')}, {freed / 2**20:,.1f} MiB"
    stores = f"{format_count(count, 'store')} of {size / 2**20:,.1f} MiB"
    if dry_run:
        return f"{removals} (dry run), of {stores}"
    return f"{removals}; {stores} remain{'s' * (count == 1)}"


def _what_remains(common: Common) -> tuple[int, int]:
    """Return the number of stores, and their size in bytes."""
    if common.url is not None:
        return bucket_care.summary(common, common.url)
    from .._io.disk_space import folder_bytes
    from ..store.manifest import find_stores

    sizes = [folder_bytes(path) for path, _ in find_stores(common.stores)]
    return len(sizes), sum(sizes)


def _name_of(text: str, stores: Path) -> str:
    """Return the name of a store; refuse one outside the cache folder, of maybe the same name."""
    from ..errors import InvalidRequest
    from ..store.store_names import find_store

    folder = find_store(text, stores)
    if not (stores / folder.name).exists() or not folder.samefile(stores / folder.name):
        raise InvalidRequest(
            f"{text} is not in the cache folder {stores.parent}. Name its cache folder with "
            "--cache-dir, or delete the store with `featcache rm`.",
            received=text,
        )
    return folder.name
