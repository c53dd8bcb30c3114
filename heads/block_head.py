"""Base class of heads that train on rows beyond memory, which are read from disk in blocks."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import column_or_1d

from .arguments import as_features, check_lengths, labelled_rows
from .base import Head
from .blocks import MemoryLimit, RowBlocks, block_bytes, exceeds, limit_bytes
from .groups import Codes, needed_groups
from .weights import RowWeights, row_weights, spread

if TYPE_CHECKING:
    from featcache import Features

BlockT = TypeVar("BlockT", bound="BlockHead")


class BlockHead(Head):
    """Base class of heads that train in memory or, beyond it, in blocks.

    Subclasses have the parameter ``memory_limit``, and define training in memory (`_fit_codes`)
    and in blocks (`_fit_blocks`), how much memory the latter takes, and the checks of their
    parameters.
    """

    # Of all rows, when it trains in memory.
    _copies: ClassVar[int] = 2

    memory_limit: MemoryLimit

    def fit(
        self: BlockT,
        X: Features | ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> BlockT:
        """Train on embeddings; see `Head.fit`.

        Rows of features or of a `numpy.memmap` that do not fit in `memory_limit` are read in
        blocks. The temperature is then fitted on at most 10,000 rows that are not trained on, and
        equal rows are not merged: copies of a photo are of one group by default, and rows of a
        `numpy.memmap` are if you give `groups`. Logistic regression and SVM read all rows once per
        iteration, and choose ``C="auto"`` on a sample of them; ridge regression reads them once,
        and LightGBM twice.
        """
        limit = limit_bytes(self.memory_limit)
        features = as_features(X)
        if not self.is_exceeded_by(X if features is None else features.X):
            super().fit(X, y, sample_weight, groups)
            return self
        self._check_parameters()
        rows, codes, weights, numbers = self._labelled_positions(X, y, sample_weight, groups)
        count, width = len(codes), int(rows.shape[1])
        left = block_bytes(limit, self._bytes_besides_blocks(count, width), count, width)
        self._fit_blocks(RowBlocks(rows, codes, weights, left), numbers)
        return self

    def is_exceeded_by(self, X: Any) -> bool:
        """Return whether rows on disk take more than the limit when they are trained on at once."""
        return exceeds(X, limit_bytes(self.memory_limit), self._copies)

    @abstractmethod
    def _check_parameters(self) -> None:
        """Raise `InvalidRequest` if a parameter is out of range."""

    @abstractmethod
    def _bytes_besides_blocks(self, count: int, width: int) -> int:
        """Return how much memory training on blocks takes besides these, with `classes_` set."""

    @abstractmethod
    def _fit_blocks(self, blocks: RowBlocks, groups: Codes | None) -> None:
        """Train on blocks of rows, with the number of each row's group."""

    def _labelled_positions(
        self, X: Any, y: Any, sample_weight: Any, groups: Any
    ) -> tuple[Any, Codes, RowWeights, Codes | None]:
        """Return rows on disk with their codes, weights and groups, unread; set `classes_`.

        The code of a row that is not used is -1.
        """
        features = as_features(X)
        self._feature_classes = None
        if features is not None:
            self._feature_classes = features.classes if y is None else None
            y = features.y if y is None else y
            groups = features.ids if groups is None else groups
            X = features.X
        positions = np.arange(len(X))[:, None]
        used, y, sample_weight, numbers = labelled_rows(
            type(self).__name__, positions, y, sample_weight, groups
        )
        check_lengths(used, y)
        kept, codes, sample = self._encode(np.asarray(column_or_1d(y)), sample_weight)
        self.n_features_in_ = int(X.shape[1])
        rows = used[kept, 0]
        weights = row_weights(self.class_weight, self.classes_, codes, sample)
        numbers = None if numbers is None else needed_groups(numbers[kept])
        every = np.full(len(X), -1, np.int64)
        every[rows] = codes
        return (
            X, every, weights.spread(rows, len(X)),
            None if numbers is None else spread(numbers, rows, len(X)),
        )  # fmt: skip
