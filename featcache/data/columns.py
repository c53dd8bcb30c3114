"""Columns keep their type: text of a CSV file, lists and pandas columns as NumPy arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .labels import is_missing

# What pandas.read_csv takes for a missing value.
MISSING_TEXT = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
_INT = re.compile(r"0|-?[1-9][0-9]{0,17}")
_FLOAT = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|-?inf")
_TRUE, _FALSE = {"True", "TRUE", "true"}, {"False", "FALSE", "false"}


def label_values(cells: Sequence[str]) -> list[Any]:
    """Return the labels that a CSV column holds: ints, floats or bools, else text.

    Numbers are taken for such only if every one of them is written as Python writes it, so
    that no two labels become one: ``"007"``, ``"1.10"`` and ``"+1"`` keep the column text.

    Parameters
    ----------
    cells : sequence of str

    Returns
    -------
    list of int, float, bool, str or None
        None for a cell that pandas takes for missing, such as an empty one or ``NA``.

    Examples
    --------
    >>> label_values(["2", "10", ""]), label_values(["007", "1"]), label_values(["True", "False"])
    ([2, 10, None], ['007', '1'], [True, False])
    """
    readers: list[tuple[Callable[[str], Any], Callable[[str], bool]]] = [
        (int, lambda cell: _INT.fullmatch(cell) is not None),
        (float, lambda cell: _FLOAT.fullmatch(cell) is not None and repr(float(cell)) == cell),
        (lambda cell: cell == "True", lambda cell: cell in ("True", "False")),
    ]
    present = [cell for cell in cells if not _missing_cell(cell)]
    for read, fits in readers:
        if present and all(map(fits, present)):
            return [None if _missing_cell(cell) else read(cell) for cell in cells]
    return [None if _missing_cell(cell) else cell for cell in cells]


def text_column(cells: Sequence[str]) -> NDArray[Any]:
    """Return a CSV column as an array of the type that pandas would give it.

    Parameters
    ----------
    cells : sequence of str

    Returns
    -------
    ndarray (n,)
        int64, float64 (NaN where missing, also among whole numbers) or bool; else object,
        of str and None. Numbers with leading zeros stay text, since they are names.

    Examples
    --------
    >>> text_column(["1", "2"]), text_column(["0.5", ""]), text_column(["007", ""])
    (array([1, 2]), array([0.5, nan]), array(['007', None], dtype=object))
    """
    missing = [_missing_cell(cell) for cell in cells]
    present = [cell for cell, gone in zip(cells, missing, strict=True) if not gone]
    if all(map(_INT.fullmatch, present)) and present and not any(missing):
        return np.array([int(cell) for cell in cells], np.int64)
    if all(map(_FLOAT.fullmatch, present)):
        return np.array(
            [np.nan if gone else float(cell) for cell, gone in zip(cells, missing, strict=True)]
        )
    if set(present) <= _TRUE | _FALSE and not any(missing):
        return np.array([cell in _TRUE for cell in cells])
    return _objects([None if gone else c for c, gone in zip(cells, missing, strict=True)])


def column_array(values: Any) -> NDArray[Any]:
    """Return a column as a NumPy array of its own type.

    Parameters
    ----------
    values : ndarray, pandas Series or sequence
        An array of one dimension is returned as it is, unless it holds objects.

    Returns
    -------
    ndarray (n,)
        Of bool, int64 or float64 if all objects are, floats with NaN where a number is
        missing; else of objects, None where one is missing.

    Examples
    --------
    >>> column_array([1, None]), column_array(["a", 1])
    (array([ 1., nan]), array(['a', 1], dtype=object))
    """
    array = values if isinstance(values, np.ndarray) or not hasattr(values, "dtype") else None
    array = np.asarray(values) if array is None else array
    if isinstance(array, np.ndarray) and array.dtype != object:
        return array
    items = list(array)
    missing = [_missing_item(item) for item in items]
    present = [v for v, gone in zip(items, missing, strict=True) if not gone]
    types = {type(v.item() if isinstance(v, np.generic) else v) for v in present}
    if types == {bool} and not any(missing):
        return np.array(items, bool)
    if types == {int} and not any(missing) and max(map(abs, items)) < 2**63:
        return np.array(items, np.int64)
    if types and types <= {int, float}:
        return np.array([np.nan if gone else v for v, gone in zip(items, missing, strict=True)],
                        np.float64)  # fmt: skip
    return _objects([None if gone else v for v, gone in zip(items, missing, strict=True)])


def text_of(values: NDArray[Any]) -> list[str]:
    """Return the values of a column as text; "" where one is missing.

    Examples
    --------
    >>> text_of(np.array([1.0, 0.5, np.nan])), text_of(np.array([True, False]))
    (['1', '0.5', ''], ['True', 'False'])
    """
    return [
        "" if _missing_item(v) else f"{v:.17g}" if _is_whole(v) else str(v) for v in values.tolist()
    ]


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _missing_cell(cell: str) -> bool:
    return cell in MISSING_TEXT or cell.isspace()


def _missing_item(value: Any) -> bool:
    return not isinstance(value, (list, tuple, dict, set, np.ndarray)) and is_missing(value)


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(values), object)
    for row, value in enumerate(values):  # a list of tuples would else become a matrix
        array[row] = value
    return array
