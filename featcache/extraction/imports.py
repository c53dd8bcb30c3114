"""`import_features`: a store from embeddings that were computed elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io import cache_dirs
from .._io.logs import get_logger
from .._io.progress import progress_bar
from .._io.wording import format_count
from ..backbones.imported import ImportedModel
from ..backbones.spec import BackboneSpec
from ..data.dataset import Dataset
from ..data.labels import describe_conflicts, label_conflicts
from ..datasets.load import load_dataset
from ..errors import DatasetError, InvalidRequest, StoreError
from ..images.image_file import example_ids, is_content_id
from ..store import maintenance
from ..store.lazy_rows import StoredRows
from ..store.lease import lease
from ..store.manifest import NAME as MANIFEST_NAME
from ..store.manifest import mark_used
from ..store.row_index import pack_ids
from ..store.store import Store
from .features import Features
from .join import columns_of
from .pipeline import default_workers
from .summary import ExtractionSummary

log = get_logger(__name__)

_BLOCK_BYTES = 2**26
# Relative to the largest value of a row: what engines may differ by.
_TOLERANCE = 1e-5
_LEASE_WAIT_SECONDS = 60.0
_PROVENANCE = {"engine": "imported"}


def import_features(
    X: Any,
    images: object,
    model: ImportedModel,
    *,
    labels: Iterable[object] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Features:
    """Store embeddings that were computed elsewhere, and return them as `Features`.

    Rows of images that are stored already are skipped, so that a larger import adds the new rows.
    Nothing is stored unless all rows can be.

    Parameters
    ----------
    X : array-like (n, d)
        Finite floating-point numbers, stored as float32. An array on disk, such as a
        `numpy.memmap`, is read in blocks.
    images : sequence, DataFrame, path of a CSV file, or Dataset
        The image of each row, in the order of the rows: image ids (64 hexadecimal digits, the
        SHA-256 of the file), or paths of files, which are read to hash them.
    model : ImportedModel
        Which model computed the rows. Only rows of one model and one preparation of images may
        have the same name and source.
    labels : sequence, optional
        Label of each row, if `images` is a list.
    cache_dir : path-like, optional
        The cache folder. Default: ``FEATCACHE_CACHE``, else the user's cache folder.
    progress : bool, optional
        Whether to show a progress bar. Default: on a terminal.

    Returns
    -------
    Features
        One row per row of `X`, in this order. `Features.paths` are ids where ids were given.

    Raises
    ------
    InvalidRequest
        If `X` has another shape than one row per image, is not of floating-point numbers, holds
        a value that is not finite in float32, or rows of one image that differ; or if the
        stored row of an image differs from the new one by more than 1e-5 of its largest value.
    DatasetError
        If a file cannot be read, or ids and paths are mixed.
    StoreWriteError
        If the system refuses the write.

    Examples
    --------
    >>> import featcache, numpy
    >>> model = featcache.ImportedModel("mine", "version 1, 224 px")
    >>> ids = [f"{i:064x}" for i in range(3)]
    >>> features = import_features(numpy.eye(3), ids, model, labels=["a", "b", "a"])
    >>> features.X.shape, features.y.tolist()
    ((3, 3), [0, 1, 0])
    """
    started = time.perf_counter()
    if not isinstance(model, ImportedModel):
        raise InvalidRequest(
            "The model of imported embeddings must be a featcache.ImportedModel(name, source), not "
            f"{type(model).__name__}.",
            received=type(model).__name__,
        )
    cache = cache_dirs.local_cache(cache_dir)
    dataset = _dataset(images, labels, cache)
    rows = _checked_array(X, len(dataset))
    contents = _content_ids(dataset, cache, progress)
    ids = example_ids(contents, dataset.boxes)
    first = _check_rows(rows, ids)
    folder = cache_dirs.stores_folder(cache) / model.spec.folder
    store, added = _store(folder, model, rows, ids, first)
    conflicts = label_conflicts(ids, dataset.paths, dataset.labels)
    if conflicts:
        log.warning("%s summary.conflicts lists them.", describe_conflicts(conflicts))
    mark_used(folder)
    summary = ExtractionSummary(
        stored=len(rows) - added, computed=added, quarantined=0,
        seconds=time.perf_counter() - started, folder=folder, backbone=model.name,
        weights=model.source, weights_kind="imported", seconds_per_image=0.0, reasons={},
        engine=None, stages=None, unlabelled=dataset.unlabelled, ignored={}, ignored_files=[],
        hints=[], conflicts=conflicts,
    )  # fmt: skip
    return Features(
        X=StoredRows(store, pack_ids(ids)),
        views=np.zeros(len(rows), np.int64),
        ids=contents,
        positions=np.arange(len(rows)),
        spec=model.spec,
        summary=summary,
        arguments=model.arguments(),
        **columns_of(dataset, dataset),
    )


def _dataset(images: Any, labels: Iterable[object] | None, cache: Path) -> Dataset:
    """Return the images in the order of the rows."""
    if isinstance(images, (str, os.PathLike)):
        if not os.fspath(images).lower().endswith((".csv", ".tsv")):
            raise DatasetError(
                f"{os.fspath(images)!r} does not say which row belongs to which image; give a list "
                "of paths or image ids, or a table, in the order of the rows.",
                received=images,
            )
        return load_dataset(images, labels, cache_dir=cache)
    if isinstance(images, Dataset) or hasattr(images, "columns"):
        return load_dataset(images, labels, cache_dir=cache)
    listed = list(images)
    are_ids = [is_content_id(image) for image in listed]
    if listed and all(are_ids):
        listed = [str(image_id) for image_id in listed]  # not those of NumPy
        return Dataset(paths=listed, ids=listed, labels=None if labels is None else list(labels))
    if any(are_ids):
        raise DatasetError(
            f"Row {are_ids.index(True)} is an image id and row {are_ids.index(False)} is not; give "
            "ids for all rows, or paths for all rows.",
            received=listed[are_ids.index(False)],
        )
    return load_dataset(listed, labels, cache_dir=cache)


def _content_ids(dataset: Dataset, cache: Path, progress: bool | None) -> list[str]:
    if dataset.ids is not None:
        wrong = next((one for one in dataset.ids if not is_content_id(one)), None)
        if wrong is not None:
            raise DatasetError(
                f"{wrong!r} is not an image id: 64 hexadecimal digits in lower case, the SHA-256 "
                "of the file.",
                received=wrong,
            )
        return list(dataset.ids)
    with progress_bar(len(dataset), "Identifying", "images", progress) as bar:
        found = dataset.source.identify(
            cache_dirs.index_folder(cache), default_workers(), bar.update
        )
    bad = [i for i, file in enumerate(found) if file.image_id is None]
    if bad:
        raise DatasetError(
            f"{format_count(len(bad), 'image')} cannot be read, so nothing is imported. The first, "
            f"row {bad[0]}: {dataset.paths[bad[0]]} {found[bad[0]].reason}. Leave out these rows.",
            received=dataset.paths[bad[0]],
        )
    return [str(file.image_id) for file in found]


def _checked_array(X: Any, count: int) -> Any:
    """Return X as an array, without reading one that is on disk; check shape and dtype."""
    if not (isinstance(getattr(X, "dtype", None), np.dtype) and hasattr(X, "shape")):
        X = np.asarray(X)
    if hasattr(X, "toarray"):
        raise InvalidRequest(
            f"X is a sparse {type(X).__name__}; give a dense array: X.toarray().",
            received=type(X).__name__,
        )
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise InvalidRequest("X is masked; give rows without missing values.", received="masked")
    if X.dtype.kind != "f":
        raise InvalidRequest(
            f"X holds {X.dtype}; embeddings are floating-point numbers. If these are embeddings, "
            "convert them: X.astype('float32').",
            received=str(X.dtype),
        )
    if len(X.shape) != 2 or X.shape[0] != count or X.shape[1] < 1:
        raise InvalidRequest(
            f"X has shape {tuple(X.shape)}, and there are {format_count(count, 'image')}; give one "
            "row per image, of shape (images, values).",
            received=tuple(X.shape),
        )
    return X


def _blocks(positions: Sequence[int], width: int) -> Iterator[Sequence[int]]:
    count = max(1, _BLOCK_BYTES // (4 * width))
    for start in range(0, len(positions), count):
        yield positions[start : start + count]


def _read(X: Any, positions: Sequence[int]) -> NDArray[np.float32]:
    """Return some rows; h5py needs ascending positions, which these are."""
    if isinstance(positions, range):
        chosen = X[positions.start : positions.stop]
    else:
        chosen = X[np.asarray(positions)]
    with np.errstate(over="ignore"):  # reported as not finite
        return np.ascontiguousarray(chosen, np.float32)


def _check_rows(X: Any, ids: Sequence[str]) -> dict[str, int]:
    """Check that all rows are finite and those of one image equal; return each image's first."""
    first: dict[str, int] = {}
    for position, image_id in enumerate(ids):
        first.setdefault(image_id, position)
    for block in _blocks(range(len(ids)), X.shape[1]):
        rows = _read(X, block)
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise InvalidRequest(
                f"Row {block[bad[0]]} of X is not finite in float32, so nothing is imported; leave "
                "out such rows.",
                received=int(block[bad[0]]),
            )
        for offset, position in enumerate(block):
            other = first[ids[position]]
            if other != position and not _equal(rows[offset], _read(X, range(other, other + 1))[0]):
                raise InvalidRequest(
                    f"Rows {other} and {position} of X are of the same image but differ, so "
                    "nothing is imported. They are not embeddings of whole images by one model.",
                    received=(other, position),
                )
    return first


