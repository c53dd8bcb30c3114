"""`featcache gc`: remove stores and rows that are not needed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .options import ByteSize, Common, command, complete_store, crop, load, margin

if TYPE_CHECKING:
    from ..dataset import Dataset


@command("gc")
@click.argument("store", nargs=-1, shell_complete=complete_store)
@click.option("--unused-days", type=float, metavar="N", help="Stores that nothing used for N days.")
@click.option(
    "--keep", type=ByteSize(), help="Stores, the longest unused first, until SIZE is left."
)
@click.option(
    "--only",
    multiple=True,
    metavar="DATA",
    help="Rows of all images that are not in DATA; may be given several times.",
)
@crop
@margin
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
def gc(
    common: Common,
    store: tuple[str, ...],
    unused_days: float | None,
    keep: int | None,
    only: tuple[str, ...],
    crop: str | None,
    margin: float,
    dry_run: bool,
) -> int:
    """Remove stores by age or size, and rows by their images.

    STORE limits it to some stores: folders, names, unique beginnings of names, or backbones.
    """
    from ..collection import collect
    from ..storenames import find_store

    removed = collect(
        common.cache,
        unused_days=unused_days,
        most_bytes=keep,
        keep_ids=_ids([load(data, crop, margin, common) for data in only], common)
        if only
        else None,
        names=[find_store(name, common.stores).name for name in store] or None,
        dry_run=dry_run,
    )
    if common.json:
        print(json.dumps([vars(removal) for removal in removed], indent=2))
        return 0
    word = "would go" if dry_run else "gone"
    for r in removed:
        print(f"{word}: {r.name}, {r.rows:,} rows, {r.bytes / 2**20:,.1f} MiB: {r.reason}")
    total = sum(removal.bytes for removal in removed) / 2**20
    print(f"{len(removed)} removals, {total:,.1f} MiB" + (" (dry run)" if dry_run else ""))
    return 0


def _ids(datasets: list[Dataset], common: Common) -> set[str]:
    """Return the ids of the images that stay; an unreadable one would make its row go."""
    from ..errors import InvalidRequest
    from ..fileindex import content_ids
    from ..imagefile import example_ids

    kept: set[str] = set()
    for dataset in datasets:
        contents = content_ids(dataset, common.cache_dir)
        unreadable = [p for p, c in zip(dataset.paths, contents, strict=True) if not c]
        if unreadable:
            raise InvalidRequest(
                f"{len(unreadable)} files of {dataset.name} cannot be read (the first is "
                f"{unreadable[0]}), so their rows could not be told from others. Nothing was "
                "removed.",
                received=unreadable,
            )
        kept |= set(example_ids(contents, dataset.boxes))
    return kept
