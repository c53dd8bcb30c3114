"""Writing of the index file of a store, in a bounded amount of memory.

The rows of some shards at a time are sorted by their keys and written to a temporary file. Then the
rows whose ids begin with the same byte are collected from all these parts, sorted and written to
the index, one byte after the other. Ids are digests, so that each byte has its share of the rows.

A store whose shards are not files of its folder, such as one in a bucket with local copies of the
sidecars, can have an index in the folder of the copies. `build_index`, with its own `find` and
`size_of`, writes it, and `FolderIndex.current` opens it. Those of its shards (``file.head.names``)
that the store's list has as well are, with their numbers, `indexed` of the `ShardTable` that
`Store._use` is given.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .._io.atomic import open_atomic, temporary_path, write_all
from .._io.logs import get_logger
from .._io.wording import format_count
from ..errors import StoreCorrupt, StoreError
from ..hdf5.shard_metadata import ShardMetadata
from ..hdf5.shard_name import Damage, rows_in_names
from .index_file import NAME, PAGE, ROW, ROWS_PER_PAGE, IndexHead, Keys, make_keys
from .lease import Lease, lease
from .manifest import Manifest
from .set_aside import set_aside

if TYPE_CHECKING:
    from .store import Store

log = get_logger(__name__)

# Fewer sidecars are read in some milliseconds.
MANY_SHARDS = 64
_MANY_ROWS_FRACTION = 0.1
# What opening may cost beside the index: half a second, and 130 MB.
_MAX_NEWER_SHARDS = 4096
_MAX_NEWER_ROWS = 2_000_000
_MAX_ROWS_IN_MEMORY = 5_000_000
_ROWS_PER_PART = 1_000_000
_BYTES = 256


def update_index(store: Store) -> bool:
    """Write the index file of a store if many of its shards are not in it.

    Parameters
    ----------
    store : Store
        Of a folder that can be written. Its shards are listed again.

    Returns
    -------
    bool
        Whether it was written. An error of the system is logged: the store works without it.
    """
    if not index_pays(store):
        return False
    with _logged_errors(store.folder), lease(store.folder) as held:
        if held:
            store.refresh()  # another process may have written it before we had the lease
            if index_pays(store):
                write_index(store, held)
                return True
    return False


def renew_index(store: Store, held: Lease) -> None:
    """Remove the ids of removed rows from the index file; the caller holds the lease.

    Parameters
    ----------
    store : Store
        Listed after the removal.
    held : Lease
    """
    if store.shards.file is None or len(store.shards.indexed) == len(store.shards.file.head.names):
        return
    with _logged_errors(store.folder):
        remove_index(store.folder)
        store.refresh()
        if len(store.shards) > MANY_SHARDS:
            write_index(store, held)


def remove_index(folder: Path) -> None:
    """Remove an index file, and rename whatever else has its name."""
    path = folder / NAME
    if path.is_dir() and not path.is_symlink():
        set_aside(path)
    else:
        path.unlink(missing_ok=True)


def build_before_listing(
    folder: Path,
    manifest: Manifest,
    names: Sequence[str],
    find: Callable[[str], ShardMetadata | Damage | None],
) -> bool:
    """Write the index file of a store that has lost it, if its ids may not fit in memory.

    Parameters
    ----------
    folder : Path
    manifest : Manifest
    names : sequence of str
        The shards whose metadata would be read into memory, sorted.
    find : callable
        As for `build_index`.

    Returns
    -------
    bool
        Whether it was written. An error of the system is logged.
    """
    if sum(rows_in_names(names)) <= _MAX_ROWS_IN_MEMORY:
        return False
    with _logged_errors(folder), lease(folder) as held:
        if held:
            log.info("%s: writing the index of %s", folder, format_count(len(names), "shard"))
            key, width = manifest.spec.key, manifest.width
            build_index(folder, key, width, names, find, held)
            return True
    return False


@contextlib.contextmanager
def _logged_errors(folder: Path) -> Iterator[None]:
    """Log an error, such as a full disk or a shard that was merged: a store works without index."""
    try:
        yield
    except (StoreError, OSError) as error:
        log.warning("The index of %s was not written: %s", folder, error)


def index_pays(store: Store) -> bool:
    """Return whether a new index file makes opening a store much faster."""
    newer = store.shards.loaded.values()
    rows = sum(len(metadata.views) for metadata in newer)
    if len(newer) <= MANY_SHARDS:
        return False
    many = rows > _MANY_ROWS_FRACTION * store.shards.rows()
    return many or len(newer) > _MAX_NEWER_SHARDS or rows > _MAX_NEWER_ROWS


def write_index(store: Store, held: Lease) -> None:
    """Write the index file of a store with all its valid shards; the caller holds the lease.

    Raises
    ------
    StoreWriteError
        If the system refuses.
    LeaseLost
        If another process took over the lease. Nothing has changed then.
    """
    names, find = store.shards.names, store.shards.find
    build_index(store.folder, store.spec.key, store.width, names, find, held)
    store.refresh()


def build_index(
    folder: Path,
    key: str,
    width: int,
    names: Iterable[str],
    find: Callable[[str], ShardMetadata | Damage | None],
    held: Lease,
    size_of: Callable[[str], int] | None = None,
) -> None:
    """Write an index file from the metadata of shards, which are read one after the other.

    Parameters
    ----------
    folder : Path
    key : str
        That of the store's spec.
    width : int
        Length of an embedding.
    names : iterable of str
        The shards, sorted.
    find : callable
        Returns the metadata of a shard. Those that are damaged, or were removed, are left out.
    held : Lease
    size_of : callable, optional
        Returns the number of bytes of a shard. Default: that of the file in the folder.
    """
    size_of = size_of or (lambda name: os.stat(folder / name).st_size)
    valid, sizes, seconds = list[str](), list[int](), list[float]()

    def all_metadata() -> Iterator[ShardMetadata]:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size, metadata = size_of(name), find(name)
                if isinstance(metadata, ShardMetadata):
                    valid.append(name)
                    sizes.append(size)
                    seconds.append(max(0.0, float(np.nan_to_num(metadata.seconds, posinf=0.0))))
                    yield metadata

    with (
        _sorted_parts(folder, all_metadata()) as parts,
        open_atomic(folder / NAME, description="the index") as file,
    ):
        head = IndexHead(
            key, width, tuple(valid), np.array(sizes), np.array(seconds),
            distinct=0, fences=np.zeros(-(-sum(rows_in_names(valid)) // ROWS_PER_PAGE), "S36"),
        )  # fmt: skip
        file.seek(len(head.encode()))
        distinct, fences = _write_pages(file, parts.merged())
        file.seek(0)
        write_all(file, replace(head, distinct=distinct, fences=fences).encode())
        held.check()


def _write_pages(file: FileIO, blocks: Iterable[NDArray[np.void]]) -> tuple[int, Keys]:
    """Write sorted rows as pages; return the number of distinct keys and the first of each page."""
    distinct, last = 0, np.zeros(0, "S36")
    fences = list[Keys]()
    rest = np.zeros(0, ROW)
    for block in blocks:
        keys = np.concatenate([last, block["key"]])
        distinct += int(np.count_nonzero(keys[1:] != keys[:-1])) + (len(last) == 0)
        last = keys[-1:]
        rows = np.concatenate([rest, block])
        whole = len(rows) // ROWS_PER_PAGE * ROWS_PER_PAGE
        fences.append(_write_whole_pages(file, rows[:whole]))
        rest = rows[whole:]
    if len(rest):
        padding = np.zeros(ROWS_PER_PAGE - len(rest), ROW)
        fences.append(_write_whole_pages(file, np.concatenate([rest, padding])))
    return distinct, np.concatenate(fences)


def _write_whole_pages(file: FileIO, rows: NDArray[np.void]) -> Keys:
    pages = np.zeros(len(rows) // ROWS_PER_PAGE, PAGE)
    pages["rows"] = rows.reshape(len(pages), ROWS_PER_PAGE)
    view = memoryview(pages.tobytes())
    size = PAGE.itemsize
    pages["crc"] = [zlib.crc32(view[at : at + size - 4]) for at in range(0, len(view), size)]
    write_all(file, pages.tobytes())
    return np.ascontiguousarray(pages["rows"]["key"][:, 0])


class _Parts:
    """Sorted parts in a temporary file, with the rows of each first byte of their ids."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._bounds = list[NDArray[np.int64]]()  # of each part: rows of the file, by first byte
        self._rows = 0

    def add(self, rows: NDArray[np.void]) -> None:
        """Sort rows and write them as one part."""
        rows = _sort(rows)
        first = np.ascontiguousarray(rows["key"]).view(np.uint8)[::36]
        bounds = np.searchsorted(first, np.arange(_BYTES + 1))
        self._bounds.append(self._rows + bounds)
        self._rows += len(rows)
        write_all(self._file, rows.tobytes())

    def merged(self) -> Iterator[NDArray[np.void]]:
        """Yield the rows of all parts, sorted, in blocks that are not empty."""
        for byte in range(_BYTES):
            found = [self._read(int(at[byte]), int(at[byte + 1])) for at in self._bounds]
            if any(len(rows) for rows in found):
                yield _sort(np.concatenate(found))

    def _read(self, start: int, stop: int) -> NDArray[np.void]:
        rows = np.empty(stop - start, ROW)
        self._file.seek(start * ROW.itemsize)
        view = rows.view(np.uint8).data
        while view:  # a raw read may be short
            count = self._file.readinto(view)
            if not count:
                raise StoreCorrupt("the temporary file of the index was truncated")
            view = view[count:]
        return rows


