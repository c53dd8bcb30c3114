"""Garbage collection of a cache folder: stores by age or size, rows of images that are gone."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._io.atomic import remove_stale
from .._io.cache_dirs import engines_folder, stores_folder
from .._io.disk_space import folder_bytes
from .._io.own_files import is_keyed_name, unexpected_converted_files
from .._io.system_errors import system_errors
from .._io.wording import format_values
from ..errors import FeatcacheError, InvalidRequest, StoreError
from ..store.lease import is_in_use
from ..store.manifest import NAME as MANIFEST_NAME
from ..store.manifest import find_stores, read_manifest
from ..store.recovery import find_shards
from ..store.removal import (
    USED,
    Kept,
    Removal,
    Removals,
    check_ownership,
    failed_removal,
    remove,
    resume_removals,
)
from ..store.row_removal import remove_rows
from ..store.store import Store
from .copies import collect_copies
from .kept_images import KeptImages, kept_ids

# The store of a model that was converted this recently may not have been created yet.
_YOUNG_SECONDS = 600.0


def collect(
    cache: Path,
    *,
    unused_days: float | None = None,
    max_bytes: int | None = None,
    keep_ids: Collection[str] | None = None,
    keep_data: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    dry_run: bool = False,
) -> Removals:
    """Remove stores and rows that are no longer needed.

    Parameters
    ----------
    cache : Path
        The cache folder.
    unused_days : float, optional
        Remove stores that have not been used for more than this number of days, and local copies
        of stores in object stores.
    max_bytes : int, optional
        Then remove such copies, and the least recently used stores, until the rest has at most
        this size.
    keep_ids : collection of str, optional
        From the remaining stores, remove all rows except those of these example ids.
    keep_data : sequence, optional
        From the remaining stores, remove all rows except those of the images in these data
        sets: anything that `featcache.load_dataset` accepts. For a store of boxes these are the
        boxes of the data sets with the store's margin; a store of other boxes is kept.
    names : sequence of str, optional
        Names of the stores to consider. Default: all of the cache folder.
    dry_run : bool
        Change nothing.

    Returns
    -------
    Removals
        What was removed; its attribute `kept` lists what was not, such as stores in use by
        another process, and errors of the system.

    Raises
    ------
    InvalidRequest
        If no criterion is given, a number is negative, or a file of `keep_data` cannot be read,
        so that its row cannot be identified. Nothing is removed.
    StoreError
        If a named store does not exist, or the cache folder cannot be listed.
    """
    if unused_days is None and max_bytes is None and keep_ids is None and keep_data is None:
        raise InvalidRequest(
            "Say what to remove: give an age (unused_days, --unused-days), a size (max_bytes, "
            "--keep), or the images to keep (keep_ids, keep_data, --only)."
        )
    if not 0 <= (unused_days or 0) < math.inf or not 0 <= (max_bytes or 0) < math.inf:
        raise InvalidRequest("An age in days and a size in bytes must be 0 or more, and finite.")
    folder = stores_folder(cache)
    images = None if keep_data is None else KeptImages(keep_data, cache)
    with system_errors(folder):
        stores, lost = _stores(folder, names)
    wanted = {path: _ids_for(path, keep_ids, images) for path, _, _ in stores}
    found = Removals(kept=lost)
    if not dry_run:
        found.kept += resume_removals(folder)
    copies = 0
    if names is None:  # before any store: what they hold is in an object store as well
        left = _bytes_within(stores, unused_days)
        copies = collect_copies(
            cache, found, unused_days=unused_days, max_bytes=max_bytes, beside=left, dry_run=dry_run
        )
    _remove_stores(found, stores, copies, unused_days, max_bytes, dry_run)
    _remove_rows(found, wanted, dry_run)
    if names is None:
        _remove_conversions(found, cache, {removal.name for removal in found}, dry_run)
    return found


def _remove_rows(
    found: Removals, wanted: Mapping[Path, set[str] | Kept | None], dry_run: bool
) -> None:
    """Remove the rows that are not wanted from the stores that were not removed."""
    done = {each.name for each in (*found, *found.kept)}
    for path, ids in wanted.items():
        if path.name in done:
            continue
        if isinstance(ids, Kept):
            found.kept.append(ids)
        elif ids is not None:
            more = remove_rows(path, ids, dry_run=dry_run)
            found += more
            found.kept += more.kept


def _ids_for(
    path: Path, keep_ids: Collection[str] | None, images: KeptImages | None
) -> set[str] | Kept | None:
    """Return the ids to keep in a store, or why they are unknown; None to keep all."""
    if images is None:
        return None if keep_ids is None else set(keep_ids)
    try:
        return kept_ids(path.name, read_manifest(path).spec, keep_ids, images)
    except OSError as error:
        return failed_removal(path, error)
    except StoreError:
        return Kept(path.name, "its manifest is damaged; `featcache repair` rebuilds it")


def _record(found: Removals, outcome: Removal | Kept) -> bool:
    if isinstance(outcome, Kept):
        found.kept.append(outcome)
        return False
    found.append(outcome)
    return True


def remove_store(folder: Path) -> Removal:
    """Remove one store, regardless of its age.

    Raises
    ------
    StoreError
        If another process is using it, or the system refuses.
    """
    with system_errors(folder):
        removal = Removal(folder.name, _count(folder), folder_bytes(folder), "requested")
        kept = remove(folder)
    if kept is not None:
        raise StoreError(f"{folder.name} was not removed: {kept.reason.rstrip('.')}.", path=folder)
    return removal


def _stores(
    folder: Path, names: Sequence[str] | None
) -> tuple[list[tuple[Path, float, int]], list[Kept]]:
    """Return folder, time of last use and size of each store, least recently used first.

    Also returns the stores for which these are unknown, with the reason.
    """
    found, lost = [], []
    if names is not None:
        paths = [_store_path(folder, name) for name in names]
    else:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        paths = [path for path in paths if not path.name.startswith(".")]
    for path in paths:
        try:
            if not path.is_dir():
                continue
            used = (path / MANIFEST_NAME).stat().st_mtime
            found.append((path, used, folder_bytes(path)))
        except FileNotFoundError:
            if find_shards(path):
                reason = "its manifest is missing; `featcache repair` rewrites it"
                lost.append(Kept(path.name, reason))
        except OSError as error:
            lost.append(failed_removal(path, error))
    return sorted(found, key=lambda store: store[1]), lost


def _store_path(folder: Path, name: str) -> Path:
    path = folder / name
    # A path could name a store of another cache folder.
    if Path(name).name != name or not (path / MANIFEST_NAME).is_file():
        raise StoreError(f"There is no store {name!r} in {folder}.", path=path)
    return path


def _bytes_within(stores: Sequence[tuple[Path, float, int]], unused_days: float | None) -> int:
    """Return the size of the stores that are not removed for their age."""
    oldest = -math.inf if unused_days is None else time.time() - unused_days * 86400
    return sum(size for _, used, size in stores if used >= oldest)


def _remove_stores(
    found: Removals,
    stores: Sequence[tuple[Path, float, int]],
    copies: int,
    unused_days: float | None,
    max_bytes: int | None,
    dry_run: bool,
) -> None:
    total = copies + sum(size for _, _, size in stores)
    for path, used, size in stores:
        age = (time.time() - used) / 86400
        reason = None
        if unused_days is not None and age > unused_days:
            reason = f"not used for {age:.1f} days"
        elif max_bytes is not None and total > max_bytes:
            mebibytes = total / 2**20, max_bytes / 2**20
            reason = "{:,.1f} MiB in all, the limit is {:,.1f}".format(*mebibytes)
        if reason is None:
            continue
        removal = Removal(path.name, _count(path), size, reason)
        kept = _check_unused(path) if dry_run else remove(path)
        if _record(found, removal if kept is None else kept):
            total -= size


def _remove_conversions(found: Removals, cache: Path, gone: Collection[str], dry_run: bool) -> None:
    """Remove converted models that no remaining store needs; leave other files and folders."""
    if not dry_run:
        remove_stale(engines_folder(cache))  # left by conversions that were killed
    try:
        stores = list(find_stores(stores_folder(cache)))
        paths = sorted(p for p in engines_folder(cache).glob("*") if is_keyed_name(p.name))
    except OSError as error:
        found.kept.append(failed_removal(engines_folder(cache), error))
        return
    needed = {engines_folder(cache) / m.spec.network for path, m in stores if path.name not in gone}
    for path in paths:
        try:
            # The extraction that converted a recent one may not have created its store yet.
            if path.is_symlink() or not path.is_dir() or path in needed or _is_young(path):
                continue
            if _has_unfinished_store(stores_folder(cache)):
                found.kept.append(Kept(path.name, "a store in use may need it"))
                continue
            if unexpected := unexpected_converted_files(path):
                reason = f"it contains files that no conversion writes: {format_values(unexpected)}"
                found.kept.append(Kept(path.name, reason))
                continue
            size = folder_bytes(path)
            if not dry_run:
                shutil.rmtree(path)
        except OSError as error:
            found.kept.append(failed_removal(path, error))
        else:
            found.append(Removal(path.name, 0, size, "a converted model that no store needs"))


def _has_unfinished_store(stores: Path) -> bool:
    """Return whether an extraction uses a store that has no manifest yet."""
    folders = [path for path in stores.iterdir() if path.is_dir()] if stores.is_dir() else []
    # Marks are left: a folder may be a link to a store of another cache.
    return any(
        is_in_use(path, remove_abandoned=False)
        for path in folders
        if not (path / MANIFEST_NAME).exists()
    )


def _count(path: Path) -> int:
    try:
        return len(Store(path, write_sidecars=False))
    except (FeatcacheError, OSError):
        return 0  # unreadable


def _is_young(path: Path) -> bool:
    with contextlib.suppress(OSError):
        newest = max((f.stat().st_mtime for f in path.iterdir()), default=0)
        return time.time() - newest < _YOUNG_SECONDS
    return False


def _check_unused(path: Path) -> Kept | None:
    try:
        used = is_in_use(path, remove_abandoned=False)
        return check_ownership(path) or (Kept(path.name, USED) if used else None)
    except OSError as error:
        return failed_removal(path, error)
