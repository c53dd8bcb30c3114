"""What may go when room is needed: stores by age or size, rows whose images are gone."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .atomic import TEMPORARY_PREFIX, write_atomic
from .cachedir import engines_folder, stores_folder
from .engines import converted_folder
from .errors import FeatcacheError, InvalidRequest, StoreError, StoreWriteError
from .keptimages import KeptImages
from .lease import Lease, is_in_use, lease
from .maintenance import remove_shards
from .manifest import NAME as MANIFEST_NAME
from .manifest import find_stores, read_manifest
from .removal import (
    FULL,
    GONE,
    LEASED,
    USED,
    Kept,
    Removal,
    Removals,
    finish_removals,
    refused,
    remove,
)
from .rowindex import unpack_ids
from .store import Store
from .systemerrors import system_errors

# A model that was converted this shortly ago may wait for the store that is about to need it.
_YOUNG_SECONDS = 600.0
_PROBE, _PROBE_BYTES = "0" * 32, 2**16


def mark_used(folder: Path) -> None:
    """Note that a store was used just now, for `collect` by age."""
    with contextlib.suppress(OSError):  # a store in a read-only place is used as well
        os.utime(folder / MANIFEST_NAME)


def collect(
    cache: Path,
    *,
    unused_days: float | None = None,
    most_bytes: int | None = None,
    keep_ids: Collection[str] | None = None,
    keep_data: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    dry_run: bool = False,
) -> Removals:
    """Remove stores and rows.

    Parameters
    ----------
    cache : Path
        The cache folder.
    unused_days : float, optional
        Remove stores that nothing has used for so long.
    most_bytes : int, optional
        Then remove stores, the longest unused first, until all together have at most so many.
    keep_ids : collection of str, optional
        Remove all rows but those of these examples, from stores that stay.
    keep_data : sequence, optional
        Remove all rows but those of the images in these data sets: whatever
        `featcache.load_dataset` takes. For a store of boxes it is the boxes of the data sets,
        with the store's own margin; a store of boxes that the data sets do not give stays.
    names : sequence of str, optional
        Look at these stores alone. Default: all of the cache folder.
    dry_run : bool
        Change nothing.

    Returns
    -------
    Removals
        What went; its attribute `kept` lists what was left alone, such as stores that another
        process is using, and what the system refused.

    Raises
    ------
    InvalidRequest
        If nothing was asked for, a number is negative, or a file of `keep_data` cannot be
        read: its row could not be told from others. Nothing was removed.
    StoreError
        If a named store is not there, or the cache folder cannot be listed.
    """
    if unused_days is None and most_bytes is None and keep_ids is None and keep_data is None:
        raise InvalidRequest("Say what may go: by age, by size, or by the images that stay.")
    if (unused_days or 0) < 0 or (most_bytes or 0) < 0:
        raise InvalidRequest("An age and a size cannot be negative.")
    folder = stores_folder(cache)
    images = None if keep_data is None else KeptImages(keep_data, cache)
    with system_errors(folder):
        stores = _stores(folder, names)
    wanted = {path: _ids_for(path, keep_ids, images) for path, _, _ in stores}
    found = Removals()
    if not dry_run:
        found.kept += finish_removals(folder)
    _whole_stores(found, stores, unused_days, most_bytes, dry_run)
    done = {each.name for each in (*found, *found.kept)}
    for path, _, _ in stores:
        ids = wanted[path]
        if path.name in done:
            continue
        if isinstance(ids, Kept):
            found.kept.append(ids)
        elif ids is not None:
            _add(found, _rows(path, ids, dry_run))
    if names is None:
        _conversions(found, cache, {removal.name for removal in found}, dry_run)
    return found


def _ids_for(
    path: Path, keep_ids: Collection[str] | None, images: KeptImages | None
) -> set[str] | Kept | None:
    """Return the ids that stay in a store, or why none can be named; None to keep all."""
    if keep_ids is None and images is None:
        return None
    kept = set(keep_ids or ())
    if images is not None:
        try:
            more = images.ids_for(read_manifest(path).spec)
        except FileNotFoundError:
            return Kept(path.name, GONE)
        except OSError as error:
            return refused(path, error)
        except StoreError:
            return Kept(path.name, "its manifest is damaged; `featcache repair` rebuilds it")
        if more is None:
            return Kept(path.name, "it holds boxes, and the data that stay do not give these")
        kept |= more
    return kept


def _add(found: Removals, outcome: Removal | Kept | None) -> bool:
    if isinstance(outcome, Kept):
        found.kept.append(outcome)
    elif outcome is not None:
        found.append(outcome)
    return isinstance(outcome, Removal)


def remove_store(folder: Path) -> Removal:
    """Remove one store, whatever its age.

    Raises
    ------
    StoreError
        If another process is using it, or the system refuses.
    """
    with system_errors(folder):
        removal = Removal(folder.name, _count(folder), size_of(folder), "asked for")
        kept = remove(folder)
    if kept is not None:
        raise StoreError(f"{folder.name} was not removed: {kept.reason}.", path=folder)
    return removal


def _stores(folder: Path, names: Sequence[str] | None) -> list[tuple[Path, float, int]]:
    """Return folder, time of last use and bytes of each store, the longest unused first."""
    found = []
    if names is not None:
        paths = [folder / name for name in names]
        for path in paths:
            if not (path / MANIFEST_NAME).is_file():
                raise StoreError(f"There is no store {path.name!r} in {folder}.", path=path)
    else:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        paths = [path for path in paths if not path.name.startswith(".")]
    for path in paths:
        with contextlib.suppress(OSError):
            used = (path / MANIFEST_NAME).stat().st_mtime
            found.append((path, used, size_of(path)))
    return sorted(found, key=lambda store: store[1])


def size_of(folder: Path) -> int:
    """Return the bytes of a folder's files; one that goes meanwhile counts for nothing."""
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _whole_stores(
    found: Removals,
    stores: Sequence[tuple[Path, float, int]],
    unused_days: float | None,
    most_bytes: int | None,
    dry_run: bool,
) -> None:
    total = sum(size for _, _, size in stores)
    for path, used, size in stores:
        age = (time.time() - used) / 86400
        reason = None
        if unused_days is not None and age > unused_days:
            reason = f"not used for {age:.1f} days"
        elif most_bytes is not None and total > most_bytes:
            reason = f"{total:,} bytes in all, {most_bytes:,} may stay"
        if reason is None:
            continue
        removal = Removal(path.name, _count(path), size, reason)
        kept = _reason_to_keep(path) if dry_run else remove(path)
        if _add(found, removal if kept is None else kept):
            total -= size