def _sort(rows: NDArray[np.void]) -> NDArray[np.void]:
    keys = np.ascontiguousarray(rows["key"])
    prefixes = keys.view(np.uint8).reshape(-1, 36)[:, :8]
    numbers = np.ascontiguousarray(prefixes).view(">u8").ravel().astype(np.uint64)
    order = np.argsort(numbers)  # several times faster than sorting the keys
    numbers = numbers[order]
    if (numbers[1:] == numbers[:-1]).any():  # several views, or rows that are stored twice
        order = np.argsort(keys, kind="stable")
    return rows[order]


@contextlib.contextmanager
def _sorted_parts(folder: Path, all_metadata: Iterable[ShardMetadata]) -> Iterator[_Parts]:
    """Write the rows of shards to a temporary file, in sorted parts; remove it afterwards."""
    path = temporary_path(folder)
    try:
        with open(path, "x+b", buffering=0) as file:
            parts = _Parts(file)
            waiting, count = list[NDArray[np.void]](), 0
            for number, metadata in enumerate(all_metadata):
                waiting.append(_rows_of(number, metadata))
                count += len(metadata.views)
                if count >= _ROWS_PER_PART:
                    parts.add(np.concatenate(waiting))
                    waiting, count = [], 0
            parts.add(np.concatenate([*waiting, np.zeros(0, ROW)]))
            yield parts
    finally:
        path.unlink(missing_ok=True)


def _rows_of(number: int, metadata: ShardMetadata) -> NDArray[np.void]:
    rows = np.empty(len(metadata.views), ROW)
    rows["key"] = make_keys(metadata.image_ids, metadata.views)
    rows["shard"], rows["row"] = number, np.arange(len(rows))
    return rows
