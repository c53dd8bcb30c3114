"""Data and training of LightGBM. The only module that imports it, besides that for clusters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from .base import Floats
from .blocks import RowBlocks

Rows = NDArray[np.int64]


def matrix_data(
    rows: Floats,
    codes: Rows,
    weights: Floats | None,
    reference: lightgbm.Dataset | None = None,
    params: dict[str, Any] | None = None,
) -> lightgbm.Dataset:
    """Return rows in memory, to train on or, with a reference, to stop early by."""
    return lightgbm.Dataset(
        rows, codes, weight=weights, reference=reference, params=params or {"verbosity": -1},
        free_raw_data=False,
    )  # fmt: skip


def block_data(
    blocks: RowBlocks,
    rows: Rows,
    reduced: Callable[[Floats], Floats],
    reference: lightgbm.Dataset,
    params: dict[str, Any],
) -> lightgbm.Dataset:
    """Return rows on disk, of which only the bins of their reduced columns are in memory.

    The bounds of the bins are those of the reference. Otherwise LightGBM would ask for the rows
    of a sample one by one.
    """
    return lightgbm.Dataset(
        _Reduced(blocks, rows, reduced), blocks.codes[rows],
        weight=blocks.weights.take(rows).loss, reference=reference, params=params,
    ).construct()  # fmt: skip


def boost(
    data: lightgbm.Dataset,
    valid: lightgbm.Dataset | None,
    params: dict[str, Any],
    n_estimators: int,
    patience: int,
) -> lightgbm.Booster:
    """Return trees that were trained on data; with other data, stop early by their loss."""
    if valid is None:
        return lightgbm.train(params, data, n_estimators)
    stop = lightgbm.early_stopping(patience, verbose=False)
    return lightgbm.train(params, data, n_estimators, valid_sets=[valid], callbacks=[stop])


class _Reduced(lightgbm.Sequence):  # type: ignore[misc]
    """Rows on disk in the form that LightGBM reads in batches."""

    def __init__(self, blocks: RowBlocks, rows: Rows, reduced: Callable[[Floats], Floats]) -> None:
        self._blocks, self._rows, self._reduced = blocks, rows, reduced
        self.batch_size = blocks.block_rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, part: slice) -> Floats:
        return self._reduced(self._blocks.take(self._rows[part]).rows)