def _conversions(found: Removals, cache: Path, gone: Collection[str], dry_run: bool) -> None:
    """Remove models that were converted for stores of which none is left."""
    try:
        stores = list(find_stores(stores_folder(cache)))
        paths = sorted(engines_folder(cache).glob("*"))
    except OSError as error:
        found.kept.append(refused(engines_folder(cache), error))
        return
    needed = {converted_folder(cache, m.spec) for path, m in stores if path.name not in gone}
    for path in paths:
        try:
            # A young one may wait for the store that its extraction is about to make.
            if path.is_symlink() or not path.is_dir() or path in needed or _is_young(path):
                continue
            size = size_of(path)
            if not dry_run:
                shutil.rmtree(path)
        except OSError as error:
            found.kept.append(refused(path, error))
        else:
            found.append(Removal(path.name, 0, size, "a converted model that no store needs"))


def _count(path: Path) -> int:
    try:
        return len(Store(path))
    except (FeatcacheError, OSError):
        return 0  # damaged beyond reading, and so not worth keeping


def _is_young(path: Path) -> bool:
    with contextlib.suppress(OSError):
        newest = max((f.stat().st_mtime for f in path.iterdir()), default=0)
        return time.time() - newest < _YOUNG_SECONDS
    return False


def _reason_to_keep(path: Path) -> Kept | None:
    try:
        return Kept(path.name, USED) if is_in_use(path) else None
    except OSError as error:
        return refused(path, error)


