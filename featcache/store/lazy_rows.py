"""A lazy array of embeddings, read from disk on access."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from .row_index import IdArray
from .store import Store

# Methods of `numpy.ndarray` that do not modify the array; each reads all rows.
_METHODS = frozenset({
    "T", "all", "any", "argmax", "argmin", "argpartition", "argsort", "astype", "clip", "copy",
    "cumsum", "dot", "flatten", "itemsize", "max", "mean", "min", "nonzero", "ptp", "ravel",
    "reshape", "round", "squeeze", "std", "sum", "tobytes", "tolist", "transpose", "var",
})  # fmt: skip


_ROWS_AT_ONCE = 1024


class StoredRows(NDArrayOperatorsMixin):
    """Rows of a store as an array-like of shape (n, d), float32.

    Indexing with integers, slices, masks or lists reads only the selected rows. `numpy.asarray`,
    arithmetic, NumPy functions and array methods such as ``mean(axis=0)`` read all rows.

    Parameters
    ----------
    store : Store
    ids : ndarray (n, 32), uint8
        Image id of each row; may contain duplicates.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, store: Store, ids: IdArray) -> None:
        self._store = store
        self._ids = ids

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return len(self._ids), self._store.width

    @property
    def size(self) -> int:
        """Number of values, n * d."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that the whole array takes in memory."""
        return self.shape[0] * self.shape[1] * 4

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"<StoredRows {self.shape[0]} x {self.shape[1]} float32 in {self._store.folder}>"

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        if isinstance(key, tuple) and len(key) != 2:
            raise IndexError("an array of embeddings has two dimensions: rows and columns")
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        chosen = np.arange(len(self))[rows]
        if chosen.ndim == 0:
            return np.asarray(self._store.read(self._ids[[int(chosen)]])[0][columns])
        if chosen.ndim != 1:
            raise IndexError("rows are chosen by a number, a slice, a mask or a list")
        return self._store.read(self._ids[chosen])[:, columns]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("embeddings are on disk, so that reading them always makes a copy")
        values = self._store.read(self._ids)
        return values if dtype is None else values.astype(dtype, copy=False)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(self), _ROWS_AT_ONCE):
            yield from self[start : start + _ROWS_AT_ONCE]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if any(isinstance(out, StoredRows) for out in options.get("out", ())):
            raise TypeError("Stored rows cannot be written to; write to numpy.asarray(X) instead.")
        arrays = [np.asarray(x) if isinstance(x, StoredRows) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def __getattr__(self, name: str) -> Any:
        if name not in _METHODS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(np.asarray(self), name)

    def take(self, rows: Any) -> StoredRows:
        """Return a lazy array of the selected rows, without reading them."""
        return StoredRows(self._store, self._ids[rows])
