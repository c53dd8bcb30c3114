"""Training of LightGBM on rows that do not fit in memory.

They are read twice: for the principal axes, and to be reduced to them and divided into the bins
that LightGBM trains on, which stay in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featcache.toolkit import format_count, get_logger

from .blocks import RowBlocks
from .calibration import MIN_HELD_OUT, fit_temperature
from .groups import Codes, count_groups
from .held_out import held_out_part
from .streamed import HELD_OUT, held_out_rows, shuffled_rows, temperature_of_training
from .sums import RowSums, principal_axes
from .weights import RowWeights

if TYPE_CHECKING:
    from .lightgbm import LightGBMHead

log = get_logger(__name__)

# A class needs as many rows, or groups of rows, for any to be held out.
MIN_PER_CLASS = 3
# Rows that determine the bounds of the bins, as in LightGBM, and what a value takes while they do.
_BINNED_ROWS = 200_000
_BYTES_PER_VALUE = 28
# Measured: the bins of a value, in two orders, and the gradients and scores of a row and class.
_BINS, _PER_CLASS = 2.5, 24


def bytes_of_trees(count: int, components: int, classes: int) -> int:
    """Return how much memory LightGBM takes for reduced rows and what it computes for each."""
    return int(count * (_BINS * components + _PER_CLASS * classes))


def fit_streamed_trees(head: LightGBMHead, blocks: RowBlocks, groups: Codes | None) -> None:
    """Train LightGBM on blocks of rows; set the fitted attributes of a head with `classes_`.

    Parameters
    ----------
    head : LightGBMHead
    blocks : RowBlocks
    groups : ndarray (n,) of int64, optional
        Number of the group of each row.
    """
    from . import booster

    log.info(
        "LightGBM: %s of width %d are read twice, in blocks of %s",
        format_count(len(blocks), "row"), blocks.width, format_count(blocks.block_rows, "row"),
    )  # fmt: skip
    sums = RowSums(blocks.width)
    for block in blocks:
        sums.add(block._replace(weights=RowWeights()))
    head.mean_, head.components_ = principal_axes(sums, head.n_components)
    del sums
    train, held_out = split_rows(head, blocks, groups)
    sample = _sample(head, blocks, train)
    params = head._parameters(len(train))
    binned = np.concatenate([head._reduce(b.rows) for b in blocks.parts_of(sample)])
    bins = booster.matrix_data(binned, blocks.codes[sample], None, params=params).construct()
    data = booster.block_data(blocks, train, head._reduce, bins, params)
    valid = None
    if head.patience and len(held_out):
        valid = booster.block_data(blocks, held_out, head._reduce, bins, params)
    head._use(booster.boost(data, valid, params, head.n_estimators, head.patience))
    head.temperature_ = temperature(head, blocks, groups, held_out, train)


def split_rows(head: LightGBMHead, blocks: RowBlocks, groups: Codes | None) -> tuple[Codes, Codes]:
    """Return sorted rows to train on, and those that are held out."""
    used = np.flatnonzero(blocks.codes >= 0)
    held_out = used[
        held_out_part(
            blocks.codes[used], head.validation_fraction, head._seed,
            None if groups is None else groups[used], min_per_class=MIN_PER_CLASS,
        )
    ]  # fmt: skip
    if not len(held_out):
        held_out = held_out_rows(blocks.codes, groups, shuffled_rows(blocks.codes, groups))
    return np.setdiff1d(used, held_out, assume_unique=True), held_out


def some_of(rows: Codes, count: int, seed: int) -> Codes:
    """Return sorted rows, a random sample if there are more than `count`."""
    if len(rows) <= count:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def _sample(head: LightGBMHead, blocks: RowBlocks, train: Codes) -> Codes:
    """Return sorted rows that determine the bounds of the bins."""
    components = len(head.components_)
    # The memory of the bins is free until their bounds are known.
    free = bytes_of_trees(len(train), components, len(head.classes_))
    count = min(_BINNED_ROWS, max(1, free // (_BYTES_PER_VALUE * components)))
    return some_of(train, count, head._seed)


def temperature(
    head: LightGBMHead, blocks: RowBlocks, groups: Codes | None, held_out: Codes, train: Codes
) -> float:
    """Return the temperature by rows that were held out or, if these are too few, by others."""
    if count_groups(groups, held_out) < MIN_HELD_OUT:
        return temperature_of_training(
            head, blocks.take(some_of(train, blocks.block_rows, head._seed))
        )
    held_out = some_of(held_out, HELD_OUT, head._seed)
    scores, weights = blocks.scores_of(held_out, head._scores), blocks.weights.take(held_out)
    return fit_temperature(scores, blocks.codes[held_out], weights.loss)
