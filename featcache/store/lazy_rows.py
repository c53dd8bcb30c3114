"""Lazy arrays of embeddings, read from disk on access."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
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


class LazyRows(NDArrayOperatorsMixin, ABC):
    """Embeddings as an array-like of shape (n, d), float32, whose rows are read when they are used.

    Indexing with integers, slices, masks or lists reads only the selected rows. `numpy.asarray`,
    arithmetic, NumPy functions and array methods such as ``mean(axis=0)`` read all rows.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(n, d)."""

    @abstractmethod
    def take(self, rows: Any) -> LazyRows:
        """Return a lazy array of the selected rows, without reading them."""

    @abstractmethod
    def mean_of(self, groups: NDArray[np.int64]) -> LazyRows:
        """Return a lazy array of the means of rows, without reading them.

        Parameters
        ----------
        groups : ndarray (m, k), int64
            The rows that each new row is the mean of: rows of one image; -1 stands for none.
        """

    @abstractmethod
    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows by their positions, which are not negative; return (len(rows), d)."""

    @property
    def size(self) -> int:
        """Number of values, n * d."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that the whole array takes in memory."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shape[0]} x {self.shape[1]} float32>"

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        if isinstance(key, tuple) and len(key) != 2:
            raise IndexError("an array of embeddings has two dimensions: rows and columns")
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        chosen = np.arange(len(self))[rows]
        if chosen.ndim == 0:
            return np.asarray(self.read(chosen[None])[0][columns])
        if chosen.ndim != 1:
            raise IndexError("rows are chosen by a number, a slice, a mask or a list")
        return self.read(chosen)[:, columns]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("embeddings are on disk, so that reading them always makes a copy")
        values = self.read(np.arange(len(self)))
        return values if dtype is None else values.astype(dtype, copy=False)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(self), _ROWS_AT_ONCE):
            yield from self[start : start + _ROWS_AT_ONCE]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if any(isinstance(out, LazyRows) for out in options.get("out", ())):
            raise TypeError("Stored rows cannot be written to; write to numpy.asarray(X) instead.")
        arrays = [np.asarray(x) if isinstance(x, LazyRows) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    def __getattr__(self, name: str) -> Any:
        if name not in _METHODS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(np.asarray(self), name)


class StoredRows(LazyRows):
    """Rows of a store, float32 however they are stored.

    Parameters
    ----------
    stores : Store or sequence of Store
        Where the rows are, all of one width.
    ids : ndarray (n, 32), uint8
        Image id of each row; may contain duplicates.
    sources : ndarray (n, k), int, optional
        The stores of each row, as positions in `stores`: the row is the mean of the rows that
        these hold for the image. -1 stands for none, so that fewer than `k` are averaged.
        Default: the first store.
    """

    def __init__(
        self,
        stores: Store | Sequence[Store],
        ids: IdArray,
        sources: NDArray[np.int64] | None = None,
    ) -> None:
        self._opener = _Opener([stores] if isinstance(stores, Store) else list(stores))
        self._ids = ids
        self._sources = np.zeros((len(ids), 1), np.int64) if sources is None else sources

    @property
    def _stores(self) -> list[Store]:
        return self._opener.stores()

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return len(self._ids), self._opener.width

    def __repr__(self) -> str:
        more = f" and {len(self._stores) - 1} more" if len(self._stores) > 1 else ""
        folder = self._stores[0].location
        return f"<StoredRows {self.shape[0]} x {self.shape[1]} float32 in {folder}{more}>"

    def take(self, rows: Any) -> StoredRows:
        """Return a lazy array of the selected rows, without reading them."""
        return self._with(self._ids[rows], self._sources[rows])

    def mean_of(self, groups: NDArray[np.int64]) -> StoredRows:
        """Return a lazy array of the means of rows of one image each."""
        sources = np.where(groups[:, :, None] < 0, -1, self._sources[groups])
        return self._with(self._ids[groups[:, 0]], sources.reshape(len(groups), -1))

    def _with(self, ids: IdArray, sources: NDArray[np.int64]) -> StoredRows:
        """Return other rows of the same stores, which are not opened for that."""
        found = StoredRows.__new__(StoredRows)
        found._opener, found._ids, found._sources = self._opener, ids, sources
        return found

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows by their positions."""
        ids, sources = self._ids[rows], self._sources[rows]
        if len(self._stores) == 1 and sources.shape[1] == 1:
            return self._stores[0].read(ids)
        total = np.zeros((len(rows), self.shape[1]), np.float32)
        for number, store in enumerate(self._stores):
            for column in sources.T:
                found = np.flatnonzero(column == number)
                if len(found):
                    total[found] += store.read(ids[found])
        if sources.shape[1] > 1:
            total /= np.count_nonzero(sources >= 0, axis=1)[:, None]
        return total


class _Opener:
    """Stores that are opened, after pickling, when the first row is read.

    Who passes rows on, such as the scheduler of a cluster, need not see their folder.
    """

    def __init__(self, stores: list[Store]) -> None:
        self._stores, self.width = stores, stores[0].width
        self._closed: list[tuple[type[Store], dict[str, Any]]] = []
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        closed = [(type(store), store.__getstate__()) for store in self._stores]
        return {"closed": closed or self._closed, "width": self.width}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._stores = []
        self._closed, self.width = state["closed"], state["width"]
        self._lock = threading.Lock()

    def stores(self) -> list[Store]:
        """Return the stores."""
        with self._lock:
            if not self._stores:
                self._stores = [kind(**state) for kind, state in self._closed]
        return self._stores
