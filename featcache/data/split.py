"""Seeded splits that keep classes in proportion and copies of an image together.

Pure array logic: positions in, positions out.
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
    """Split rows by the data set's own split, or at random in class proportions.

    Parameters
    ----------
    groups : sequence of hashable
        Content of each row.
    labels : sequence or None
        Class of each row; None among them for an unlabelled one. None: there are no classes.
    parts : sequence of str or None
        The data set's own split, used without `test_size`.
    test_size : float or None
        Fraction of the rows, between 0 and 1 exclusive. Default: the own split, else 0.2.
    random_state : int

    Returns
    -------
    (ndarray, ndarray, str)
        Sorted positions of the training and test part, and the split's name. Unlabelled rows
        are in neither part; but where the own test part has no label at all, it is returned
        as it is, for prediction. Rows of the own validation part are training rows. Both are
        logged.

    Raises
    ------
    InvalidRequest
        For a `test_size` out of range, or if one part would be empty.
    """
    if test_size is not None:
        check_test_size(test_size)
    known = np.array([labels is None or label is not None for label in labels or groups], bool)
    if test_size is not None or parts is None:
        size = 0.2 if test_size is None else float(test_size)
        rows = np.flatnonzero(known).tolist()
        _say_unlabelled(len(groups) - len(rows), "both parts of the split")
        chosen = None if labels is None else [labels[i] for i in rows]
        train, test = stratified_group_split([groups[i] for i in rows], chosen, size, random_state)
        return np.array(rows)[train], np.array(rows)[test], f"random {size:g}, seed {random_state}"
    train, test = official_split(groups, parts)
    _say_unlabelled(int((~known[train]).sum()), "the training part")
    train = train[known[train]]
    if known[test].any():
        _say_unlabelled(int((~known[test]).sum()), "the test part")
        test = test[known[test]]
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
    """Raise `InvalidRequest` unless a test part's size lies between 0 and 1, exclusive."""
    if (
        isinstance(test_size, bool)
        or not isinstance(test_size, Real)
        or not 0 < float(test_size) < 1
    ):
        raise InvalidRequest(
            f"test_size={test_size!r} must lie between 0 and 1, such as 0.2; it is a fraction of "
            "the images. Leave it out for the data set's own split, or 0.2 without one.",
            received=test_size,
        )


def _say_unlabelled(count: int, where: str) -> None:
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
    """Split positions into train and test.

    Parameters
    ----------
    groups : sequence of hashable
        Rows of one group (the same photo, say) always fall on the same side.
    labels : sequence of hashable or None
        Class of each row; classes keep their proportions. None: all rows are one class. A
        group with several labels counts for its first one.
    test_size : float
        Fraction of the rows for the test part, between 0 and 1.
    random_state : int
        The same number gives the same split for the same rows in the same order.

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
            f"The data set's own split has {format_count(len(train), 'training image')} and "
            f"{format_count(len(test), 'test image')}; both are needed. "
            "Give test_size= to split at random.",
            received=list(split),
        )
    return train, test
