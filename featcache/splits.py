"""Seeded splits that keep classes in proportion and copies of an image together.

Pure array logic: positions in, positions out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidRequest

Positions = NDArray[np.int64]


def stratified_group_split(
    groups: Sequence[Hashable],
    labels: Sequence[Hashable] | None,
    test_size: float,
    seed: int,
) -> tuple[Positions, Positions]:
    """Split positions into train and test.

    Parameters
    ----------
    groups : sequence of hashable
        Rows of one group (the same photo, say) always fall on the same side.
    labels : sequence of hashable or None
        Class of each row; classes keep their proportions. None: all rows are one class. A
        group with several labels counts for its first one.
    test_size : float
        Share of the rows for the test part, between 0 and 1.
    seed : int
        The same seed gives the same split for the same rows in the same order.

    Returns
    -------
    (ndarray, ndarray) of int64
        Sorted positions. A class of at least two groups has one on either side; a class
        of one group is in the training part only.

    Raises
    ------
    InvalidRequest
        If `test_size` is out of range or one part would be empty.

    Examples
    --------
    >>> train, test = stratified_group_split(list("abcdd"), [0, 0, 1, 1, 1], 0.4, seed=0)
    >>> sorted([*train.tolist(), *test.tolist()])
    [0, 1, 2, 3, 4]
    """
    if not 0 < test_size < 1:
        raise InvalidRequest(
            f"test_size={test_size!r} must lie between 0 and 1, such as 0.2.", received=test_size
        )
    members: dict[Hashable, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    classes: dict[Hashable, list[Hashable]] = {}
    for group, rows in members.items():
        classes.setdefault(labels[rows[0]] if labels is not None else 0, []).append(group)
    generator = np.random.default_rng(seed)
    test: list[int] = []
    for label in sorted(classes, key=str):  # independent of which class comes first
        chosen = _choose(classes[label], members, test_size, generator)
        test += [row for group in chosen for row in members[group]]
    mask = np.zeros(len(groups), bool)
    mask[test] = True
    if mask.all() or not mask.any():
        raise InvalidRequest(
            f"{len(members)} different images are too few to split with test_size={test_size}.",
            received=test_size,
        )
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _choose(
    groups: list[Hashable],
    members: dict[Hashable, list[int]],
    test_size: float,
    generator: np.random.Generator,
) -> list[Hashable]:
    if len(groups) < 2:
        return []
    rows = sum(len(members[group]) for group in groups)
    wanted = max(1, round(rows * test_size))
    chosen: list[Hashable] = []
    taken = 0
    for i in generator.permutation(len(groups)):
        size = len(members[groups[i]])
        if chosen and taken + size > wanted:
            continue
        if len(chosen) == len(groups) - 1:
            break  # one group stays for training
        chosen.append(groups[i])
        taken += size
        if taken >= wanted:
            break
    return chosen


def official_split(groups: Sequence[Hashable], split: Sequence[str]) -> tuple[Positions, Positions]:
    """Read a data set's own split, and keep copies of test images out of the training part.

    Parameters
    ----------
    groups : sequence of hashable
        Content of each row.
    split : sequence of str
        ``"test"``, or anything else for training.

    Returns
    -------
    (ndarray, ndarray) of int64
        The test part is complete; a training row whose content is also in the test part
        is left out of both.

    Raises
    ------
    InvalidRequest
        If one part is empty.
    """
    is_test = np.array([name == "test" for name in split])
    tested = {group for group, test in zip(groups, is_test, strict=True) if test}
    is_copy = np.array([group in tested for group in groups])
    train, test = np.flatnonzero(~is_test & ~is_copy), np.flatnonzero(is_test)
    if not len(train) or not len(test):
        raise InvalidRequest(
            f"The data set's own split has {len(train)} training and {len(test)} test images; "
            "both are needed. Give test_size= to split at random.",
            train=len(train),
            test=len(test),
        )
    return train, test