def _equal(row: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(np.abs(row - other).max() <= _TOLERANCE * np.abs(other).max())


def _store(
    folder: Path, model: ImportedModel, X: Any, ids: Sequence[str], first: dict[str, int]
) -> tuple[Store, int]:
    """Add the rows that are missing; return the store and their number."""
    width = int(X.shape[1])
    if (folder / MANIFEST_NAME).is_file():
        _check_width(Store(folder), model.spec, width)
    store = Store.create(folder, model.spec, width, model.metadata())
    # Under the lease: two imports at once could store different rows of one image.
    with lease(folder, wait=_LEASE_WAIT_SECONDS) as held:
        if not held and held.refused is None:
            raise StoreError(
                f"Another process is changing {folder}; run the import again later.", path=folder
            )
        store.refresh()
        unique = list(first)
        stored = store.contains(unique, confirm=True)
        _check_stored(store, X, [first[unique[i]] for i in np.flatnonzero(stored)], ids)
        new = [first[unique[i]] for i in np.flatnonzero(~stored)]
        for block in _blocks(new, width):
            store.append(_read(X, block), [ids[i] for i in block], _PROVENANCE)
    if new:
        store.write_manifest()
        maintenance.compact(store)
        store.refresh()
    return store, len(new)


def _check_width(store: Store, spec: BackboneSpec, width: int) -> None:
    if store.spec == spec and store.width != width:
        raise InvalidRequest(
            f"X has rows of {format_count(width, 'value')}, but those of this name and source have "
            f"{store.width:,}. They are of another model: give another source.",
            received=width,
        )


def _check_stored(store: Store, X: Any, positions: Sequence[int], ids: Sequence[str]) -> None:
    """Raise `InvalidRequest` if rows differ from the stored rows of the same images."""
    for block in _blocks(positions, store.width):
        new, old = _read(X, block), store.read([ids[i] for i in block])
        difference = np.abs(new - old).max(axis=1)
        wrong = np.flatnonzero(difference > _TOLERANCE * np.abs(old).max(axis=1))
        if len(wrong):
            position = block[wrong[0]]
            raise InvalidRequest(
                f"Row {position} of X (image {ids[position][:16]}...) differs from the stored row "
                f"by {difference[wrong[0]]:.3g}, so nothing is imported. If it was computed by "
                "another version of the model, or from images prepared in another way, give "
                "another source; `featcache rm` deletes the stored rows.",
                received=int(position),
            )
