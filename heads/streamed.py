"""Training of linear heads on rows that do not fit in memory.

Each evaluation of the loss reads all rows once, in blocks; the solver is the one that trains in
memory. C is chosen on a sample that fits, where training starts as well, and the temperature is
fitted on rows that are held out of training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featcache.toolkit import format_count, get_logger

from .base import Floats, Head, unfitted
from .blocks import Block, Codes, RowBlocks
from .calibration import fit_temperature, prior_temperature
from .problem import ROWS_PER_CHUNK, Problem
from .scaling import CONSTANT, StandardScaler
from .weights import RowWeights

if TYPE_CHECKING:
    from .linear import LinearHead

log = get_logger(__name__)

_HELD_OUT = 10_000  # rows determine a temperature by far
_HELD_OUT_FRACTION = 0.1


class _Moments(NamedTuple):
    """Sums over all rows.

    Attributes
    ----------
    scale : StandardScaler
    gram : ndarray (d, d), float32
        Of the standardised columns, with the weights of the loss.
    total : float
        Sum of the weights of the loss.
    """

    scale: StandardScaler
    gram: Floats
    total: float


class _StreamedProblem(Problem):
    """The optimisation problem of a linear head on blocks of rows."""

    def __init__(self, head: LinearHead, blocks: RowBlocks, moments: _Moments, k: int) -> None:
        self._blocks, self._scale = blocks, moments.scale
        self._set_up(head, k, blocks.width, moments.gram, moments.total)

    def _parts(self, without: slice | None) -> Iterator[tuple[Floats, Codes, RowWeights]]:
        for rows, codes, weights in self._blocks:
            rows -= self._scale.mean
            rows /= self._scale.scale
            for start in range(0, len(rows), ROWS_PER_CHUNK):
                part = slice(start, start + ROWS_PER_CHUNK)
                yield rows[part], codes[part], weights.take(part)


def fit_streamed(head: LinearHead, blocks: RowBlocks, groups: Codes | None) -> None:
    """Train a linear head on blocks of rows; set its fitted attributes.

    Parameters
    ----------
    head : LinearHead
        With `classes_`.
    blocks : RowBlocks
    groups : ndarray (n,) of int64, optional
        Number of the group of each row.
    """
    log.info(
        "%s: %s of width %d are read in blocks of %s, once per iteration",
        type(head).__name__, format_count(len(blocks), "row"), blocks.width,
        format_count(blocks.block_rows, "row"),
    )  # fmt: skip
    shuffled = shuffled_rows(blocks.codes, groups)
    held_out = (
        held_out_rows(blocks.codes, groups, shuffled) if head.calibration_folds else shuffled[:0]
    )
    train = blocks.without(held_out)
    sample = np.sort(shuffled[train.codes[shuffled] >= 0][: blocks.block_rows])
    first = _fitted_on(head, train, sample, groups)
    moments = _moments(train, sample)
    problem = _StreamedProblem(head, train, moments, len(head.classes_))
    head.C_ = head.default_strength if first is None else first.C_
    start = None if first is None else _start(first, moments.scale, len(head.classes_))
    found, head.n_iter_ = problem.solve(head.C_, start, head.tol)
    head.coef_, head.intercept_ = moments.scale.fold(found[:-1].T, found[-1])
    if len(held_out):
        rows, codes, weights = blocks.take(held_out)
        head.temperature_ = fit_temperature(head._scores(rows), codes, weights.loss)
    elif head.calibration_folds:
        head.temperature_ = temperature_of_training(head, blocks.take(sample))


def temperature_of_training(head: Head, block: Block) -> float:
    """Return a temperature from rows that were trained on, if no group can be held out.

    At least that of the prior: rows that are fewer than columns say nothing of the errors.
    """
    scores, loss = head._scores(block.rows), block.weights.loss
    return max(
        fit_temperature(scores, block.codes, loss), prior_temperature(scores, block.codes, loss)
    )


def shuffled_rows(codes: Codes, groups: Codes | None) -> Codes:
    """Return the used rows in random order, those of a group side by side."""
    used = np.flatnonzero(codes >= 0)
    generator = np.random.default_rng(0)
    if groups is None:
        return generator.permutation(used)
    place = generator.permutation(int(groups.max()) + 1)
    return used[np.argsort(place[groups[used]], kind="stable")]


def held_out_rows(codes: Codes, groups: Codes | None, shuffled: Codes) -> Codes:
    """Return sorted rows for the temperature: whole groups, and no class as a whole."""
    count = min(_HELD_OUT, int(len(shuffled) * _HELD_OUT_FRACTION))
    chosen = shuffled[:count]
    if groups is not None:
        sizes = np.bincount(groups[shuffled])
        fitting = shuffled[sizes[groups[shuffled]] <= count]  # no giant group
        if count < len(fitting):
            while count and groups[fitting[count - 1]] == groups[fitting[count]]:
                count -= 1
        chosen = fitting[:count]
    kept = np.unique(codes[np.setdiff1d(shuffled, chosen)])
    chosen = chosen[np.isin(codes[chosen], kept)]
    return np.sort(chosen)


def _fitted_on(
    head: LinearHead, blocks: RowBlocks, sample: Codes, groups: Codes | None
) -> LinearHead | None:
    """Return a head that is trained on a sample of the rows; None if that is of one class."""
    rows, codes, weights = blocks.take(sample)
    if len(np.unique(codes)) < 2:
        return None
    first = unfitted(head)
    first.set_params(class_weight=None)  # the weights have it already
    return first.fit(rows, codes, weights.loss, None if groups is None else groups[sample])


def _start(first: LinearHead, scale: StandardScaler, k: int) -> Floats:
    """Return the coefficients (d + 1, k) of a head for standardised columns."""
    start = np.zeros((len(scale.mean) + 1, k), np.float32)
    start[-1] = first.intercept_.min() if len(first.classes_) < k else 0.0
    start[:-1, first.classes_] = (first.coef_ * scale.scale).T
    start[-1, first.classes_] = first.intercept_ + first.coef_ @ scale.mean
    return start


def _moments(blocks: RowBlocks, sample: Codes) -> _Moments:
    """Return means, deviations and the Gram matrix of the columns, in one pass.

    About the mean of a sample, so that columns with a large mean lose no digits.
    """
    shift = blocks.take(sample).rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    sums = _Sums(blocks.width)
    for rows, _, weights in blocks:
        rows -= shift
        sums.add(rows, weights)
    mean = sums.first / sums.sample_total
    std = np.sqrt(np.maximum(sums.second / sums.sample_total - np.square(mean), 0.0))
    centre = shift + mean
    std[std <= CONSTANT * np.abs(centre)] = 1.0
    scale = StandardScaler.of_moments(centre, np.where(std == 0, 1.0, std))
    cross = np.outer(sums.loss_first, mean)
    gram = sums.gram - cross - cross.T + sums.loss_total * np.outer(mean, mean)
    gram /= np.outer(std, std)
    return _Moments(scale, gram.astype(np.float32), sums.loss_total)


class _Sums:
    """Weighted sums of rows, their squares and their products, in float64."""

    def __init__(self, width: int) -> None:
        self.first: NDArray[np.float64] = np.zeros(width)
        self.second: NDArray[np.float64] = np.zeros(width)
        self.loss_first: NDArray[np.float64] = np.zeros(width)
        self.gram: NDArray[np.float64] = np.zeros((width, width))
        self.sample_total = self.loss_total = 0.0

    def add(self, rows: Floats, weights: RowWeights) -> None:
        for start in range(0, len(rows), ROWS_PER_CHUNK):
            part = slice(start, start + ROWS_PER_CHUNK)
            self._add(rows[part], weights.take(part))

    def _add(self, rows: Floats, weights: RowWeights) -> None:
        ones = np.ones(len(rows), np.float32)
        sample = ones if weights.sample is None else weights.sample
        loss = ones if weights.loss is None else weights.loss
        self.first += sample.astype(np.float64) @ rows
        self.second += sample.astype(np.float64) @ np.square(rows, dtype=np.float64)
        self.loss_first += loss.astype(np.float64) @ rows
        self.gram += (rows * loss[:, None]).T @ rows
        self.sample_total += float(sample.sum(dtype=np.float64))
        self.loss_total += float(loss.sum(dtype=np.float64))
