"""The number formats of stored rows.

A spec that does not name one has rows of float32: those written before there was a choice, and
all that are written without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

RowDtype = Literal["float32", "float16"]
ROW_DTYPES: tuple[RowDtype, ...] = get_args(RowDtype)
DEFAULT_ROW_DTYPE: RowDtype = "float32"
COMPONENT = "row_dtype"
_DTYPES: Mapping[str, np.dtype[np.floating[Any]]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
}

Rows = NDArray[np.floating[Any]]


def row_dtype(components: Mapping[str, Any]) -> np.dtype[np.floating[Any]]:
    """Return the dtype of the rows of a spec, little-endian.

    Parameters
    ----------
    components : mapping
        Those of a `BackboneSpec`; possibly of an untrusted file.

    Raises
    ------
    ValueError
        If it is none of `ROW_DTYPES`.

    Examples
    --------
    >>> row_dtype({}), row_dtype({"row_dtype": "float16"})
    (dtype('float32'), dtype('float16'))
    """
    name = components.get(COMPONENT, DEFAULT_ROW_DTYPE)
    if name not in ROW_DTYPES:
        raise ValueError(f"its rows are of type {str(name)[:40]}, not {' or '.join(ROW_DTYPES)}")
    return _DTYPES[name]


def is_out_of_range(rows: Rows, dtype: np.dtype[np.floating[Any]]) -> NDArray[np.bool_]:
    """Return for each row whether a finite value of it is too large for a dtype.

    Such a value would be stored as infinity.

    Examples
    --------
    >>> is_out_of_range(np.array([[1, -7e4], [6e4, np.inf]], np.float32), np.dtype(np.float16))
    array([ True, False])
    """
    if dtype.itemsize >= rows.dtype.itemsize:
        return np.zeros(len(rows), bool)
    largest = float(np.finfo(dtype).max)
    return np.asarray((np.isfinite(rows) & (np.abs(rows) > largest)).any(axis=1))
