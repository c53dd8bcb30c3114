"""Training of linear heads on rows that do not fit in memory.

Each evaluation of the loss reads all rows once, in blocks; the solver is the one that trains in
memory. C is chosen on a sample that fits, where training starts as well, and the temperature is
fitted on rows that are held out of training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from featcache.toolkit import format_count, get_logger

from .base import Floats, Head, unfitted
from .blocks import Block, Codes, RowBlocks
from .calibration import fit_temperature, prior_temperature
from .problem import Problem
from .scaling import CONSTANT, StandardScaler
from .sums import ROWS_PER_CHUNK, Doubles, RowSums, sum_of_weights
from .weights import RowWeights

if TYPE_CHECKING:
    from .linear import LinearHead

log = get_logger(__name__)

HELD_OUT = 10_000  # rows determine a temperature by far
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
    moments = _moments(train)
    problem = _StreamedProblem(head, train, moments, len(head.classes_))
    head.C_ = head.default_strength if first is None else first.C_
    start = None if first is None else _start(first, moments.scale, len(head.classes_))
    found, head.n_iter_ = problem.solve(head.C_, start, head.tol)
    head.coef_, head.intercept_ = moments.scale.fold(found[:-1].T, found[-1])
    if len(held_out):
        scores, weights = blocks.scores_of(held_out, head._scores), blocks.weights.take(held_out)
        head.temperature_ = fit_temperature(scores, blocks.codes[held_out], weights.loss)
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
    count = min(HELD_OUT, int(len(shuffled) * _HELD_OUT_FRACTION))
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


def _moments(blocks: RowBlocks) -> _Moments:
    """Return means, deviations and the Gram matrix of the columns, in one pass."""
    sums = _Sums(blocks.width)
    for block in blocks:
        sums.add(block)
    mean = sums.sample_first / sums.sample_total
    std = np.sqrt(np.maximum(sums.sample_second / sums.sample_total - np.square(mean), 0.0))
    centre = sums.shifted(mean)
    std[(std <= CONSTANT * np.abs(centre)) | (std == 0)] = 1.0
    gram = sums.products(mean, in_place=True)
    gram /= std[:, None]
    gram /= std
    return _Moments(StandardScaler.of_moments(centre, std), gram.astype(np.float32), sums.total)


class _Sums(RowSums):
    """Sums over rows with the weights of the loss, and with those of the samples."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.sample_total = 0.0
        self.sample_first: Doubles = np.zeros(width)
        self.sample_second: Doubles = np.zeros(width)

    def _add(self, rows: Floats, codes: Codes, weights: RowWeights) -> Floats:
        weighted = super()._add(rows, codes, weights)
        sampled = rows if weights.sample is None else rows * weights.sample[:, None]
        self.sample_total += sum_of_weights(weights.sample, len(rows))
        self.sample_first += sampled.sum(axis=0, dtype=np.float64)
        self.sample_second += np.einsum("ij,ij->j", sampled, rows)
        return weighted
