"""What `featcache gc`, `verify`, `repair` and `rm` do for a cache in an object store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreError, UnknownStore
from .options import Common

if TYPE_CHECKING:
    from ..hdf5.shard_name import Damage
    from ..store.removal import Removal, Removals


def collect(common: Common, url: str, grace_days: float | None, **options: Any) -> Removals:
    """Remove what is not needed; see `featcache.gc.bucket.collect_bucket` for the options."""
    from ..gc.bucket import GRACE_DAYS, collect_bucket

    grace = GRACE_DAYS if grace_days is None else grace_days
    return collect_bucket(url, common.local, grace_days=grace, **options)


def summary(common: Common, url: str) -> tuple[int, int]:
    """Return the number of stores and the size of their listed objects in bytes."""
    from ..store.bucket.removal import listed_bytes
    from ..store.bucket.store import find_bucket_store
    from ..store.bucket.store_names import store_names

    sizes = []
    for name in store_names(url, []):
        try:
            store = find_bucket_store(url, name, common.local)
        except StoreError:
            continue  # it was reported
        if store is not None:
            sizes.append(listed_bytes(store))
    return len(sizes), sum(sizes)


def verify(common: Common, url: str, text: str | None) -> dict[str, list[Damage]]:
    """Return the damage of the store that a text identifies, or of each store, by URL."""
    from ..hdf5.shard_name import Damage
    from ..store.bucket.objects import Bucket
    from ..store.bucket.store import mirror_folder
    from ..store.bucket.store_names import store_names
    from ..store.bucket.verification import verify_bucket

    names = store_names(url, []) if text is None else [one_name(url, text)]
    found: dict[str, list[Damage]] = {}
    for name in names:
        try:
            found[name] = verify_bucket(Bucket(url), name, mirror_folder(common.local, url, name))
        except StoreError as error:
            found[name] = [Damage(name, 0, str(error))]
    return found


def repair(common: Common, url: str, text: str) -> tuple[Path, list[Damage]]:
    """Repair the store that a text identifies; return its name and the damage."""
    from ..store.bucket.objects import Bucket
    from ..store.bucket.store import mirror_folder
    from ..store.bucket.verification import repair_bucket

    name = one_name(url, text)
    return Path(name), repair_bucket(Bucket(url), name, mirror_folder(common.local, url, name))


def remove(common: Common, url: str, text: str, *, dry_run: bool) -> Removal:
    """Remove all shards of the store that a text identifies from its list.

    Raises
    ------
    StoreError
        If another process is using it, or the server refuses.
    """
    from ..store.bucket.removal import remove_all_shards
    from ..store.bucket.store import BucketStore, mirror_folder
    from ..store.removal import Kept

    name = one_name(url, text)
    store = BucketStore(url, name, mirror_folder(common.local, url, name))
    found = remove_all_shards(store, "requested", dry_run=dry_run)
    if isinstance(found, Kept):
        raise StoreError(f"{name} was not removed: {found.reason.rstrip('.')}.", path=url)
    return found


def one_name(url: str, text: str) -> str:
    """Return the name of the only store that begins with a text.

    Raises
    ------
    UnknownStore
        If there is none, or several.
    """
    from .._io.wording import format_values
    from ..store.bucket.store_names import store_names

    found = store_names(url, [text])
    if len(found) != 1:
        raise UnknownStore(
            f"{len(found)} stores match {text!r}: {format_values(found, str)}. Give a longer "
            "prefix.",
            path=text,
            candidates=found,
        )
    return found[0]
