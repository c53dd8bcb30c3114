"""Copy rows between caches: only those that the other one lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .._io.atomic import make_folder
from .._io.cache_dirs import stores_folder
from .._io.disk_space import check_free_bytes
from .._io.logs import get_logger
from .._io.progress import progress_bar
from .._io.system_errors import system_errors
from ..errors import StoreCorrupt, StoreError
from ..hdf5.row_dtype import Rows
from ..hdf5.shard_metadata import ShardMetadata
from .index_build import update_index
from .lease import mark_in_use
from .recovery import MAX_LISTINGS
from .row_index import IdArray, unpack_ids
from .store import Store

log = get_logger(__name__)


@dataclass(frozen=True)
class Copied:
    """What `copy_rows` did.

    Attributes
    ----------
    store : Store
        The store that the rows were copied to.
    rows, present : int
        Numbers of rows that were copied, and that it had already.
    damaged : tuple of str
        Names of shards whose rows could not be copied, since they are damaged.
    """

    store: Store
    rows: int
    present: int
    damaged: tuple[str, ...]


def copy_rows(source: Store, cache: Path, *, progress: bool | None = None) -> Copied:
    """Copy the rows of a store to the store of the same key in another cache.

    Rows that this one has are not read. The bytes of each shard are verified first, and a copied
    shard is committed as those of an extraction: after an interruption the same call copies the
    rest.

    Parameters
    ----------
    source : Store
    cache : Path
        The other cache folder. Missing folders are created.
    progress : bool, optional
        Show a progress bar. Default: on a terminal and in a notebook.

    Returns
    -------
    Copied

    Raises
    ------
    StoreError
        If `cache` is the cache that holds `source`, or its shards were merged during every attempt.
    StoreMismatch
        If rows of another key are in the store's folder there.
    StoreWriteError
        If the disk refuses, or lacks the space. Rows that were copied before stay.
    """
    folder = stores_folder(cache) / source.spec.folder
    with system_errors(folder):
        make_folder(folder)
        if folder.resolve() == source.folder.resolve():
            raise StoreError(
                f"{folder} is the store that the rows are in. Give another cache folder.",
                path=folder,
            )
        with mark_in_use(folder):
            target = Store.create(folder, source.spec, source.width, dict(source.metadata))
            copied = _copy(source, target, progress)
            target.write_manifest()
            update_index(target)
    return copied


def _copy(source: Store, target: Store, progress: bool | None) -> Copied:
    ids = source.ids()
    # Confirmed once, for all rows: a wrong index file of the target would leave some out.
    missing = int(np.count_nonzero(~target.contains(ids, confirm=True)))
    present = len(ids) - missing
    check_free_bytes(
        target.folder, missing * source.spec.row_bytes(source.width),
        f"{missing:,} rows of {source.folder.name} need",
        "Free some space, or choose another cache folder.",
    )  # fmt: skip
    rows, damaged = 0, list[str]()
    with progress_bar(missing, source.folder.name, "rows", progress) as bar:
        lacking = partial(_lacks, target)
        for name, found in shards_of(source, lacking):
            if found is None:
                damaged.append(name)
                continue
            count = _append_new(target, *found)
            rows += count
            bar.update(count)
    return Copied(target, rows, present, tuple(damaged))


def _lacks(target: Store, ids: IdArray) -> bool:
    return not target.contains(unpack_ids(ids)).all()


def shards_of(
    source: Store, wanted: Callable[[IdArray], bool]
) -> Iterator[tuple[str, tuple[Rows, ShardMetadata] | None]]:
    """Yield each shard with its rows; None for a damaged one.

    Those whose ids are not `wanted` are not read: an object store would send them all.

    A shard that another process merges into a larger one is missing; then the store is listed
    again.
    """
    done: set[str] = set()
    for _ in range(MAX_LISTINGS):
        gone = False
        for name in [name for name in source.shard_names if name not in done]:
            if not _is_wanted(source, name, wanted):
                done.add(name)
                continue
            found = source.read_shard(name)
            if found is None and source.is_gone(name):
                gone = True
                continue
            done.add(name)
            yield name, found
        if not gone:
            break
        source.refresh()
    else:
        raise StoreError(
            f"{source.folder} could not be read: other processes merged its shards during each of "
            f"{MAX_LISTINGS} attempts. Rows that were copied stay; run the same command again.",
            path=source.folder,
        )
    yield from ((damage.name, None) for damage in source.damaged if damage.name not in done)


def _is_wanted(source: Store, name: str, wanted: Callable[[IdArray], bool]) -> bool:
    try:
        return wanted(source.ids_in(name))
    except (FileNotFoundError, StoreCorrupt):
        return True  # as `read_shard` finds out


def _append_new(target: Store, rows: Rows, metadata: ShardMetadata) -> int:
    """Commit the rows that a store lacks as one shard; return their number."""
    ids: IdArray = metadata.image_ids
    new = ~target.contains(unpack_ids(ids))
    seconds = metadata.seconds * float(new.mean())
    provenance = {"copied": "1", "seconds": f"{seconds:.6f}"}
    target.append_packed(rows[new], ids[new], metadata.views[new], provenance)
    target.refresh()
    return int(new.sum())
