"""Groups of rows that belong together, such as the views of a photo, as integer codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featcache.errors import InvalidRequest
from featcache.toolkit import format_count, is_missing

Codes = NDArray[np.int64]


def group_codes(groups: ArrayLike | None, n_rows: int) -> Codes | None:
    """Return the number of each row's group.

    Parameters
    ----------
    groups : array-like (n,) or None
        Hashable labels, such as strings, integers or tuples. Rows whose label is missing are one
        group: nothing says that they do not belong together.
    n_rows : int

    Returns
    -------
    ndarray (n,) of int64, or None
        In the order of the sorted labels, if they can be sorted. None for None.

    Raises
    ------
    InvalidRequest
        If there is another number of labels, or a label is not hashable.

    Examples
    --------
    >>> group_codes(["b", "a", "b"], 3)
    array([1, 0, 1])
    """
    if groups is None:
        return None
    values = _values(groups)
    if len(values) != n_rows:
        raise InvalidRequest(
            f"groups has {format_count(len(values), 'entry', 'entries')}, but there are "
            f"{format_count(n_rows, 'row')}; give one per row.",
            received=len(values),
        )
    try:
        labels = dict.fromkeys(values)
    except TypeError as error:
        raise InvalidRequest(
            f"groups holds labels that are not hashable ({error}); give one string, number or "
            "tuple per row.",
            received=groups,
        ) from error
    numbers = {label: number for number, label in enumerate(_sorted(list(labels)))}
    return np.array([numbers[value] for value in values], np.int64)


def needed_groups(groups: Codes | None) -> Codes | None:
    """Return groups renumbered from 0 without gaps; None if no two rows are of one group.

    Splits of groups that have one row each are those of rows, which are faster.

    Parameters
    ----------
    groups : ndarray (n,) of int64, or None

    Examples
    --------
    >>> needed_groups(np.array([7, 3, 7]))
    array([1, 0, 1])
    >>> needed_groups(np.array([7, 3, 5])) is None
    True
    """
    if groups is None:
        return None
    found, numbers = np.unique(groups, return_inverse=True)
    return None if len(found) == len(groups) else np.asarray(numbers.ravel(), np.int64)


def count_groups(groups: Codes | None, rows: NDArray[np.int64]) -> int:
    """Return the number of different groups among some rows; without groups, that of the rows.

    Rows of one group say little more than one of them: what needs a number of independent rows
    needs as many groups.
    """
    return len(rows) if groups is None else len(np.unique(groups[rows]))


def _values(groups: ArrayLike) -> list[Any]:
    values: Any = groups if isinstance(groups, (list, tuple)) else np.asarray(groups)
    values = values.ravel().tolist() if isinstance(values, np.ndarray) else values
    return [None if is_missing(value) else value for value in values]


def _sorted(labels: list[Any]) -> list[Any]:
    """Sort labels, with a missing one last; leave them in their order if they do not sort."""
    present = [label for label in labels if label is not None]
    try:
        present.sort()
    except TypeError:
        return labels
    return present + ([None] if len(present) < len(labels) else [])
