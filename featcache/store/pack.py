"""Export of a store to one plain HDF5 file, optionally with labels, and import from it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from .._io.atomic import make_folder, open_atomic, remove_stale, write_all
from .._io.cache_dirs import stores_folder
from .._io.paths import absolute_path
from .._io.system_errors import system_errors
from ..backbones.spec import BackboneSpec
from ..data.content_ids import content_ids
from ..data.dataset import Dataset
from ..errors import InvalidRequest, StoreError, StoreMismatch
from ..hdf5.pack_file import Column, PackLayout
from ..hdf5.shard_metadata import ID_BYTES
from ..images.image_file import example_ids
from .index_build import update_index
from .lease import mark_in_use
from .own_files import is_store_folder
from .pack_format import LINE_BYTES, PACK_VERSION, PackHeader, PackReader, first_line
from .row_index import IdArray, pack_ids, unpack_ids
from .store import Store

_ROWS_AT_ONCE = 4096
_BYTES_AT_ONCE = 32 << 20


def _rows_at_once(width: int) -> int:
    """Return the number of rows to hold in memory at a time; they may be float32 in memory."""
    return min(_ROWS_AT_ONCE, max(1, _BYTES_AT_ONCE // (4 * width)))


def pack(
    store: Store,
    path: str | os.PathLike[str],
    dataset: Dataset | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
) -> int:
    """Write a store to one HDF5 file that plain `h5py` reads.

    Parameters
    ----------
    store : Store
    path : path-like
        The file to write. An existing file is replaced when the new one is complete.
    dataset : Dataset, optional
        Write only the rows of its usable images, in its order, with the data sets ``path`` and,
        if it has labels, ``label``: text, ``""`` for a missing label. Default: all rows.
    cache_dir : path-like, optional
        The cache folder with the index of image ids.

    Returns
    -------
    int
        Number of rows written.

    Raises
    ------
    MissingRows
        If an image of the data set is not stored.
    StoreError
        If there is no row to write.
    StoreWriteError
        If the disk refuses.
    """
    texts: dict[str, list[str]] = {}
    if dataset is None:
        ids = store.ids()
    else:
        examples = example_ids(content_ids(dataset, cache_dir), dataset.boxes)
        bad = store.quarantined
        pairs = [(i, image_id) for i, image_id in enumerate(examples) if image_id]
        pairs = [(i, image_id) for i, image_id in pairs if image_id not in bad]
        ids = [image_id for _, image_id in pairs]
        texts["path"] = [dataset.paths[i] for i, _ in pairs]
        if dataset.labels is not None:
            labels = [dataset.labels[i] for i, _ in pairs]
            texts["label"] = ["" if label is None else str(label) for label in labels]
    target = absolute_path(path)
    if not ids:
        raise StoreError(
            f"There is nothing to pack: {store.folder} holds no "
            f"rows{_describe_selection(dataset)}. Extract some first.",
            path=store.folder,
        )
    make_folder(target.parent)
    with system_errors(target.parent):
        _check_target(target)
    remove_stale(target.parent)
    _write(target, store, pack_ids(ids), _encode(texts))
    return len(ids)


def _check_target(target: Path) -> None:
    """Raise unless `target` is absent or a file, and outside the folder of a store."""
    if os.path.lexists(target) and not target.is_file() and not target.is_symlink():
        raise StoreError(f"{target} is not a file, so it is not replaced.", path=target)
    if is_store_folder(target.parent):
        raise StoreError(
            f"{target.parent} is the folder of a store. Choose a file in another folder.",
            path=target,
        )


def _describe_selection(dataset: Dataset | None) -> str:
    return "" if dataset is None else " of usable images of this data set"


def _encode(texts: Mapping[str, Sequence[str]]) -> dict[str, list[bytes]]:
    """Return columns of text as UTF-8; file names that are not UTF-8 keep their bytes."""
    return {
        name: [value.encode("utf-8", "surrogateescape") for value in values]
        for name, values in texts.items()
    }


def _write(target: Path, store: Store, ids: IdArray, texts: Mapping[str, list[bytes]]) -> None:
    """Write a packed store sequentially, and finally the first line, which has its digest."""
    widths = {name: max(1, *map(len, values)) for name, values in texts.items()}
    header = PackHeader(store.spec.components(), dict(store.metadata), len(ids), store.width)
    columns = [
        Column("embeddings", header.dtype.str, (len(ids), store.width)),
        Column("image_id", "u1", (len(ids), ID_BYTES)),
        *(Column(name, f"S{width}", (len(ids),)) for name, width in widths.items()),
    ]
    user_block = header.user_block()
    layout = PackLayout(columns, _attributes(header), user_block)
    header = replace(
        header, embeddings=layout.offsets["embeddings"], image_id=layout.offsets["image_id"]
    )
    values: dict[str, Iterator[memoryview | bytes]] = {
        "embeddings": _rows(store, ids, header.dtype),
        "image_id": iter([ids.data]),
        **{name: _pad(texts[name], widths[name]) for name in texts},
    }
    start: list[bytes | memoryview] = [header.encode(user_block)]
    digest = hashlib.sha256()
    with open_atomic(target, description="the packed store") as file:
        write_all(file, bytes(LINE_BYTES))
        for block in chain(start, layout.blocks(values)):
            digest.update(block)
            write_all(file, block)
        file.seek(0)
        write_all(file, first_line(digest.hexdigest(), layout.size))


def _attributes(header: PackHeader) -> dict[str, str | int]:
    """Return the HDF5 attributes of a packed store's root."""
    return {
        "format": "featcache-pack",
        "format_version": PACK_VERSION,
        "spec": json.dumps(header.spec, sort_keys=True),
        "about": json.dumps(header.about, sort_keys=True),
    }


