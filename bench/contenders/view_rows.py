"""`ViewRows`: the stored rows of several views of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from featcache import Features

Rows = NDArray[np.float32]


class ViewRows:
    """Features of several views, in which the rows of each view follow those of the one before.

    Parameters
    ----------
    features : Features

    Attributes
    ----------
    features : Features
    count : int
        Number of rows per view; copies of an image have one each.
    rows : dict of str to int
        Row in view 0 by example id. An image with a view whose row is not finite has none.
    """

    def __init__(self, features: Features) -> None:
        self.features = features
        self.count = int(np.count_nonzero(features.views == 0))
        first = features.example_ids[: self.count]
        self.rows = {image_id: row for row, image_id in enumerate(first)}

    def read(self, ids: Sequence[str], view: int, replacement: Callable[[list[str]], Rows]) -> Rows:
        """Return the rows (n, d) of a view of images.

        Parameters
        ----------
        ids : sequence of str
            Example ids.
        view : int
        replacement : callable
            Returns the rows of the ids that have none here.
        """
        has_row = np.array([i in self.rows for i in ids], bool)
        first = view * self.count
        found = self.features.X[[first + self.rows[i] for i in ids if i in self.rows]]
        if has_row.all():
            return found
        read = np.empty((len(ids), found.shape[1]), np.float32)
        read[has_row] = found
        read[~has_row] = replacement([i for i in ids if i not in self.rows])
        return read
