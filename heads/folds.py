"""Folds of a cross-validation, made from a number, a splitter, a column or pairs of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from featcache.errors import InvalidRequest
from featcache.toolkit import first_line, format_count, get_logger, ignored_warnings

from .base import RandomState, random_generator
from .groups import group_codes

log = get_logger(__name__)

Rows = NDArray[np.int64]
Fold = tuple[Rows, Rows]


def make_folds(
    X: NDArray[Any],
    y: NDArray[Any],
    groups: ArrayLike | None,
    cv: Any,
    random_state: RandomState = 0,
    mask: NDArray[np.bool_] | None = None,
) -> list[Fold]:
    """Return the training and test rows of each fold.

    Parameters
    ----------
    X : ndarray (n, d)
    y : ndarray (n,)
        Labels of these rows.
    groups : array-like or None
        Group of each row; rows of one group are in the same fold.
    cv : int, splitter, array-like or iterable of (train, test)
        See `heads.search`.
    random_state : int, numpy.random.RandomState or None
        Seed of the folds that an integer `cv` makes.
    mask : ndarray of bool, optional
        If `groups` and `cv` describe more rows than X and y: the rows that X and y hold.

    Returns
    -------
    list of (ndarray, ndarray) of int64

    Raises
    ------
    InvalidRequest
        If the folds cannot be made.
    """
    given = len(X) if mask is None else len(mask)
    chosen = np.ones(given, bool) if mask is None else mask
    numbers = group_codes(groups, given)
    if numbers is not None:
        numbers = np.asarray(np.unique(numbers[chosen], return_inverse=True)[1].ravel(), np.int64)
    if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
        return _stratified_folds(y, numbers, int(cv), random_state)
    folds = _given_folds(X, y, numbers, cv, chosen)
    if not folds or not all(len(train) and len(test) for train, test in folds):
        raise InvalidRequest(
            "cv gives a fold without training rows or without test rows. Give each fold some of "
            "both."
        )
    if numbers is not None:
        _warn_about_split_groups(numbers, folds)
    return folds


def is_partition(folds: Sequence[Fold], n_rows: int) -> bool:
    """Return whether no row is tested twice, and each fold trains on all rows but its own."""
    tested = np.concatenate([test for _, test in folds])
    if len(np.unique(tested)) != len(tested):
        return False
    return all(
        np.array_equal(np.sort(train), np.setdiff1d(np.arange(n_rows), test))
        for train, test in folds
    )


def _stratified_folds(
    y: NDArray[Any], groups: Any, cv: int, random_state: RandomState
) -> list[Fold]:
    different = len(y) if groups is None else int(groups.max()) + 1
    if not 2 <= cv <= different:
        raise InvalidRequest(
            f"cv={cv} must be a number of folds from 2 to {different}, the number of different "
            f"{'rows' if groups is None else 'groups or images'}.",
            received=cv,
        )
    random_generator(random_state)  # raises for a value that is not a seed
    # Without copies of photos, the groups are rows, and assigning them would only take time.
    if different == len(y):
        return list(StratifiedKFold(cv, shuffle=True, random_state=random_state).split(y, y))
    folds = StratifiedGroupKFold(cv, shuffle=True, random_state=random_state)
    return list(folds.split(y, y, groups))


def _given_folds(
    X: NDArray[Any], y: NDArray[Any], groups: Any, cv: Any, chosen: NDArray[np.bool_]
) -> list[Fold]:
    if callable(getattr(cv, "split", None)) and not isinstance(cv, str):
        return _split_folds(X, y, groups, cv)
    if isinstance(cv, (str, bool)) or not hasattr(cv, "__iter__"):
        raise InvalidRequest(
            f"cv={cv!r} does not define folds; give a number, a splitter of scikit-learn, one fold "
            "number per row, or pairs (train, test) of rows.",
            received=cv,
        )
    entries = list(cv)
    if all(isinstance(entry, str) or not hasattr(entry, "__len__") for entry in entries):
        return _column_folds(entries, chosen)
    place = np.cumsum(chosen) - 1
    pairs = [tuple(np.arange(len(chosen))[np.asarray(part)] for part in pair) for pair in entries]
    return [(place[train[chosen[train]]], place[test[chosen[test]]]) for train, test in pairs]


def _split_folds(X: NDArray[Any], y: NDArray[Any], groups: Any, cv: Any) -> list[Fold]:
    try:
        # Photos are groups by default; `make_folds` logs it if a splitter separates them.
        with ignored_warnings("The groups parameter is ignored"):
            return [(np.asarray(a), np.asarray(b)) for a, b in cv.split(X, y, groups)]
    except (TypeError, ValueError) as error:
        hint = " Give groups=, if it splits by groups." if groups is None else ""
        raise InvalidRequest(
            f"cv={cv!r} cannot split the {format_count(len(X), 'row')}: {first_line(error)}.{hint}",
            received=cv,
        ) from error


def _column_folds(names: list[Any], chosen: NDArray[np.bool_]) -> list[Fold]:
    if len(names) != len(chosen):
        raise InvalidRequest(
            f"cv has {len(names)} fold numbers, but there are {len(chosen)} rows; give one per "
            "row.",
            received=len(names),
        )
    kept = [name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen]
    folds: dict[Any, list[int]] = {}
    for row, name in enumerate(kept):
        if name is not None and name == name and name != -1:
            folds.setdefault(name, []).append(row)
    everything = np.arange(len(kept))
    tests = [np.array(rows) for _, rows in sorted(folds.items(), key=lambda item: item[0])]
    return [(np.setdiff1d(everything, test), test) for test in tests]


def _warn_about_split_groups(groups: NDArray[np.int64], folds: Sequence[Fold]) -> None:
    split = {
        group for train, test in folds for group in np.intersect1d(groups[train], groups[test])
    }
    if split:
        log.warning(
            "%d groups, such as copies of a photo, have both training and test rows: cv= does not "
            "keep them together. StratifiedGroupKFold or a number does.",
            len(split),
        )