def _rows(path: Path, kept: set[str], dry_run: bool) -> Removal | Kept | None:
    """Remove rows from one store; None if all of them stay."""
    try:
        store = Store(path)
    except (FeatcacheError, OSError) as error:
        if not os.path.lexists(path / MANIFEST_NAME):
            return Kept(path.name, GONE)
        return Kept(path.name, f"it cannot be opened ({error})", failed=True)
    ids = store.ids()
    gone = sum(image_id not in kept for image_id in ids)
    if not gone:
        return None
    size = gone * (4 * store.width + 36)
    removal = Removal(path.name, gone, size, "its images are not among those that stay")
    store.close()
    if dry_run:
        return _reason_to_keep(path) or removal
    return _remove_rows(path, kept) or removal


def _remove_rows(path: Path, ids: set[str]) -> Kept | None:
    """Remove all rows of a store but some; None if that is done."""
    try:
        with lease(path) as held:
            if not held:
                if held.refused is not None:
                    return refused(path, held.refused)
                return Kept(path.name, LEASED)
            # Under the lease: an extraction that begins now waits for it, and looks again.
            if is_in_use(path):
                return Kept(path.name, USED)
            with contextlib.closing(Store(path)) as store:
                _rewrite(store, ids, held)
    except OSError as error:
        return _failed(path, error)
    except FeatcacheError as error:
        return Kept(path.name, str(error), failed=True)
    return None


def _failed(path: Path, error: OSError) -> Kept:
    ours = isinstance(error, FeatcacheError)
    return Kept(path.name, str(error), failed=True) if ours else refused(path, error)


def _rewrite(store: Store, kept: set[str], held: Lease) -> None:
    """Write what stays as new shards, list them, and only then remove the old ones."""
    store.refresh()
    emptied, replaced = [], []
    for name in store.shard_names:
        found = store.read_shard(name)
        if found is None:
            continue
        ids = unpack_ids(found[1].image_ids)
        if not any(image_id in kept for image_id in ids):
            emptied.append(name)
        elif not all(image_id in kept for image_id in ids):
            replaced.append(name)
    if emptied and _is_full(store.folder):
        # Where nothing can be written, what goes whole makes the room for the rest. Until the
        # manifest is written, `verify` misses these shards.
        held.check()
        remove_shards(store.folder, emptied)
        emptied = []
        store.refresh()
    # One that cannot be read again stays, with all its rows: it may be a disk that fails.
    replaced = [name for name in replaced if _write_kept(store, name, kept)]
    held.check()
    store.write_manifest_under_lease(without=emptied + replaced)
    held.check()
    remove_shards(store.folder, emptied + replaced)


def _write_kept(store: Store, name: str, kept: set[str]) -> bool:
    """Write the rows that stay of a shard anew; False if it cannot be read."""
    found = store.read_shard(name)
    if found is None:
        return False
    rows, head = found
    stays = np.array([image_id in kept for image_id in unpack_ids(head.image_ids)])
    fraction = {"seconds": f"{head.seconds * stays.mean():.6f}"}
    store.append_packed(rows[stays], head.image_ids[stays], head.views[stays], fraction)
    return True


def _is_full(folder: Path) -> bool:
    """Return whether a small file cannot be written for want of room."""
    try:
        write_atomic(folder / f"{TEMPORARY_PREFIX}{_PROBE}", bytes(_PROBE_BYTES), durable=False)
    except StoreWriteError as error:
        return error.evidence.get("system_errno") in FULL
    with contextlib.suppress(OSError):
        (folder / f"{TEMPORARY_PREFIX}{_PROBE}").unlink()
    return False
