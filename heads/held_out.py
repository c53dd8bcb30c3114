"""Rows held out of training: folds that are held out in turn, or one part for early stopping.

Training never lacks a class, and no group of rows is in both parts.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

Rows = NDArray[np.int64]


def held_out_folds(
    codes: Rows, folds: int, random_state: int = 0, groups: Rows | None = None
) -> list[Rows]:
    """Assign rows to folds that are held out in turn, so that training never lacks a class.

    Each fold holds out the same number of rows of a class. A class that had one training row
    less than others of its size would be predicted less often in the very fold where its rows
    are scored; with penalties as strong as those of the heads that outweighs the embedding.

    Parameters
    ----------
    codes : ndarray (n,)
        Class of each row.
    folds : int
        Maximum number of folds; fewer if no class has as many rows.
    random_state : int
        Seed of the assignment.
    groups : ndarray (n,) of int64, optional
        Number of the group of each row, from 0 without gaps. Folds then hold the same number of
        groups of a class, and about as many of its rows.

    Returns
    -------
    list of ndarray of int64
        Rows of each fold. The only row of a class, and the remainder of a class whose rows
        cannot be divided evenly, are in no fold; with groups, read group for row. Empty for
        fewer than two folds.

    Examples
    --------
    >>> [len(fold) for fold in held_out_folds(np.array([0, 0, 0, 1, 1, 1, 1, 2]), 3)]
    [2, 2, 2]
    """
    if groups is not None:
        return _folds_of_groups(_GroupTable(codes, groups, random_state), folds)
    counts = np.bincount(codes)
    order = np.random.default_rng(random_state).permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]  # by class, shuffled within it
    rank = np.arange(len(codes)) - (np.cumsum(counts) - counts)[codes[order]]
    fold = rank // np.maximum(1, counts // max(1, folds))[codes[order]]
    fold[counts[codes[order]] < 2] = folds
    parts = [np.sort(order[fold == number]) for number in range(folds)]
    parts = [part for part in parts if len(part)]
    return parts if len(parts) > 1 else []


def held_out_part(
    codes: Rows,
    fraction: float,
    random_state: int,
    groups: Rows | None = None,
    *,
    min_per_class: int,
) -> Rows:
    """Return a stratified part of the rows, for early stopping and the temperature.

    Parameters
    ----------
    codes : ndarray (n,)
        Class of each row, from 0 without gaps.
    fraction : float
        Fraction of the rows, or of the groups, between 0 and 1.
    random_state : int
        Seed of the part.
    groups : ndarray (n,) of int64, optional
        Number of the group of each row, from 0 without gaps. No group is held out in part.
    min_per_class : int
        Minimum number of rows of each class, or of groups with rows of it, at least 2.

    Returns
    -------
    ndarray of int64
        Sorted. Empty if a class has too few rows or groups, or the fraction is of fewer of them
        than there are classes.

    Examples
    --------
    >>> codes, groups = np.repeat([0, 1], 20), np.repeat(np.arange(10), 4)
    >>> held_out = held_out_part(codes, 0.2, 0, groups, min_per_class=2)
    >>> len(held_out), len(np.unique(groups[held_out]))
    (8, 2)
    """
    table = None if groups is None else _GroupTable(codes, groups, random_state)
    counts = np.bincount(codes) if table is None else np.array(table.n_groups)
    count = round(fraction * (len(codes) if table is None else len(table.sizes)))
    if count < len(counts) or counts.min() < min_per_class:
        return np.arange(0)
    if table is not None:
        return _part_of_groups(table, fraction)
    rows = np.arange(len(codes))
    _, held_out = train_test_split(rows, test_size=count, stratify=codes, random_state=random_state)
    return np.asarray(np.sort(held_out), np.int64)


class _GroupTable:
    """The classes and sizes of groups.

    Attributes
    ----------
    groups : ndarray (n,) of int64
        Group of each row.
    sizes : list of int
        Number of rows of each group.
    counts : list of dict of int to int
        Number of rows of each group by class.
    n_groups : list of int
        Number of groups that have rows of each class.
    members : list of list of int
        Groups of each class in random order. A group with rows of several classes is listed
        under the most frequent one.
    """

    def __init__(self, codes: Rows, groups: Rows, random_state: int) -> None:
        n_classes = int(codes.max()) + 1
        pairs, counts = np.unique(groups * n_classes + codes, return_counts=True)
        self.groups = groups
        self.sizes: list[int] = np.bincount(groups).tolist()
        self.counts: list[dict[int, int]] = [{} for _ in self.sizes]
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            self.counts[pair // n_classes][pair % n_classes] = count
        self.n_groups: list[int] = np.bincount(pairs % n_classes, minlength=n_classes).tolist()
        self.members: list[list[int]] = [[] for _ in range(n_classes)]
        order = np.random.default_rng(random_state).permutation(len(self.sizes))
        for group in order.tolist():
            own = self.counts[group]
            self.members[max(own, key=own.__getitem__)].append(group)


class _HeldOut:
    """Groups that are held out together, and their numbers of rows and groups by class."""

    def __init__(self, table: _GroupTable) -> None:
        self._table = table
        self.groups: list[int] = []
        self.size = 0
        self.rows_of: Counter[int] = Counter()
        self._groups_of: Counter[int] = Counter()

    def add(self, group: int) -> bool:
        """Add a group, unless training would then lack a class; return whether it was added."""
        table = self._table
        classes = table.counts[group]
        if any(self._groups_of[code] + 1 >= table.n_groups[code] for code in classes):
            return False
        self.groups.append(group)
        self.size += table.sizes[group]
        self.rows_of.update(classes)
        self._groups_of.update(list(classes))
        return True

    def rows(self) -> Rows:
        """Return the sorted rows of the groups."""
        is_held_out = np.zeros(len(self._table.sizes), bool)
        is_held_out[self.groups] = True
        return np.flatnonzero(is_held_out[self._table.groups])


def _folds_of_groups(table: _GroupTable, folds: int) -> list[Rows]:
    """Deal the groups of each class to the folds, the largest first, to the smallest fold."""
    parts = [_HeldOut(table) for _ in range(folds)]
    for code, members in enumerate(table.members):
        # As for rows: classes with as many groups are held out in the same folds.
        chosen = parts[: table.n_groups[code]]
        members.sort(key=table.sizes.__getitem__, reverse=True)
        for start in range(0, len(members), max(1, len(chosen))):
            dealt = members[start : start + len(chosen)]
            if start and len(dealt) < len(chosen):
                break  # the remainder: the smallest groups are always trained on
            smallest_first = sorted(chosen, key=lambda part: (part.rows_of[code], part.size))
            for group, part in zip(dealt, smallest_first, strict=False):
                part.add(group)
    found = [part.rows() for part in parts if part.groups]
    return found if len(found) > 1 else []


def _part_of_groups(table: _GroupTable, fraction: float) -> Rows:
    """Hold out about a fraction of each class's groups, and of all groups."""
    part = _HeldOut(table)
    missing = 0.0  # rounding errors of the classes before
    for members in table.members:
        wanted = fraction * len(members) + missing
        count = round(wanted)
        missing = wanted - count
        # One of the middle of each of some ranges of sizes, so that one large group does not
        # make the part much larger than the fraction.
        members.sort(key=table.sizes.__getitem__)
        bounds = [len(members) * number // max(1, count) for number in range(count + 1)]
        for start, stop in pairwise(bounds):
            part.add(members[(start + stop) // 2])
    return part.rows()
