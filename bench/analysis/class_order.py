"""An order of the classes in which confused ones are neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

# Optimal ordering takes cubic time: seconds for this many classes.
MOST_ORDERED = 500


def confusion_order(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return an order of the classes that places confused ones side by side.

    Hierarchical clustering (average linkage) of the symmetrised confusions, each as a fraction
    of its true class, with optimal leaf ordering (Bar-Joseph et al. 2001). Classes without any
    confusion follow in their own order.

    Parameters
    ----------
    table : ndarray (k, k) of int64
        Confusion matrix, true classes as rows.

    Returns
    -------
    ndarray (k,) of int64
        A permutation of the class codes.

    Examples
    --------
    >>> table = np.diag([9, 9, 9, 9])
    >>> table[0, 3] = table[3, 0] = 5
    >>> confusion_order(table).tolist() in ([0, 3, 1, 2], [3, 0, 1, 2])
    True
    """
    fractions = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    similarity = fractions + fractions.T
    np.fill_diagonal(similarity, 0)
    confused = np.flatnonzero(similarity.sum(axis=1) > 0)
    others = np.setdiff1d(np.arange(len(table)), confused)
    if len(confused) > 2:
        confused = confused[_leaves(similarity[np.ix_(confused, confused)])]
    return np.concatenate([confused, others]).astype(np.int64)


def _leaves(similarity: NDArray[np.float64]) -> NDArray[np.int64]:
    distance = 1 - similarity / similarity.max()
    np.fill_diagonal(distance, 0)
    optimal = len(distance) <= MOST_ORDERED
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=optimal)
    return np.asarray(leaves_list(tree), np.int64)
