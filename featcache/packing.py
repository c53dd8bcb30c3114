"""A store, and the labels of a data set if wanted, as one plain HDF5 file; and back."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

import numpy as np

from . import hdf5
from .atomic import TEMPORARY_PREFIX, make_folder, sync_folder, write_error
from .cachedir import stores_folder
from .dataset import Dataset
from .errors import StoreMismatch
from .fileindex import content_ids
from .imagefile import example_ids
from .rowindex import pack_ids, unpack_ids
from .specs import BackboneSpec
from .store import Store

_ROWS_AT_ONCE = 4096


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
    path : path
        Replaced if it is there, once the new file is whole.
    dataset : Dataset, optional
        Write the rows of its images alone, in its order, with ``path`` and, if it has them,
        ``label`` beside them. Default: all rows.
    cache_dir : path, optional
        Where content ids are remembered.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    MissingRows
        If an image of the data set is not stored.
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
            texts["label"] = [dataset.labels[i] for i, _ in pairs]
    target = Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
    make_folder(target.parent)
    temporary = target.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    packed = pack_ids(ids)
    blocks = (
        (packed[i : i + _ROWS_AT_ONCE], store.read(packed[i : i + _ROWS_AT_ONCE]))
        for i in range(0, len(packed), _ROWS_AT_ONCE)
    )
    try:
        hdf5.write_pack(
            temporary, blocks, len(ids), store.width, store.spec.components(), store.about, texts
        )
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        raise write_error(error, target, "the packed store") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return len(ids)


def unpack(path: str | os.PathLike[str], cache: Path) -> Store:
    """Take the rows of a packed file into the store of their key; what is there stays.

    Raises
    ------
    StoreCorrupt, StoreFormatError
        If it is no sound packed store.
    StoreMismatch
        If its spec makes no sense.
    """
    with hdf5.PackReader(Path(path)) as reader:
        spec = BackboneSpec.from_components(reader.components)
        store = Store.create(stores_folder(cache) / spec.folder, spec, reader.width, reader.about)
        for rows, ids in reader.blocks(_ROWS_AT_ONCE):
            if not np.isfinite(rows).all():
                raise StoreMismatch(f"{path} holds values that are not finite.", path=path)
            new = ~store.contains(unpack_ids(ids))
            if new.any():
                views = np.zeros(int(new.sum()), np.int32)
                store.append_packed(rows[new], ids[new], views, {"unpacked": "1"})
    store.write_manifest()
    return store
