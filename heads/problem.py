"""The optimisation problem of a linear head, and what its solutions for all C share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import get_lapack_funcs

from .base import Floats
from .groups import Codes
from .solver import Memory, minimise, new_memory
from .strength import HeldOutScores
from .sums import ROWS_PER_CHUNK, sum_of_weights
from .weights import RowWeights

if TYPE_CHECKING:
    from .linear import LinearHead

_cholesky, _invert = get_lapack_funcs(("potrf", "trtri"), dtype=np.float32)
_MAX_SCORES = 10_000_000  # held out for a temperature


class Problem:
    """The optimisation problem of a linear head, and what its solutions for all C share."""

    def __init__(
        self,
        head: LinearHead,
        rows: Floats,
        codes: NDArray[np.int64],
        k: int,
        weights: RowWeights | None = None,
        groups: Codes | None = None,
    ) -> None:
        self._groups, self._rows, self.codes = groups, rows, codes
        self._weights = RowWeights() if weights is None else weights
        loss = self._weights.loss
        total = sum_of_weights(loss, len(rows))
        self._set_up(head, k, rows.shape[1], _gram(rows, loss), total)

    def _set_up(self, head: LinearHead, k: int, width: int, gram: Floats, total: float) -> None:
        self._head, self._k, self._width = head, k, width
        self._gram, self._total = gram, total
        self._cached: tuple[float, tuple[Floats, np.float32]] | None = None

    def solve(
        self,
        C: float,
        start: Floats | None,
        tol: float,
        without: slice | None = None,
        memory: Memory | None = None,
    ) -> tuple[Floats, int]:
        """Return the coefficients (d + 1, k), intercept last, and the number of iterations."""
        head, width = self._head, self._width
        C = head._loss_weight(C, self._k)
        inverse, unit = self._preconditioner(C)

        def value_and_gradient(flat: Floats) -> tuple[float, Floats]:
            moved = flat.reshape(width + 1, self._k)
            weights, intercept = inverse.T @ moved[:-1], moved[-1] * unit
            loss, gradient = 0.0, np.zeros_like(moved)
            for rows, codes, row_weights in self._parts(without):
                scores = rows @ weights
                scores += intercept
                loss += head._loss(scores, codes, row_weights)
                gradient[:-1] += (scores.T @ rows).T  # faster than rows.T @ scores
                gradient[-1] += scores.sum(axis=0)
            gradient *= np.float32(C)
            gradient[:-1] = inverse @ (gradient[:-1] + weights)
            gradient[-1] *= unit
            penalty = 0.5 * float(np.square(weights, dtype=np.float64).sum())
            return C * loss + penalty, gradient.ravel()

        begin = np.zeros((width + 1, self._k), np.float32)
        if start is not None:
            # root.T, which is not kept, is inverse @ root @ root.T
            curved = start[:-1] + self._typical(C) * (self._gram @ start[:-1])
            begin[:-1], begin[-1] = inverse @ curved, start[-1] / unit
        memory = self._memory if memory is None else memory
        flat, steps = minimise(value_and_gradient, begin.ravel(), head.max_iter, tol, memory)
        found = flat.reshape(width + 1, self._k)
        return np.vstack([inverse.T @ found[:-1], found[-1:] * unit]), steps

    def scores(self, coefficients: Floats, fold: slice) -> Floats:
        """Return the scores of a fold's rows; with many classes, of a sample of them."""
        sample = self._sample(fold)
        return np.asarray(self._rows[sample] @ coefficients[:-1] + coefficients[-1])

    def scored(self, folds: Sequence[slice], scores: Sequence[Floats]) -> HeldOutScores:
        """Join the scores of all folds to the codes, weights and groups of their rows."""
        rows = np.concatenate([np.arange(len(self._rows))[self._sample(fold)] for fold in folds])
        groups = None if self._groups is None else self._groups[rows]
        weights = self._weights.take(rows).loss
        return HeldOutScores(np.concatenate(scores), self.codes[rows], weights, groups)

    def _sample(self, fold: slice) -> slice:
        # Bounds the memory of the scores; a sample of the rows determines the temperature.
        return slice(fold.start, fold.stop, -(-_rows_of(fold) * self._k // _MAX_SCORES))

    def _parts(
        self, without: slice | None
    ) -> Iterable[tuple[Floats, NDArray[np.int64], RowWeights]]:
        """Return views of the training rows, their codes and weights, in chunks.

        Views, since a copy would double the memory. In chunks, so that the scores are still in
        the processor's cache when the gradient is computed from them.
        """
        count = len(self._rows)
        runs = [(0, count)] if without is None else [(0, without.start), (without.stop, count)]
        parts = [
            slice(start, min(start + ROWS_PER_CHUNK, stop))
            for first, stop in runs
            for start in range(first, stop, ROWS_PER_CHUNK)
        ]
        return [(self._rows[part], self.codes[part], self._weights.take(part)) for part in parts]

    def _typical(self, C: float) -> np.float32:
        typical: np.float32 = np.float32(C * self._head._curvature(self._k))
        return typical

    def _preconditioner(self, C: float) -> tuple[Floats, np.float32]:
        """Return a preconditioner: coordinates in which the curvature is about the same everywhere.

        Columns of embeddings are correlated, which makes plain descent slow. With L the Cholesky
        factor of the typical Hessian of loss and penalty, the variables are ``L.T W``. Returns
        the inverse of L, and the corresponding factor of the intercept.
        """
        if self._cached is not None and self._cached[0] == C:
            return self._cached[1]
        self._cached = None  # freed first: a few such matrices are as large as the rows
        typical = self._typical(C)
        curved = self._gram * typical
        curved.flat[:: len(curved) + 1] += 1
        # In place: the transpose of a symmetric matrix has the column order that LAPACK needs.
        root, _ = _cholesky(curved.T, lower=1, overwrite_a=1)
        inverse, _ = _invert(root, lower=1, overwrite_c=1)
        unit = np.float32(1 / np.sqrt(max(self._total * typical, 1e-12)))
        self._cached = C, (inverse, unit)
        self._memory = new_memory()
        return self._cached[1]


def _gram(rows: Floats, weights: Floats | None) -> Floats:
    """Return the Gram matrix (d, d) of the columns, with weighted rows if there are weights."""
    if weights is None:
        return np.asarray(rows.T @ rows)
    gram: Floats = np.zeros((rows.shape[1], rows.shape[1]), np.float32)
    for start in range(0, len(rows), ROWS_PER_CHUNK):
        part = slice(start, start + ROWS_PER_CHUNK)
        gram += (rows[part] * weights[part, None]).T @ rows[part]
    return gram


def _rows_of(part: slice) -> int:
    return int(part.stop - part.start)
