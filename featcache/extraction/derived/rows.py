"""Lazy arrays of rows that are computed from other lazy arrays when they are read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...store.lazy_rows import LazyRows
from .steps import RowStep, width_after

_BLOCK_BYTES = 2**24


def row_blocks(count: int, width: int) -> Iterator[slice]:
    """Yield the positions of `count` rows in blocks of about 16 MB of float32.

    Examples
    --------
    >>> list(row_blocks(3, 2**21))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    size = max(1, _BLOCK_BYTES // (4 * max(1, width)))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


class DerivedRows(LazyRows):
    """Base class of rows computed in blocks, so that no second copy of all is in memory."""

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows by their positions."""
        out = np.empty((len(rows), self.shape[1]), np.float32)
        for block in row_blocks(len(rows), self._width_in_memory):
            self._read_block(rows[block], out[block])
        return out

    @property
    def _width_in_memory(self) -> int:
        """Number of values per row that reading takes at once."""
        return self.shape[1]

    @abstractmethod
    def _read_block(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        """Write some rows to `out`."""

    def mean_of(self, groups: NDArray[np.int64]) -> LazyRows:
        """Return a lazy array of the means of rows, without reading them."""
        return MeanRows(self, groups)


class MeanRows(DerivedRows):
    """Means of rows of another lazy array.

    Parameters
    ----------
    rows : LazyRows
    groups : ndarray (n, k), int64
        The rows that each row is the mean of; -1 stands for none.
    """

    def __init__(self, rows: LazyRows, groups: NDArray[np.int64]) -> None:
        self._rows, self._groups = rows, groups

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return len(self._groups), self._rows.shape[1]

    def take(self, rows: Any) -> MeanRows:
        """Return a lazy array of the selected rows, without reading them."""
        return MeanRows(self._rows, self._groups[rows])

    def _read_block(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        groups = self._groups[rows]
        out[:] = 0
        for column in groups.T:
            found = np.flatnonzero(column >= 0)
            out[found] += self._rows.read(column[found])
        out /= np.count_nonzero(groups >= 0, axis=1)[:, None]


class JoinedRows(DerivedRows):
    """Rows of several lazy arrays side by side.

    Parameters
    ----------
    parts : sequence of LazyRows
        Of one length; row i of each is of the same example.
    """

    def __init__(self, parts: Sequence[LazyRows]) -> None:
        self._parts = list(parts)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return len(self._parts[0]), sum(part.shape[1] for part in self._parts)

    def take(self, rows: Any) -> JoinedRows:
        """Return a lazy array of the selected rows, without reading them."""
        return JoinedRows([part.take(rows) for part in self._parts])

    def mean_of(self, groups: NDArray[np.int64]) -> JoinedRows:
        """Return a lazy array of the means of rows, without reading them."""
        return JoinedRows([part.mean_of(groups) for part in self._parts])

    def _read_block(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        start = 0
        for part in self._parts:
            stop = start + part.shape[1]
            out[:, start:stop] = part.read(rows)
            start = stop


class TransformedRows(DerivedRows):
    """Rows of another lazy array after a step.

    Parameters
    ----------
    rows : LazyRows
    step : RowStep
    """

    def __init__(self, rows: LazyRows, step: RowStep) -> None:
        self._rows, self._step = rows, step

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        count, width = self._rows.shape
        return count, width_after([self._step], width)

    def take(self, rows: Any) -> TransformedRows:
        """Return a lazy array of the selected rows, without reading them."""
        return TransformedRows(self._rows.take(rows), self._step)

    @property
    def _width_in_memory(self) -> int:
        return max(self.shape[1], self._rows.shape[1])

    def _read_block(self, rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
        out[:] = self._step.apply(self._rows.read(rows))
