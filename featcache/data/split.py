"""Stratified train/test splits that keep copies of an image together.

Pure array code: row positions in, row positions out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.logs import get_logger
from .._io.wording import format_count
from ..errors import InvalidRequest

log = get_logger(__name__)

Positions = NDArray[np.int64]


def split_rows(
    groups: Sequence[Hashable],
    labels: Sequence[Any] | None,
    parts: Sequence[str] | None,
    test_size: float | None,
    random_state: int,
) -> tuple[Positions, Positions, str]:
    """Split rows by the data set's official split, or at random, stratified by class.

    Parameters
    ----------
    groups : sequence of hashable
        Image id of each row; rows of one image are never in both parts.
    labels : sequence or None
        Label of each row, None for an unlabelled row. None: no labels.
    parts : sequence of str or None
        The official split: ``"train"``, ``"validation"`` or ``"test"`` of each row. Ignored if
        `test_size` is given.
    test_size : float or None
        Fraction of the rows, between 0 and 1 exclusive. None: the official split, else 0.2.
    random_state : int
        Seed of a random split.

    Returns
    -------
    (ndarray (n_train,) int64, ndarray (n_test,) int64, str)
        Sorted positions of the training and the test part, and the name of the split. Unlabelled
        rows are in neither part, except that an official test part without any label is returned
        unchanged, for prediction. Rows of the official validation part are training rows. Both
        are logged.

    Raises
    ------
    InvalidRequest
        For a `test_size` out of range, or if one part would be empty.
    """
    if test_size is not None:
        check_test_size(test_size)
    is_labelled = np.array(
        [labels is None or label is not None for label in labels or groups], bool
    )
    if test_size is not None or parts is None:
        size = 0.2 if test_size is None else float(test_size)
        rows = np.flatnonzero(is_labelled).tolist()
        _log_unlabelled(len(groups) - len(rows), "both parts of the split")
        chosen = None if labels is None else [labels[i] for i in rows]
        train, test = stratified_group_split([groups[i] for i in rows], chosen, size, random_state)
        return np.array(rows)[train], np.array(rows)[test], f"random {size:g}, seed {random_state}"
    train, test = official_split(groups, parts)
    _log_unlabelled(int((~is_labelled[train]).sum()), "the training part")
    train = train[is_labelled[train]]
    if is_labelled[test].any():
        _log_unlabelled(int((~is_labelled[test]).sum()), "the test part")
        test = test[is_labelled[test]]
    if not len(train):
        raise InvalidRequest(
            "The data set's own split has no labelled training image. Give test_size= to split "
            "the labelled images at random.",
        )
    validation = sum(parts[i] == "validation" for i in train)
    if not validation:
        return train, test, "official"
    log.warning(
        "The split has two parts: the data set's validation part (%s) is in the training part. "
        "To keep them apart, choose rows by the data set's own split.",
        format_count(validation, "image"),
    )
    return train, test, "official, validation images in the training part"


def check_test_size(test_size: Any) -> None:
    """Raise `InvalidRequest` unless `test_size` is between 0 and 1, exclusive."""
    if (
        isinstance(test_size, bool)
        or not isinstance(test_size, Real)
        or not 0 < float(test_size) < 1
    ):
        raise InvalidRequest(
            f"test_size={test_size!r} must be a fraction of the images between 0 and 1, such as "
            "0.2. Omit it to use the data set's own split, or 0.2 without one.",
            received=test_size,
        )


def _log_unlabelled(count: int, where: str) -> None:
    if count:
        log.warning(
            "%s left out of %s.",
            format_count(count, "unlabelled image is", "unlabelled images are"), where,
        )  # fmt: skip


def stratified_group_split(
    groups: Sequence[Hashable],
    labels: Sequence[Hashable] | None,
    test_size: float,
    random_state: int,
) -> tuple[Positions, Positions]:
    """Split rows at random, stratified by class, keeping each group in one part.

    Parameters
    ----------
    groups : sequence of hashable
        Rows of one group, such as copies of an image, are in the same part.
    labels : sequence of hashable or None
        Class of each row. None: all rows are of one class. A group with several labels counts
        with its first one.
    test_size : float
        Fraction of the rows in the test part, between 0 and 1 exclusive.
    random_state : int
        Seed. Equal arguments give equal splits.

    Returns
    -------
    (ndarray (n_train,) int64, ndarray (n_test,) int64)
        Sorted positions of the training and the test part. A class with two groups or more is in
        both parts; a class with one group is in the training part only.

    Raises
    ------
    InvalidRequest
        If `test_size` is out of range or one part would be empty.

    Examples
    --------
    >>> train, test = stratified_group_split(list("abcdd"), [0, 0, 1, 1, 1], 0.4, random_state=0)
    >>> sorted([*train.tolist(), *test.tolist()])
    [0, 1, 2, 3, 4]
    """
    check_test_size(test_size)
    members: dict[Hashable, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    classes: dict[Hashable, list[Hashable]] = {}
    for group, rows in members.items():
        classes.setdefault(labels[rows[0]] if labels is not None else 0, []).append(group)
    generator = np.random.default_rng(random_state)
    test: list[int] = []
    for label in sorted(classes, key=str):  # independent of which class comes first
        chosen = _choose(classes[label], members, test_size, generator)
        test += [row for group in chosen for row in members[group]]
    mask = np.zeros(len(groups), bool)
    mask[test] = True
    if mask.all() or not mask.any():
        raise InvalidRequest(
            f"{format_count(len(members), 'different image is', 'different images are')} too few "
            f"to split with test_size={test_size}.",
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
    n_wanted = max(1, round(rows * test_size))
    chosen: list[Hashable] = []
    n_chosen = 0
    for i in generator.permutation(len(groups)):
        size = len(members[groups[i]])
        if chosen and n_chosen + size > n_wanted:
            continue
        if len(chosen) == len(groups) - 1:
            break  # keep one group for training
        chosen.append(groups[i])
        n_chosen += size
        if n_chosen >= n_wanted:
            break
    return chosen


def official_split(groups: Sequence[Hashable], split: Sequence[str]) -> tuple[Positions, Positions]:
    """Return the official split, without training rows that are copies of test images.

    Parameters
    ----------
    groups : sequence of hashable
        Image id of each row.
    split : sequence of str
        ``"test"``, or another value for training.

    Returns
    -------
    (ndarray, ndarray) of int64
        Sorted positions of the training and the test part. The test part is complete; a
        training row whose image is also in the test part is in neither.

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
            f"The data set's own split has {format_count(len(train), 'training image')} and "
            f"{format_count(len(test), 'test image')}; both are needed. "
            "Give test_size= to split at random.",
            received=list(split),
        )
    return train, test
