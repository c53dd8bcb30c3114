"""Labels: normalisation, missing values, order of classes, codes and conflicts.

Pure functions on values. pandas is never imported; its values are recognised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .._io.wording import format_count, format_values
from ..errors import DatasetError

OnConflict = Literal["warn", "error", "keep"]
ON_CONFLICT: tuple[OnConflict, ...] = get_args(OnConflict)

_KINDS = ((bool, "bool"), (int, "int"), (float, "float"), (str, "str"))
_EXACT = (str, int, bool)


def is_missing(value: object) -> bool:
    """Return whether a value is missing.

    Missing are None, NaN, ``pandas.NA``, ``NaT``, and strings that are empty or blank.

    Parameters
    ----------
    value : Any

    Returns
    -------
    bool

    Examples
    --------
    >>> [is_missing(value) for value in (None, float("nan"), "", " ", "nan", 0, False)]
    [True, True, True, True, False, False, False]
    """
    if value is None:
        return True
    if isinstance(value, str):
        return not value.strip()
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # pandas.NA is neither equal nor unequal to itself
        return type(value).__name__ == "NAType"


def normalise_labels(labels: Iterable[Any]) -> list[Any]:
    """Return labels as Python values of one type, with None for missing ones.

    Parameters
    ----------
    labels : iterable
        A list, array, pandas Series or Categorical.

    Returns
    -------
    list of str, int, bool, float or None
        A NumPy or pandas column of integral floats becomes ints, also with missing values:
        pandas converts ints to floats if one is missing. Elements of a list keep their type,
        except that integral floats among ints become ints.

    Raises
    ------
    DatasetError
        For labels of several types, of another type, or that are not one value per image.

    Examples
    --------
    >>> normalise_labels([2.0, float("nan")]), normalise_labels(np.array([2.0, float("nan")]))
    ([2.0, None], [2, None])
    """
    to_list = getattr(labels, "tolist", None)
    values = list(labels if to_list is None else to_list())
    if _is_whole_column(labels):
        return whole_numbers(values)
    types = set(map(type, values))
    exact = len(types - {type(None)}) == 1 and bool(types & set(_EXACT))
    if exact and not (str in types and any(map(is_missing, set(values) - {None}))):
        return values  # the usual case, without a loop over a million labels
    values = [None if _missing_label(value, row) else _to_python_value(value, row)
              for row, value in enumerate(values, start=1)]  # fmt: skip
    return _of_one_type(values)


def whole_numbers(values: Sequence[Any]) -> list[Any]:
    """Return integral floats as ints with None for missing values; other values unchanged.

    Examples
    --------
    >>> whole_numbers([2.0, None]), whole_numbers([2.0, 0.5])
    ([2, None], [2.0, 0.5])
    """
    if all(is_missing(v) or (isinstance(v, float) and v.is_integer()) for v in values):
        return [None if is_missing(value) else int(value) for value in values]
    return list(values)


def _is_whole_column(labels: Any) -> bool:
    """Return whether labels, or their categories, are a column of integral floats."""
    categories = getattr(getattr(labels, "dtype", None), "categories", None)
    column = labels if categories is None else categories
    if getattr(column, "ndim", 1) != 1:  # rows of one-hot labels have no single value
        return False
    kind = getattr(getattr(column, "dtype", None), "kind", "")
    return kind == "f" and all(is_missing(v) or float(v).is_integer() for v in column.tolist())


def _missing_label(value: Any, row: int) -> bool:
    if isinstance(value, (list, tuple, np.ndarray)):
        raise DatasetError(
            f"The label of row {row} is a {type(value).__name__}; expected one label per image "
            "(str, int, bool or float). For one-hot rows, pass their argmax.",
            row=row,
            received=value,
        )
    return is_missing(value)


def _to_python_value(value: Any, row: int) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    for kind, _ in _KINDS:
        if isinstance(value, kind):
            # Subclasses, such as enumerations, cannot be saved and loaded.
            return value if type(value) is kind else getattr(kind, f"__{kind.__name__}__")(value)
    if hasattr(value, "__fspath__"):
        return str(value)
    raise DatasetError(
        f"The label of row {row} is {value!r} ({type(value).__name__}); expected str, int, bool "
        "or float. Convert the labels first, with .astype(str) for example.",
        row=row,
        received=value,
    )


def _of_one_type(values: list[Any]) -> list[Any]:
    types = {type(value) for value in values} - {type(None)}
    if types <= {int, float} and float in types:
        if int in types and all(v is None or float(v).is_integer() for v in values):
            return [None if value is None else int(value) for value in values]
        return [None if value is None else float(value) for value in values]
    if len(types) > 1:
        examples = {name: next(v for v in values if type(v) is kind)
                    for kind, name in _KINDS if kind in types}  # fmt: skip
        shown = ", ".join(f"{value!r} ({name})" for name, value in examples.items())
        raise DatasetError(
            f"The labels are of several types: {shown}. Convert them to one type, since 1, '1' "
            "and True would be three classes.",
            received=examples,
        )
    return values


def classes_of(labels: Iterable[Any], categories: Sequence[Any] | None = None) -> list[Any]:
    """Return the distinct labels in their natural order, or the categories in theirs.

    Numbers are sorted by value, text by code point, False before True. Categories without an
    image are included.

    Examples
    --------
    >>> classes_of([10, 9, None, 9]), classes_of(["10", "9"]), classes_of(["s"], ["s", "m", "l"])
    ([9, 10], ['10', '9'], ['s', 'm', 'l'])
    """
    if categories is not None:
        return list(categories)
    return sorted(set(labels) - {None})


def categories_of(values: Any) -> list[Any] | None:
    """Return the categories of a pandas Categorical or of a Series of them; None for others."""
    categories = getattr(getattr(values, "dtype", None), "categories", None)
    return None if categories is None else normalise_labels(categories)


def check_categories(labels: Sequence[Any], categories: Sequence[Any]) -> list[Any]:
    """Return categories as Python values; raise `DatasetError` unless they contain all labels."""
    checked = normalise_labels(categories)
    outside = set(labels) - {None} - set(checked)
    mixed = {type(label) for label in labels} - {type(None)} - {type(name) for name in checked}
    repeated = sorted(name for name, count in Counter(checked).items() if count > 1)
    fault = ""
    if None in checked:
        fault = "one of them is missing"
    elif repeated:
        verb = "is" if len(repeated) == 1 else "are"
        fault = f"{format_values(repeated)} {verb} repeated"
    elif outside:
        fault = f"the labels also have {format_values(sorted(outside))}"
    elif mixed:
        types = sorted(kind.__name__ for kind in mixed)
        fault = f"the labels are of another type ({', '.join(types)})"
    if fault:
        raise DatasetError(
            f"The categories ({format_values(checked)}) must be distinct, none of them missing, "
            f"and hold every label, but {fault}.",
            received=checked,
        )
    return checked


def label_codes(
    labels: Iterable[Any], classes: Sequence[Any]
) -> NDArray[np.int64] | NDArray[np.float64]:
    """Return the index of each label in `classes`.

    Parameters
    ----------
    labels : iterable
        None for an unlabelled row.
    classes : sequence
        Must contain every label.

    Returns
    -------
    ndarray (n,)
        int64, 0 to ``len(classes) - 1``. If rows are unlabelled: float64 with NaN for them,
        which every estimator refuses. A code such as -1 would be trained on as a further class,
        and would index the last one.

    Raises
    ------
    KeyError
        For a label that is not in `classes`.

    Examples
    --------
    >>> label_codes(["b", "a"], ["a", "b"]), label_codes(["b", None], ["a", "b"])
    (array([1, 0]), array([ 1., nan]))
    """
    codes_by_label: dict[Any, float] = {name: code for code, name in enumerate(classes)}
    codes_by_label[None] = np.nan
    codes = np.array([codes_by_label[label] for label in labels], np.float64)
    return codes if np.isnan(codes).any() else codes.astype(np.int64)


def label_conflicts(
    ids: Sequence[str], paths: Sequence[str], labels: Sequence[Any] | None
) -> list[dict[str, Any]]:
    """Return examples with equal content and different labels.

    Parameters
    ----------
    ids : sequence of str
        Example id of each row; rows with "" are ignored.
    paths : sequence of str
        Path of each row.
    labels : sequence or None
        Label of each row; None for an unlabelled row, which is never a conflict.

    Returns
    -------
    list of dict
        ``id``, ``paths`` and ``labels`` of each conflict, in order of appearance.

    Examples
    --------
    >>> label_conflicts(["i", "i", "k"], ["a.png", "b.png", "c.png"], ["cat", "dog", "cat"])
    [{'id': 'i', 'paths': ['a.png', 'b.png'], 'labels': ['cat', 'dog']}]
    """
    first: dict[str, Any] = {}
    conflicting: set[str] = set()
    for image_id, label in zip(ids, labels or (), strict=labels is not None):
        if image_id and label is not None and first.setdefault(image_id, label) != label:
            conflicting.add(image_id)
    if not conflicting:
        return []
    rows: dict[str, list[int]] = {}
    for row, (image_id, label) in enumerate(zip(ids, labels or (), strict=True)):
        if image_id in conflicting and label is not None:
            rows.setdefault(image_id, []).append(row)
    return [
        {"id": key, "paths": [paths[i] for i in at], "labels": [(labels or ())[i] for i in at]}
        for key, at in rows.items()
    ]


def describe_conflicts(conflicts: Sequence[Mapping[str, Any]]) -> str:
    """Return a human-readable description of label conflicts, with the first three.

    Parameters
    ----------
    conflicts : sequence of dict
        As `label_conflicts` returns them; at least one.

    Returns
    -------
    str
    """
    shown = "; ".join(
        " and ".join(f"{p!r} as {v!r}" for p, v in zip(c["paths"], c["labels"], strict=True))
        for c in conflicts[:3]
    )
    more = f"; and {len(conflicts) - 3} more" if len(conflicts) > 3 else ""
    count = format_count(len(conflicts), "image occurs", "images occur")
    return (
        f"{count} under several labels (the same content): {shown}{more}. "
        "At most one of the labels is right."
    )
