"""Ridge regression to the classes: one pass over the rows, solved in closed form."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from featcache.toolkit import get_logger

from .base import Floats
from .blocks import Codes, MemoryLimit, RowBlocks
from .calibration import (
    MIN_HELD_OUT,
    choose_temperature,
    fit_temperature,
    log_losses,
    prior_temperature,
)
from .groups import count_groups
from .held_out import held_out_part
from .linear_scores import LinearScoresHead
from .parameters import Interval, check_parameters
from .scaling import CONSTANT
from .streamed import held_out_rows, shuffled_rows, temperature_of_training
from .sums import Doubles, RowSums
from .weights import ClassWeight, RowWeights

log = get_logger(__name__)

# Values of "auto", relative to the sum of weights; the columns have standard deviation 1.
_ALPHAS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_DEFAULT_ALPHA = 0.3  # with too few rows to choose
_HELD_OUT = 0.1
_MIN_PER_CLASS = 2
_LOG_LOSS_WEIGHT = 0.25  # relative to the error rate
_BLOCK_BYTES = 2**28


class RidgeHead(LinearScoresHead):
    """Ridge regression to indicators of the classes, on standardised embeddings.

    The problem of `sklearn.linear_model.RidgeClassifier`, solved in closed form from sums over the
    rows: they are read once, however many there are. The probabilities are a softmax of the
    predicted indicators with a temperature fitted on held-out rows.

    Parameters
    ----------
    alpha : float or "auto"
        Strength of the L2 penalty, as in scikit-learn. "auto" chooses it by held-out rows among
        0.001 to 3 times the number of rows; with fewer than 500 it is 0.3 times their number.
    class_weight : {None, "balanced"} or dict
        Weight of each label; "balanced" gives all classes the same total weight.
    memory_limit : int or str, optional
        Bytes, or a text such as "2G", that training on rows of a store or of a `numpy.memmap` may
        take; if all of them take more, they are read in blocks. Default: half the free memory.

    Attributes
    ----------
    coef_ : ndarray (k, d), float32
        Weights for unscaled embeddings.
    intercept_ : ndarray (k,), float32
    alpha_ : float
        The value of `alpha` that was used.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
    >>> RidgeHead().fit(X, X[:, 0] > 0).predict(X).shape
    (40,)
    """

    def __init__(
        self,
        alpha: float | Literal["auto"] = "auto",
        class_weight: ClassWeight = None,
        memory_limit: MemoryLimit = None,
    ) -> None:
        self.alpha = alpha
        self.class_weight = class_weight
        self.memory_limit = memory_limit

    def _bytes_besides_blocks(self, count: int, width: int) -> int:
        # The products of the columns and a copy that is factored; those with the classes.
        return 20 * width**2 + 40 * width * len(self.classes_)

    def _fit_blocks(self, blocks: RowBlocks, groups: Codes | None) -> None:
        shuffled = shuffled_rows(blocks.codes, groups)
        held_out = held_out_rows(blocks.codes, groups, shuffled)
        self._train(blocks, held_out)
        if not len(held_out):
            sample = blocks.take(np.sort(shuffled[: blocks.block_rows]))
            self.temperature_ = temperature_of_training(self, sample)

    def _check_parameters(self) -> None:
        if self.alpha != "auto":
            check_parameters(self, {"alpha": Interval(0, 1e12)})

    def _fit_codes(
        self, X: Floats, codes: Codes, weights: RowWeights, groups: Codes | None
    ) -> None:
        self._check_parameters()
        blocks = RowBlocks(X, codes, weights, _BLOCK_BYTES)
        held_out = held_out_part(codes, _HELD_OUT, 0, groups, min_per_class=_MIN_PER_CLASS)
        if count_groups(groups, held_out) < MIN_HELD_OUT:
            held_out = held_out[:0]
        self._train(blocks, held_out)
        if count_groups(groups, np.arange(len(codes))) < MIN_HELD_OUT:
            # Half of so few rows give scores of another scale than all of them do.
            self.temperature_ = prior_temperature(self._scores(X), codes, weights.loss)
        elif not len(held_out):
            self.temperature_ = choose_temperature(
                codes, held_out, lambda rows: self._scores(X[rows]),
                lambda train, scored: self._trained_on(blocks, train)._scores(X[scored]),
                weights=weights.loss, groups=groups,
            )  # fmt: skip

    def _train(self, blocks: RowBlocks, held_out: Codes) -> None:
        """Set the coefficients, and alpha and the temperature by the held-out rows."""
        sums = _Sums(blocks.without(held_out), len(self.classes_))
        choose = self.alpha == "auto"
        if not len(held_out):
            self.alpha_ = _DEFAULT_ALPHA * sums.total if choose else float(self.alpha)
            self.coef_, self.intercept_ = sums.solve(self.alpha_)
            return
        tried = [alpha * sums.total for alpha in _ALPHAS] if choose else [float(self.alpha)]
        trials = [(_trial(sums, alpha, blocks, held_out), alpha) for alpha in tried]
        (_, self.temperature_), alpha = min(trials)
        before = sums.total
        for block in blocks.parts_of(held_out):
            sums.add(block)
        # The penalty of each row's share stays the same.
        self.alpha_ = alpha * sums.total / before if choose else alpha
        self.coef_, self.intercept_ = sums.solve(self.alpha_)

    def _trained_on(self, blocks: RowBlocks, rows: Codes) -> RidgeHead:
        """Return a head with the same parameters and classes that is trained on some rows."""
        head = RidgeHead(**self.get_params())
        head.classes_ = self.classes_
        others = np.setdiff1d(np.arange(len(blocks)), rows)
        head._train(blocks.without(others), others[:0])
        return head


def _trial(sums: _Sums, alpha: float, blocks: RowBlocks, held_out: Codes) -> tuple[float, float]:
    """Return the loss of a value of alpha on held-out rows, and their temperature."""
    coefficients, intercept = sums.solve(alpha)
    scores = blocks.scores_of(held_out, lambda rows: rows @ coefficients.T + intercept)
    codes, weights = blocks.codes[held_out], blocks.weights.take(held_out).loss
    temperature = fit_temperature(scores, codes, weights)
    wrong = scores.argmax(axis=1) != codes
    losses = wrong + _LOG_LOSS_WEIGHT * log_losses(scores, codes, temperature)
    return float(np.average(losses, weights=weights)), temperature


class _Sums(RowSums):
    """All that ridge regression needs: sums over rows, and over those of each class.

    Parameters
    ----------
    blocks : RowBlocks
    k : int
        Number of classes.
    """

    def __init__(self, blocks: RowBlocks, k: int) -> None:
        super().__init__(blocks.width)
        self._cross: Doubles = np.zeros((blocks.width, k))
        self._counts: Doubles = np.zeros(k)
        for block in blocks:
            self.add(block)

    def _add(self, rows: Floats, codes: Codes, weights: RowWeights) -> Floats:
        weighted = super()._add(rows, codes, weights)
        indicators = np.zeros((len(rows), len(self._counts)), np.float32)
        indicators[np.arange(len(rows)), codes] = 1
        self._cross += weighted.T @ indicators
        self._counts += np.bincount(codes, weights.loss, len(self._counts))
        return weighted

    def solve(self, alpha: float) -> tuple[Floats, Floats]:
        """Return the coefficients (k, d) and intercepts (k,) for columns that are not scaled."""
        mean, share = self.mean(), self._counts / self.total
        gram, centre = self.products(mean), self.shifted(mean)
        std = np.sqrt(np.maximum(gram.diagonal() / self.total, 0.0))
        std[(std <= CONSTANT * np.abs(centre)) | (std == 0)] = np.inf  # its weights are 0
        gram /= std[:, None]
        gram /= std
        gram.flat[:: len(gram) + 1] += alpha
        cross = (self._cross - np.outer(self._first, share)) / std[:, None]
        # The transpose of a symmetric matrix has the column order that LAPACK needs.
        factor = cho_factor(gram.T, lower=True, overwrite_a=True, check_finite=False)
        coefficients = (cho_solve(factor, cross, check_finite=False) / std[:, None]).T
        intercept = share - coefficients @ centre
        return coefficients.astype(np.float32), intercept.astype(np.float32)
