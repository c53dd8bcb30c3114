"""Conversion of columns to NumPy arrays: text of a CSV file, lists and pandas columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .labels import is_missing, whole_numbers

# Text that pandas.read_csv reads as a missing value.
MISSING_TEXT = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
_INT = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,19})")
_FLOAT = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|-?inf")
_BOOLS = {"true": True, "false": False}
_INT64 = np.iinfo(np.int64)
_UINT64 = np.iinfo(np.uint64)


def label_values(cells: Sequence[str]) -> list[Any]:
    """Return the labels that a CSV column holds: ints, floats or bools, else text.

    The rules are those of `text_column`, with two more. Text becomes numbers only if
    each is written as Python writes it, so that no two labels become one: ``"1.10"`` and
    ``"+1"`` keep the column text. Floats that are all whole become ints, as in
    `labels.normalise_labels`.

    Parameters
    ----------
    cells : sequence of str

    Returns
    -------
    list of int, float, bool, str or None
        None for a cell that pandas treats as missing, such as an empty one or ``NA``.

    Examples
    --------
    >>> label_values(["2", "10", ""]), label_values(["007", "1"]), label_values(["True", "false"])
    ([2, 10, None], ['007', '1'], [True, False])
    """
    return whole_numbers(_cell_values(cells, verbatim=True))


def text_column(cells: Sequence[str]) -> NDArray[Any]:
    """Return a CSV column as an array of the type that pandas would give it.

    Unlike pandas, it changes no number: those with leading zeros stay text, since they are
    names, and so do whole numbers beyond 64 bits, or beyond a float's precision beside fractions.

    Parameters
    ----------
    cells : sequence of str

    Returns
    -------
    ndarray (n,)
        int64 or uint64, float64 (NaN where missing, also among whole numbers) or bool; else
        object: of bool and None, of int and None where float64 would change a number, or of
        str and None.

    Examples
    --------
    >>> text_column(["1", "2"]), text_column(["0.5", ""]), text_column(["007", ""])
    (array([1, 2]), array([0.5, nan]), array(['007', None], dtype=object))
    """
    return column_array(_cell_values(cells, verbatim=False))


def _cell_values(cells: Sequence[str], *, verbatim: bool) -> list[Any]:
    """Return cells as ints, floats or bools if all of them are such, else as text.

    Parameters
    ----------
    cells : sequence of str
    verbatim : bool
        Take numbers for such only if their text can be made of them again.
    """
    present = {cell for cell in cells if not _missing_cell(cell)}
    for read in (_int_of, _float_of, _bool_of):
        values = {cell: read(cell) for cell in present}
        if None in values.values():
            continue
        if verbatim and read is not _bool_of and not _keeps_text(values):
            continue
        return [values.get(cell) for cell in cells]
    return [cell if cell in present else None for cell in cells]


def _int_of(cell: str) -> int | None:
    if _INT.fullmatch(cell) is None:
        return None
    value = int(cell)
    return value if _INT64.min <= value <= _UINT64.max else None


def _float_of(cell: str) -> float | None:
    if _FLOAT.fullmatch(cell) is None:
        return None
    value = float(cell)
    if cell.lstrip("+-").isdecimal() and _int_of(cell) != value:
        return None
    return value


def _bool_of(cell: str) -> bool | None:
    return _BOOLS.get(cell.lower())


def _keeps_text(values: Mapping[str, Any]) -> bool:
    """Return whether each number is written as Python writes it, and none in two ways."""
    return len(set(values.values())) == len(values) and all(
        cell == str(value) or str(_int_of(cell)) == cell for cell, value in values.items()
    )


def column_array(values: Any) -> NDArray[Any]:
    """Return a column as a NumPy array of its own type.

    Parameters
    ----------
    values : ndarray, pandas Series or sequence
        An array of one dimension is returned as it is, unless it holds objects.

    Returns
    -------
    ndarray (n,)
        Of bool, int64, uint64 or float64 if all objects are, floats with NaN where a number
        is missing; else of objects, None where one is missing. Numbers stay objects if
        float64 would change a whole one.

    Examples
    --------
    >>> column_array([1, None]), column_array(["a", 1])
    (array([ 1., nan]), array(['a', 1], dtype=object))
    """
    array = values
    if not isinstance(values, np.ndarray) and hasattr(values, "dtype"):
        # pandas would make floats of its nullable ints where one is missing.
        extended = not isinstance(values.dtype, np.dtype)
        whole = getattr(values.dtype, "kind", "") in ("i", "u")
        array = np.asarray(values, object if extended and whole else None)
    if isinstance(array, np.ndarray) and array.dtype != object:
        return array
    items = [None if _missing_item(item) else item for item in array]
    types = {type(v.item() if isinstance(v, np.generic) else v) for v in items} - {type(None)}
    if types == {bool} and None not in items:
        return np.array(items, bool)
    return _numbers(items) if types <= {int, float} else _objects(items)


def _numbers(items: Sequence[Any]) -> NDArray[Any]:
    """Return ints, floats and None as an array of the first type that changes none of them."""
    present = [item for item in items if item is not None]
    whole = [int(item) for item in present if not isinstance(item, (float, np.floating))]
    if len(whole) == len(items) > 0:
        for limits in (_INT64, _UINT64):
            if limits.min <= min(whole) and max(whole) <= limits.max:
                return np.array(items, limits.dtype)
    if all(_is_float(number) for number in whole):
        return np.array([np.nan if item is None else item for item in items], np.float64)
    return _objects(items)


def _is_float(number: int) -> bool:
    try:
        return float(number) == number
    except OverflowError:
        return False


def text_of(values: NDArray[Any]) -> list[str]:
    """Return the values of a column as text.

    Parameters
    ----------
    values : ndarray (n,)

    Returns
    -------
    list of str
        "" for a missing value; integral floats without a decimal point.

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
    return cell in MISSING_TEXT or is_missing(cell)


def _missing_item(value: Any) -> bool:
    return not isinstance(value, (list, tuple, dict, set, np.ndarray)) and is_missing(value)


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(values), object)
    for row, value in enumerate(values):  # a list of tuples would else become a matrix
        array[row] = value
    return array
