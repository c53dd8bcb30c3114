"""Checks of computed rows: warn of class probabilities, refuse a model without usable rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .._io.logs import get_logger
from ..backbones.graph import OUTPUT
from ..backbones.resolve import ResolvedBackbone
from ..errors import NoFiniteRow
from ..hdf5.row_dtype import is_out_of_range, row_dtype

log = get_logger(__name__)

# If none of this many rows can be stored, the model is at fault: the others are not computed.
_MIN_ROWS = 32
_TOLERANCE = 1e-3
_RESOLUTION = 1e-5


@dataclass
class RowTally:
    """What is known of the rows of a backbone; tallies of several processes can be added.

    Attributes
    ----------
    seen : int
        Number of rows.
    any_finite : bool
    any_usable : bool
        Whether any row is finite, and its values are not too large for the dtype of stored rows.
    """

    seen: int = 0
    any_finite: bool = False
    any_usable: bool = False

    def count(self, rows: NDArray[np.float32], dtype: np.dtype[np.floating[Any]]) -> None:
        """Count rows that are to be stored in a dtype."""
        self.seen += len(rows)
        if not self.any_usable:
            finite = np.isfinite(rows).all(axis=1)
            self.any_finite = self.any_finite or bool(finite.any())
            self.any_usable = bool((finite & ~is_out_of_range(rows, dtype)).any())

    def add(self, other: RowTally) -> None:
        """Add the rows of another process."""
        self.seen += other.seen
        self.any_finite |= other.any_finite
        self.any_usable |= other.any_usable


class Check(Protocol):
    """What `featcache.extraction.runner.Computation` asks while rows are computed."""

    @property
    def any_usable(self) -> bool:
        """Whether images without a row are at fault, and not the model."""
        ...

    def update(self, rows: NDArray[np.float32]) -> None:
        """Check a batch of rows."""
        ...

    def finish(self) -> None:
        """Check the rows as a whole."""
        ...


class RowCheck:
    """Checks the rows of a backbone as they are computed.

    Parameters
    ----------
    resolved : ResolvedBackbone
    stored : int
        Number of rows in the store.

    """

    def __init__(self, resolved: ResolvedBackbone, stored: int) -> None:
        self._resolved = resolved
        self._dtype = row_dtype(resolved.spec.components())
        self._tally = RowTally(any_usable=stored > 0)

    @property
    def any_usable(self) -> bool:
        """Whether any row could be stored, in this extraction or before: see `RowTally`."""
        return self._tally.any_usable

    def update(self, rows: NDArray[np.float32]) -> None:
        """Check a batch of rows; warn if the first batch looks like class probabilities.

        Parameters
        ----------
        rows : ndarray (b, d), float32

        Raises
        ------
        NoFiniteRow
            If at least 32 rows were computed and none could be stored.
        """
        if not self._tally.seen:
            warn_if_probabilities(self._resolved, lambda: rows)
        self._tally.count(rows, self._dtype)
        if self._tally.seen >= _MIN_ROWS:
            self.finish()

    def add(self, tally: RowTally) -> None:
        """Add the rows that another process has computed; raise as `update` does."""
        self._tally.add(tally)
        if self._tally.seen >= _MIN_ROWS:
            self.finish()

    def finish(self) -> None:
        """Raise `NoFiniteRow` if rows were computed, and none could ever be stored."""
        if self.any_usable or not self._tally.seen:
            return
        request = self._resolved.request
        model = (
            "the model"
            if request.is_own
            else f"{request.name} with weights {request.weights.origin}"
        )
        if self._tally.any_finite:
            problem = (
                f"can be stored as {self._dtype}: {model} gives values beyond "
                f"{np.finfo(self._dtype).max:.0f}, the largest of {self._dtype}, so nothing is "
                "stored. Store rows as float32."
            )
        else:
            problem = (
                f"is finite: {model} gives NaN or infinite values, so nothing is stored. Check its "
                "weights."
            )
        raise NoFiniteRow(
            f"None of the rows of {self._tally.seen} valid images {problem}",
            received=request.name,
            images=self._tally.seen,
        )


def unusable_reasons(
    rows: NDArray[np.float32], dtype: np.dtype[np.floating[Any]]
) -> list[str | None]:
    """Return for each row why it cannot be stored in a dtype; None if it can.

    Examples
    --------
    >>> rows = np.array([[1.0], [np.nan], [7e4]], np.float32)
    >>> [reason is None for reason in unusable_reasons(rows, np.dtype(np.float16))]
    [True, False, False]
    """
    reasons: list[str | None] = [None] * len(rows)
    for row in np.flatnonzero(is_out_of_range(rows, dtype)).tolist():
        reasons[row] = (
            f"the backbone gives values for it beyond {np.finfo(dtype).max:.0f}, the largest of "
            f"{dtype}; rows of float32 hold them"
        )
    for row in np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist():
        reasons[row] = "the backbone gives values for it that are not finite"
    return reasons


def looks_like_probabilities(rows: NDArray[np.float32]) -> bool:
    """Return whether rows look like class probabilities: non-negative, with equal sums.

    Sums of 1 are enough. Other sums, of rescaled probabilities, must be equal to the resolution
    of float32, and the rows must differ: a model whose output hardly depends on the image has
    nearly equal sums as well.

    Parameters
    ----------
    rows : ndarray (n, d), float32

    Returns
    -------
    bool

    Examples
    --------
    >>> looks_like_probabilities(np.array([[0.2, 0.8], [0.5, 0.5]], np.float32))
    True
    >>> looks_like_probabilities(np.array([[0.2, 0.9], [0.5, 0.5]], np.float32))
    False
    """
    if rows.shape[1] < 2 or not np.isfinite(rows).all() or rows.min(initial=0) < 0:
        return False
    sums = rows.sum(axis=1, dtype=np.float64)
    if np.abs(sums - 1).max(initial=0) <= _TOLERANCE:
        return len(rows) > 0
    differ = np.ptp(rows, axis=0).max(initial=0) > _TOLERANCE * sums.max(initial=0)
    return bool(differ and np.ptp(sums) <= _RESOLUTION * sums.max())


def warn_if_probabilities(
    resolved: ResolvedBackbone, read: Callable[[], NDArray[np.float32]]
) -> None:
    """Warn if the output of a model of the user's own was chosen and looks like probabilities."""
    request = resolved.request
    if not (request.is_own and request.layer is None and resolved.spec.layer == OUTPUT):
        return
    rows = read()
    if looks_like_probabilities(rows):
        log.warning(
            "%s: its features, the model's output, look like class probabilities: no value is "
            "negative, and the %d values of every row have the same sum. The layer that feeds "
            "the classification layer gives better features: name it with layer=. layer='output' "
            "keeps the output without this warning.",
            request.name, rows.shape[1],
        )  # fmt: skip