def _rows(store: Store, ids: IdArray, dtype: np.dtype[np.floating[Any]]) -> Iterator[memoryview]:
    count = _rows_at_once(store.width)
    for start in range(0, len(ids), count):
        yield np.ascontiguousarray(store.read(ids[start : start + count]), dtype).data


def _pad(values: Sequence[bytes], width: int) -> Iterator[bytes]:
    for start in range(0, len(values), _ROWS_AT_ONCE):
        yield b"".join(value.ljust(width, b"\0") for value in values[start : start + _ROWS_AT_ONCE])


def unpack(path: str | os.PathLike[str], cache: Path) -> Store:
    """Import the rows of a packed file into the store of their key; stored rows are kept.

    Parameters
    ----------
    path : path-like
        A file that `pack` wrote.
    cache : Path
        The cache folder.

    Returns
    -------
    Store
        The store that contains the rows.

    Raises
    ------
    StoreError
        If the file does not exist or cannot be read.
    StoreCorrupt, StoreFormatError
        If it is not an intact packed store of this format version. Nothing is imported.
    StoreMismatch
        If its spec is invalid, or a value is not finite. Nothing is imported.
    StoreWriteError
        If the disk refuses. Rows that were committed before are intact.
    """
    with system_errors(Path(path)):
        return _unpack(path, cache)


def _unpack(path: str | os.PathLike[str], cache: Path) -> Store:
    with contextlib.closing(PackReader(Path(path))) as reader:
        header, count = reader.header, _rows_at_once(reader.header.width)
        try:
            spec = BackboneSpec.from_components(header.spec)
            folder = stores_folder(cache) / spec.folder
        except (InvalidRequest, TypeError) as error:
            raise StoreMismatch(
                f"The spec in {path} is invalid: {error} Nothing was imported from the file.",
                path=path,
                stored=header.spec,
            ) from error
        if not all(np.isfinite(rows).all() for rows, _ in reader.blocks(count)):
            raise StoreMismatch(
                f"{path} contains values that are not finite. Nothing was imported from the file.",
                path=path,
            )
        make_folder(folder)
        with mark_in_use(folder):
            store = Store.create(folder, spec, header.width, header.about)
            for rows, ids in reader.blocks(count):
                new = ~store.contains(unpack_ids(ids), confirm=True)
                if new.any():
                    views = np.zeros(int(new.sum()), np.int32)
                    store.append_packed(rows[new], ids[new], views, {"unpacked": "1"})
            store.write_manifest()
            update_index(store)
    return store
