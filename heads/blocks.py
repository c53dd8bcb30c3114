"""Rows that do not fit in memory, read from disk in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
_BLOCKS = (
    8  # of what is left: two are read ahead or in use, their copies and products take the rest
)
_MIN_ROWS = 128  # of a block: reading fewer at a time takes much longer
BYTES_PER_ROW = 64  # codes, weights, groups, and the orders in which rows are held out
_SHARE = 0.5  # of the free memory, by default


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


def exceeds(X: Any, limit: int, copies: int = 2) -> bool:
    """Return whether rows are on disk, and training on all of them at once takes more memory.

    That is a number of copies: by default the one that is read, and one that is scaled.
    """
    return is_on_disk(X) and copies * 4 * int(X.shape[0]) * int(X.shape[1]) > limit


def block_bytes(limit: int, besides: int, count: int, width: int) -> int:
    """Return the bytes of a limit that blocks of rows may take.

    Parameters
    ----------
    limit : int
    besides : int
        Bytes that training takes besides the blocks and what there is of each row.
    count, width : int
        Number of rows, and of their columns.

    Raises
    ------
    InvalidRequest
        If too few are left for a block of some rows.
    """
    taken = besides + BYTES_PER_ROW * count
    least = _BLOCKS * 4 * width * min(count, _MIN_ROWS)
    if taken + least > limit:
        needed = -(-(taken + 2 * least) // 2**20)
        raise InvalidRequest(
            f"Training on {count:,} rows of {width:,} columns in blocks takes {taken / 2**20:,.0f} "
            f"MiB besides the blocks, and the limit is {limit / 2**20:,.0f} MiB. Give "
            f"memory_limit='{needed}M' or more, or reduce the columns first, such as with "
            "features.pca(128).",
            received=limit,
        )
    return limit - taken


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

    def unread(self, rows: Codes) -> tuple[Any, Codes, Floats | None]:
        """Return some rows of a store without reading them, their codes and weights of the loss."""
        return self._X.take(rows), self.codes[rows], self.weights.take(rows).loss

    def parts_of(self, rows: Codes) -> Iterator[Block]:
        """Yield some rows, by ascending positions, in blocks."""
        for start in range(0, len(rows), self.block_rows):
            yield self.take(rows[start : start + self.block_rows])

    def scores_of(self, rows: Codes, scores: Callable[[Floats], NDArray[Any]]) -> NDArray[Any]:
        """Return the scores of some rows, by ascending positions, read in blocks."""
        return np.concatenate([scores(block.rows) for block in self.parts_of(rows)])

    def _read(self, part: slice) -> Block:
        rows, codes, weights = self._checked(self._X[part]), self.codes[part], self.weights
        kept = np.flatnonzero(codes >= 0)
        weights = weights.take(part)
        if len(kept) == len(codes):
            return Block(rows, codes, weights)
        return Block(rows[kept], codes[kept], weights.take(kept))

    def _checked(self, values: Any) -> Floats:
        # Rows of a store are a copy already; a second one would take as much memory again.
        copied = np.array if isinstance(self._X, np.ndarray) else np.ascontiguousarray
        rows: Floats = copied(values, np.float32)
        if not np.isfinite(rows).all():
            raise ValueError(
                "Input X contains NaN or infinity. Leave out the rows that are not finite."
            )
        return rows
