"""What may go when room is needed: stores by age or size, rows whose images are gone."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from .._io.cache_dirs import engines_folder, stores_folder
from .._io.system_errors import system_errors
from ..errors import DatasetError, FeatcacheError, InvalidRequest, StoreError
from ..store.lease import is_in_use
from ..store.manifest import NAME as MANIFEST_NAME
from ..store.manifest import find_stores, read_manifest
from ..store.recovery import find_shards
from ..store.removal import GONE, USED, Kept, Removal, Removals, finish_removals, refused, remove
from ..store.row_removal import remove_rows
from ..store.store import Store
from .kept_images import KeptImages

# A model that was converted this shortly ago may wait for the store that is about to need it.
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
    """Remove stores and rows.

    Parameters
    ----------
    cache : Path
        The cache folder.
    unused_days : float, optional
        Remove stores that nothing has used for so long.
    max_bytes : int, optional
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
    if unused_days is None and max_bytes is None and keep_ids is None and keep_data is None:
        raise InvalidRequest("Say what may go: by age, by size, or by the images that stay.")
    if not 0 <= (unused_days or 0) < math.inf or not 0 <= (max_bytes or 0) < math.inf:
        raise InvalidRequest("An age in days and a size in bytes must be 0 or more, and finite.")
    folder = stores_folder(cache)
    images = None if keep_data is None else KeptImages(keep_data, cache)
    with system_errors(folder):
        stores, lost = _stores(folder, names)
    wanted = {path: _ids_for(path, keep_ids, images) for path, _, _ in stores}
    found = Removals(kept=lost)
    if not dry_run:
        found.kept += finish_removals(folder)
    _whole_stores(found, stores, unused_days, max_bytes, dry_run)
    done = {each.name for each in (*found, *found.kept)}
    for path, _, _ in stores:
        ids = wanted[path]
        if path.name in done:
            continue
        if isinstance(ids, Kept):
            found.kept.append(ids)
        elif ids is not None:
            more = remove_rows(path, ids, dry_run=dry_run)
            found += more
            found.kept += more.kept
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
        except DatasetError as error:
            return Kept(path.name, f"it holds boxes, and those of the data cannot be read: {error}")
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


def _stores(
    folder: Path, names: Sequence[str] | None
) -> tuple[list[tuple[Path, float, int]], list[Kept]]:
    """Return folder, time of last use and bytes of each store, the longest unused first.

    Next to that, the stores of which this cannot be told, with the reason.
    """
    found, lost = [], []
    if names is not None:
        paths = [_named(folder, name) for name in names]
    else:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
        paths = [path for path in paths if not path.name.startswith(".")]
    for path in paths:
        try:
            if not path.is_dir():
                continue
            used = (path / MANIFEST_NAME).stat().st_mtime
            found.append((path, used, size_of(path)))
        except FileNotFoundError:
            if find_shards(path):
                reason = "its manifest is missing; `featcache repair` writes it again"
                lost.append(Kept(path.name, reason))
        except OSError as error:
            lost.append(refused(path, error))
    return sorted(found, key=lambda store: store[1]), lost


def _named(folder: Path, name: str) -> Path:
    path = folder / name
    # A path would lead to a store of another cache folder.
    if Path(name).name != name or not (path / MANIFEST_NAME).is_file():
        raise StoreError(f"There is no store {name!r} in {folder}.", path=path)
    return path


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
    max_bytes: int | None,
    dry_run: bool,
) -> None:
    total = sum(size for _, _, size in stores)
    for path, used, size in stores:
        age = (time.time() - used) / 86400
        reason = None
        if unused_days is not None and age > unused_days:
            reason = f"not used for {age:.1f} days"
        elif max_bytes is not None and total > max_bytes:
            mebibytes = total / 2**20, max_bytes / 2**20
            reason = "{:,.1f} MiB in all, {:,.1f} may stay".format(*mebibytes)
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
    needed = {engines_folder(cache) / m.spec.network for path, m in stores if path.name not in gone}
    for path in paths:
        try:
            # A young one may wait for the store that its extraction is about to make.
            if path.is_symlink() or not path.is_dir() or path in needed or _is_young(path):
                continue
            if _is_described_later(stores_folder(cache)):
                found.kept.append(Kept(path.name, "a store that is in use may need it"))
                continue
            size = size_of(path)
            if not dry_run:
                shutil.rmtree(path)
        except OSError as error:
            found.kept.append(refused(path, error))
        else:
            found.append(Removal(path.name, 0, size, "a converted model that no store needs"))


def _is_described_later(stores: Path) -> bool:
    """Return whether an extraction uses a store that has no manifest yet."""
    folders = [path for path in stores.iterdir() if path.is_dir()] if stores.is_dir() else []
    return any(is_in_use(path) for path in folders if not (path / MANIFEST_NAME).exists())


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
