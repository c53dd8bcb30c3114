"""Conversion of rows to the dtype in which a store holds them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import StoreMismatch
from ..hdf5.row_dtype import Rows, is_out_of_range


def to_stored_dtype(rows: Rows, dtype: np.dtype[np.floating[Any]]) -> Rows:
    """Return rows rounded to the dtype of a store.

    Raises
    ------
    StoreMismatch
        If a finite value is too large for it, and would become infinite.
    """
    if is_out_of_range(rows, dtype).any():
        largest = np.abs(rows[np.isfinite(rows)]).max()
        raise StoreMismatch(
            f"A value of the rows is {largest:.6g}, but the store holds {dtype}, whose largest "
            f"value is {np.finfo(dtype).max:.6g}. Use row_dtype='float32'.",
            stored=dtype.name,
            requested=rows.dtype.name,
        )
    return rows.astype(dtype, copy=False)
