"""What may go when room is needed: stores by age or size, rows whose images are gone."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .cachedir import engines_folder, stores_folder
from .engines import converted_folder
from .errors import InvalidRequest, StoreError
from .lease import lease
from .maintenance import remove_shards
from .manifest import NAME as MANIFEST_NAME
from .manifest import find_stores
from .rowindex import unpack_ids
from .store import Store

_GONE = ".gone-"
# A store that was written to this shortly ago may be in the middle of an extraction.
_BUSY_SECONDS = 600.0


@dataclass(frozen=True)
class Removal:
    """What goes, or would go.

    Attributes
    ----------
    name : str
        The folder of the store, or of the converted model.
    rows : int
    bytes : int
        That are freed; for rows of a store that stays, about so many.
    reason : str
    """

    name: str
    rows: int
    bytes: int
    reason: str


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
    names: Sequence[str] | None = None,
    dry_run: bool = False,
) -> list[Removal]:
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
    names : sequence of str, optional
        Look at these stores alone. Default: all of the cache folder.
    dry_run : bool
        Only tell.

    Returns
    -------
    list of Removal
        What went; stores that another process is using are left alone.

    Raises
    ------
    InvalidRequest
        If nothing was asked for, or a number is negative.
    StoreError
        If a named store is not there.
    """
    if unused_days is None and most_bytes is None and keep_ids is None:
        raise InvalidRequest("Say what may go: by age, by size, or by the images that stay.")
    if (unused_days or 0) < 0 or (most_bytes or 0) < 0:
        raise InvalidRequest("An age and a size cannot be negative.")
    folder = stores_folder(cache)
    if not dry_run:
        _finish_removals(folder)
    stores = _stores(folder, names)
    removed = _whole_stores(stores, unused_days, most_bytes, dry_run)
    gone = {removal.name for removal in removed}
    if keep_ids is not None:
        for path, _, _ in stores:
            if path.name not in gone:
                removed += _rows(path, keep_ids, dry_run)
    if names is None:
        removed += _conversions(cache, gone, dry_run)
    return removed


def remove_store(folder: Path) -> Removal:
    """Remove one store, whatever its age.

    Raises
    ------
    StoreError
        If another process is using it, or the system refuses.
    """
    size = sum(file.stat().st_size for file in folder.iterdir())
    removal = Removal(folder.name, _count(folder), size, "asked for")
    if not _remove(folder):
        raise StoreError(
            f"{folder.name} was not removed: another process is using it, or you may not write "
            f"to {folder.parent}. Nothing was changed.",
            path=folder,
        )
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
    for path in paths:
        with contextlib.suppress(OSError):
            used = (path / MANIFEST_NAME).stat().st_mtime
            found.append((path, used, sum(f.stat().st_size for f in path.iterdir())))
    return sorted(found, key=lambda store: store[1])


def _whole_stores(
    stores: Iterable[tuple[Path, float, int]],
    unused_days: float | None,
    most_bytes: int | None,
    dry_run: bool,
) -> list[Removal]:
    stores = list(stores)
    total = sum(size for _, _, size in stores)
    removed = []
    for path, used, size in stores:
        age = (time.time() - used) / 86400
        reason = None
        if unused_days is not None and age > unused_days:
            reason = f"not used for {age:.1f} days"
        elif most_bytes is not None and total > most_bytes:
            reason = f"{total:,} bytes in all, {most_bytes:,} may stay"
        if reason is None or _busy(path):
            continue
        rows = _count(path)
        if dry_run or _remove(path):
            removed.append(Removal(path.name, rows, size, reason))
            total -= size
    return removed


def _conversions(cache: Path, gone: Collection[str], dry_run: bool) -> list[Removal]:
    """Remove models that were converted for stores of which none is left."""
    stores = find_stores(stores_folder(cache))
    needed = {converted_folder(cache, m.spec) for path, m in stores if path.name not in gone}
    removed = []
    for path in sorted(engines_folder(cache).glob("*")):
        with contextlib.suppress(OSError):
            # A young one may wait for the store that its extraction is about to make.
            if not path.is_dir() or path in needed or _busy(path):
                continue
            size = sum(file.stat().st_size for file in path.iterdir())
            if not dry_run:
                shutil.rmtree(path)
            removed.append(Removal(path.name, 0, size, "a converted model that no store needs"))
    return removed


def _count(path: Path) -> int:
    try:
        return len(Store(path))
    except StoreError:
        return 0  # damaged beyond reading, and so not worth keeping


def _busy(path: Path) -> bool:
    with contextlib.suppress(OSError):
        newest = max(
            (f.stat().st_mtime for f in path.iterdir() if f.name != MANIFEST_NAME), default=0
        )
        return time.time() - newest < _BUSY_SECONDS
    return False


def _remove(path: Path) -> bool:
    """Take a store away: by one rename, so that nobody ever sees half of it."""
    grave = path.with_name(f"{_GONE}{uuid.uuid4().hex}")
    with lease(path) as held:
        if not held:
            return False
        try:
            path.rename(grave)
        except OSError:
            return False
    shutil.rmtree(grave, ignore_errors=True)
    return True


def _finish_removals(folder: Path) -> None:
    """Remove what a killed process had begun to."""
    if folder.is_dir():
        for path in folder.glob(f"{_GONE}*"):
            shutil.rmtree(path, ignore_errors=True)


def _rows(path: Path, keep_ids: Collection[str], dry_run: bool) -> list[Removal]:
    """Write what stays as new shards, list them, and only then remove the old ones."""
    store = Store(path)
    kept = set(keep_ids)
    ids = store.ids()
    wanted = [image_id for image_id in ids if image_id in kept]
    gone = len(ids) - len(wanted)
    if not gone:
        return []
    removal = Removal(
        path.name, gone, gone * (4 * store.width + 36), "its images are not among those that stay"
    )
    if dry_run:
        return [removal]
    with lease(path) as held:
        if not held:
            return []
        store.refresh()
        replaced = []
        for name in store.shard_names:
            found = store.read_shard(name)
            if found is None:
                continue
            rows, head = found
            stays = np.array([image_id in kept for image_id in unpack_ids(head.image_ids)])
            if stays.all():
                continue
            if stays.any():
                share = {"seconds": f"{head.seconds * stays.mean():.6f}"}
                store.append_packed(rows[stays], head.image_ids[stays], head.views[stays], share)
            replaced.append(name)
        store.write_manifest_under_lease(without=replaced)
        remove_shards(path, replaced)
    store.close()
    return [removal]
