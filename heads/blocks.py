"""Rows that do not fit in memory, read from disk in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from featcache.errors import InvalidRequest
from featcache.toolkit import parse_bytes

from .arguments import is_on_disk
from .weights import Floats, RowWeights

Codes = NDArray[np.int64]
MemoryLimit = int | str | None

_MIN_LIMIT = 2**20
_BLOCKS = 8  # of the limit: two are read ahead or in use, their copies and products take the rest
_SHARE = 0.5  # of the free memory, by default
# A copy that is scaled, and the one that is read.
_COPIES = 2


def limit_bytes(limit: MemoryLimit) -> int:
    """Return a limit in bytes: a number, a text such as "2G", or None for half the free memory.

    Raises
    ------
    InvalidRequest
        If it is neither, or below one megabyte.
    """
    if limit is None:
        return int(_SHARE * psutil.virtual_memory().available)
    is_number = isinstance(limit, (int, np.integer)) and not isinstance(limit, bool)
    if not is_number and not isinstance(limit, str):
        raise InvalidRequest(
            f"memory_limit={limit!r} must be a number of bytes, a size such as '2G', or None.",
            received=limit,
        )
    found = int(limit) if is_number else parse_bytes(str(limit))
    if found < _MIN_LIMIT:
        raise InvalidRequest(
            f"memory_limit={limit!r} is less than 1 MB, which no block of rows fits in.",
            received=limit,
        )
    return found


def exceeds(X: Any, limit: int) -> bool:
    """Return whether rows are on disk, and training on all of them at once takes more memory."""
    return is_on_disk(X) and _COPIES * 4 * int(X.shape[0]) * int(X.shape[1]) > limit


class Block(NamedTuple):
    """Some rows that are trained on.

    Attributes
    ----------
    rows : ndarray (b, d), float32
        A copy, which may be changed.
    codes : ndarray (b,)
    weights : RowWeights
    """

    rows: Floats
    codes: Codes
    weights: RowWeights


class RowBlocks:
    """Rows on disk with their class codes and weights.

    Parameters
    ----------
    X : LazyRows or numpy.memmap (n, d)
    codes : ndarray (n,)
        Class of each row; -1 for rows that are not used.
    weights : RowWeights
        Of all n rows.
    limit : int
        Bytes that the blocks in use and what is computed from them may take.
    """

    def __init__(self, X: Any, codes: Codes, weights: RowWeights, limit: int) -> None:
        self._X, self.codes, self.weights = X, codes, weights
        self.width = int(X.shape[1])
        self.block_rows = max(1, limit // (_BLOCKS * 4 * self.width))

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[Block]:
        """Yield the used rows in blocks, each read while the one before it is in use."""
        parts = [
            slice(start, min(start + self.block_rows, len(self)))
            for start in range(0, len(self), self.block_rows)
        ]
        with ThreadPoolExecutor(1, "heads-read") as reader:
            waiting = reader.submit(self._read, parts[0])
            for following in [*parts[1:], None]:
                block = waiting.result()
                if following is not None:
                    waiting = reader.submit(self._read, following)
                if len(block.codes):
                    yield block

    def without(self, rows: Codes) -> RowBlocks:
        """Return the blocks without some rows."""
        codes = self.codes.copy()
        codes[rows] = -1
        found = RowBlocks(self._X, codes, self.weights, 0)
        found.block_rows = self.block_rows
        return found

    def take(self, rows: Codes) -> Block:
        """Return some rows, by ascending positions."""
        return Block(self._checked(self._X[rows]), self.codes[rows], self.weights.take(rows))

    def _read(self, part: slice) -> Block:
        rows, codes, weights = self._checked(self._X[part]), self.codes[part], self.weights
        kept = np.flatnonzero(codes >= 0)
        weights = weights.take(part)
        if len(kept) == len(codes):
            return Block(rows, codes, weights)
        return Block(rows[kept], codes[kept], weights.take(kept))

    @staticmethod
    def _checked(values: Any) -> Floats:
        rows = np.array(values, np.float32, order="C")
        if not np.isfinite(rows).all():
            raise ValueError(
                "Input X contains NaN or infinity. Leave out the rows that are not finite."
            )
        return rows
