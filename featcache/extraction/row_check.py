"""What computed rows tell of a model: that it gives class probabilities, or nothing finite."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backbones.graph import OUTPUT
from ..backbones.resolve import ResolvedBackbone
from ..errors import InvalidRequest

log = logging.getLogger("featcache")

# So many valid images without one finite row are the model's fault, before all are computed.
_ENOUGH_ROWS = 32
_TOLERANCE = 1e-3
_RESOLUTION = 1e-5


class RowCheck:
    """Looks at rows as they are computed.

    Parameters
    ----------
    resolved : ResolvedBackbone
    stored : int
        Rows that the store has already, which are finite.

    Attributes
    ----------
    any_finite : bool
        Whether the model has given a finite row, now or earlier.
    """

    def __init__(self, resolved: ResolvedBackbone, stored: int) -> None:
        self._resolved = resolved
        self.any_finite = stored > 0
        self._seen = 0

    def see(self, rows: NDArray[np.float32]) -> None:
        """Look at a batch; the first one may be worth a warning.

        Raises
        ------
        InvalidRequest
            If none of many rows was finite.
        """
        request = self._resolved.request
        defaulted = request.entry is None and request.layer is None
        if not self._seen and defaulted and self._resolved.spec.layer == OUTPUT:
            _warn_of_probabilities(request.name, rows)
        self._seen += len(rows)
        self.any_finite = self.any_finite or bool(np.isfinite(rows).all(axis=1).any())
        if self._seen >= _ENOUGH_ROWS:
            self.finish()

    def finish(self) -> None:
        """Raise `InvalidRequest` if rows were computed, and none was ever finite."""
        if self.any_finite or not self._seen:
            return
        request = self._resolved.request
        own = request.entry is None
        what = "the model" if own else f"{request.name} with weights {request.weights.origin}"
        raise InvalidRequest(
            f"Not one of the rows of {self._seen} images is finite, although the images are "
            f"valid: {what} gives NaN or infinite values, so nothing is stored; check its weights.",
            received=request.name,
            images=self._seen,
        )


def looks_like_probabilities(rows: NDArray[np.float32]) -> bool:
    """Tell whether rows may be class probabilities: no negative value, and all of one sum.

    That sum is 1, or another where the probabilities were rescaled; then it must be the same to
    float32's resolution, and rows must differ, since a model that hardly looks at its images
    has nearly one sum as well.

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


def _warn_of_probabilities(name: str, rows: Any) -> None:
    if looks_like_probabilities(rows):
        log.warning(
            "%s: its features, the model's output, look like class probabilities: no value is "
            "negative, and the %d values of every row have the same sum. The layer that feeds "
            "the classification layer gives better features: name it with layer=. layer='output' "
            "keeps the output without this warning.",
            name, rows.shape[1],
        )  # fmt: skip
