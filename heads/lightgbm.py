"""Gradient-boosted trees by LightGBM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from featcache import ClassifierStep
from featcache.errors import InvalidRequest
from featcache.toolkit import SharedChange, get_logger

from .arguments import as_features
from .base import Floats, RandomState, integer_seed
from .block_head import BlockHead
from .blocks import MemoryLimit, RowBlocks, limit_bytes
from .calibration import choose_temperature
from .cluster import check_arguments, fit_on_cluster
from .groups import Codes
from .held_out import held_out_part
from .parameters import Integers, Interval, check_parameters
from .streamed_trees import MIN_PER_CLASS, bytes_of_trees, fit_streamed_trees
from .sums import Axes
from .threads import threads_for_idle_cores
from .trees import tree_arrays
from .weights import ClassWeight, RowWeights

if TYPE_CHECKING:
    from featcache import Features

# LightGBM keeps 16 bytes per row and class: 10,000 classes of two rows would take 3 GB.
_MAX_CLASSES = 2000
log = get_logger(__name__)

# Heads that are trained in several threads at the same time share the limit.
_blas_threads = SharedChange(lambda count: threadpool_limits(count, "blas"))

Rows = NDArray[np.int64]

# Rows x classes. Measured: two threads take as long as one at 17,000, two thirds at 600,000.
_SCORES_PER_THREAD = 50_000
_VALUES_PER_THREAD = 1_000_000

_PARAMETERS: dict[str, Integers | Interval] = {
    "n_components": Integers(1),
    "n_estimators": Integers(1),
    "learning_rate": Interval(0),
    "num_leaves": Integers(2),
    "feature_fraction": Interval(0, 1, closed_high=True),
    "reg_lambda": Interval(0, closed_low=True),
    "patience": Integers(0),
    "validation_fraction": Interval(0, 1),
}


class LightGBMHead(BlockHead):
    """LightGBM on the leading principal components of an embedding.

    Trees on raw embeddings are slow and inaccurate: with 101 classes and 1,280 columns, the
    defaults of LightGBM diverge. The defaults here are few columns, small trees with random
    thresholds (extremely randomised trees, Geurts et al. 2006, doi:10.1007/s10994-006-6226-1),
    a low learning rate and strong regularisation. Each round grows one tree per class, so the
    model has up to ``n_estimators * classes`` trees.

    Parameters
    ----------
    n_components : int
        Number of principal components; fewer if the data have fewer rows or columns.
    n_estimators : int
        Maximum number of boosting rounds; early stopping ends training sooner.
    learning_rate : float
        Factor of the contribution of each tree.
    num_leaves : int
        Maximum number of leaves per tree.
    feature_fraction : float
        Fraction of the columns that each tree uses, 0 to 1.
    extra_trees : bool
        Try one random threshold per column instead of all.
    reg_lambda : float
        L2 penalty of the values of the leaves.
    patience : int
        Number of rounds without a lower held-out log loss after which training stops; 0 turns
        early stopping off.
    validation_fraction : float
        Fraction of the training rows that are held out for early stopping and the temperature.
        If these are fewer than 50, the temperature is fitted by cross-validation.
    class_weight : {None, "balanced"} or dict
        Weight of each label; "balanced" gives all classes the same total weight.
    random_state : int, numpy.random.RandomState or None
        Seed of the held-out rows, the columns and the thresholds.
    n_jobs : int, optional
        Number of threads. Default: the number of cores that other processes leave idle when
        training starts, or one if there are few rows and classes. The result is the same with
        any number.
    memory_limit : int or str, optional
        Bytes, or a text such as "2G", that training on rows of a store or of a `numpy.memmap` may
        take; if all of them take more, they are read in blocks. What LightGBM keeps of all rows
        counts too, 2 to 3 bytes per component and 24 per class for each row; a limit below that is
        an error. Default: half the free memory.

    Attributes
    ----------
    booster_ : lightgbm.Booster
    components_ : ndarray (c, d), float32
        Principal axes, scaled so that each component has standard deviation 1.
    mean_ : ndarray (d,), float32
        Mean of the training embeddings.
    best_iteration_ : int
        Number of boosting rounds that are used.

    Examples
    --------
    >>> LightGBMHead(n_estimators=100)
    LightGBMHead(n_estimators=100)
    """

    _copies = 4  # two for the principal components, and their own columns

    def __init__(
        self,
        n_components: int = 128,
        n_estimators: int = 300,
        learning_rate: float = 0.1,
        num_leaves: int = 4,
        feature_fraction: float = 0.1,
        extra_trees: bool = True,
        reg_lambda: float = 5.0,
        patience: int = 15,
        validation_fraction: float = 0.1,
        class_weight: ClassWeight = None,
        random_state: RandomState = 0,
        n_jobs: int | None = None,
        memory_limit: MemoryLimit = None,
    ) -> None:
        self.n_components = n_components
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.num_leaves = num_leaves
        self.feature_fraction = feature_fraction
        self.extra_trees = extra_trees
        self.reg_lambda = reg_lambda
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory_limit = memory_limit

    def fit(
        self,
        X: Features | ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        *,
        client: object = None,
    ) -> LightGBMHead:
        """Train on embeddings; see `Head.fit` and, for rows beyond memory, `BlockHead.fit`.

        Parameters
        ----------
        X, y, sample_weight, groups
            As for `Head.fit`.
        client : distributed.Client, optional
            Train on the workers of this cluster, by the distributed training of LightGBM. X must be
            features or rows of a store, on a disk that all share or in a bucket: each worker reads
            a part of the rows, and keeps their principal components in memory. The trained head
            does not need the cluster. `n_jobs` has no effect.

        Returns
        -------
        LightGBMHead
            Itself.

        Raises
        ------
        MissingExtra
            If Dask is not installed.
        WorkerRefused, ClusterError
            If a worker has another version of featcache, or training fails.
        """
        if client is None:
            return super().fit(X, y, sample_weight, groups)
        features = as_features(X)
        check_arguments(X if features is None else features.X, client)
        self._check_parameters()
        rows, codes, weights, numbers = self._labelled_positions(X, y, sample_weight, groups)
        self._prepare(rows.shape)
        blocks = RowBlocks(rows, codes, weights, limit_bytes(self.memory_limit))
        fit_on_cluster(self, client, blocks, numbers)
        return self

    @property
    def n_parameters(self) -> int:
        """Maximum number of leaves of all trees together."""
        check_is_fitted(self, "booster_")
        return int(self.booster_.num_trees() * self.num_leaves)

    def _fit_codes(
        self, X: Floats, codes: NDArray[np.int64], weights: RowWeights, groups: Codes | None
    ) -> None:
        self._check_parameters()
        self._prepare(X.shape)
        with _blas_threads(self._threads):
            self._fit_on(X, codes, weights.loss, groups)

    def _check_parameters(self) -> None:
        check_parameters(self, _PARAMETERS)

    def _bytes_besides_blocks(self, count: int, width: int) -> int:
        self._prepare((count, width))
        reduced = bytes_of_trees(count, min(self.n_components, width), len(self.classes_))
        return max(24 * width**2, reduced)  # the axes are found before

    def _fit_blocks(self, blocks: RowBlocks, groups: Codes | None) -> None:
        with _blas_threads(self._threads):
            fit_streamed_trees(self, blocks, groups)

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Check the number of classes; choose the seed and the number of threads."""
        count = len(self.classes_)
        if count > _MAX_CLASSES:
            raise InvalidRequest(
                f"LightGBM grows one tree per class and round; LightGBMHead supports at most "
                f"{_MAX_CLASSES:,} classes, not {count:,}. Use logistic, svm or dense.",
                received=count,
            )
        log.info(
            "LightGBM: at most %d trees (%d rounds x %d classes)",
            self.n_estimators * count,
            self.n_estimators,
            count,
        )
        self._seed = integer_seed(self.random_state)
        # The model is the same with any number of threads.
        self._threads = self.n_jobs or _threads(shape, count)

    def _fit_on(self, X: Floats, codes: Rows, weights: Floats | None, groups: Codes | None) -> None:
        self.mean_, self.components_ = self._axes(X)
        reduced = self._reduce(X)
        held_out = held_out_part(
            codes, self.validation_fraction, self._seed, groups, min_per_class=MIN_PER_CLASS
        )
        train = np.setdiff1d(np.arange(len(X)), held_out)
        stop_early = held_out if self.patience else held_out[:0]
        self._use(self._boost(reduced, codes, weights, train, stop_early, self.n_estimators))
        self.temperature_ = self._temperature(X, codes, weights, held_out, groups)

    def _use(self, booster: Any) -> None:
        self.booster_ = booster
        self.best_iteration_ = int(booster.best_iteration or booster.current_iteration())

    def _boost(
        self,
        reduced: Floats,
        codes: Rows,
        weights: Floats | None,
        train: Rows,
        stop_early: Rows,
        n_estimators: int,
    ) -> Any:
        """Train on some rows; stop early by the loss on others, if there are any."""
        from .booster import boost, matrix_data

        def data_of(rows: Rows, reference: Any = None) -> Any:
            own = None if weights is None else weights[rows]
            return matrix_data(reduced[rows], codes[rows], own, reference)

        data = data_of(train)
        valid = data_of(stop_early, data) if len(stop_early) else None
        return boost(data, valid, self._parameters(len(train)), n_estimators, self.patience)

    def _parameters(self, n_rows: int) -> dict[str, Any]:
        """Return LightGBM's parameters for training on a number of rows."""
        count = len(self.classes_)
        return {
            "objective": "multiclass",
            "num_class": count,
            "learning_rate": self.learning_rate,
            "num_leaves": self.num_leaves,
            "feature_fraction": self.feature_fraction,
            "extra_trees": self.extra_trees,
            "lambda_l2": self.reg_lambda,
            "min_data_in_leaf": int(np.clip(n_rows // (4 * count), 1, 20)),
            "max_bin": 63,
            "num_threads": self._threads if n_rows * count > _SCORES_PER_THREAD else 1,
            "seed": self._seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }

    def _temperature(
        self,
        X: Floats,
        codes: Rows,
        weights: Floats | None,
        held_out: Rows,
        groups: Codes | None,
    ) -> float:
        def scores_of(train: Rows, scored: Rows) -> NDArray[Any]:
            # With axes of all rows, the scored rows would be as spread out as training rows.
            reduced = self._axes(X[train]).reduce(X)
            booster = self._boost(reduced, codes, weights, train, train[:0], self.best_iteration_)
            return np.asarray(booster.predict(reduced[scored], raw_score=True))

        return choose_temperature(
            codes,
            held_out,
            lambda rows: self._scores(X[rows]),
            scores_of,
            self._seed,
            weights=weights,
            groups=groups,
        )

    def _scores(self, X: Floats) -> NDArray[Any]:
        return self._raw(self._reduce(X))

    def _steps(self) -> list[ClassifierStep]:
        scale = {"mean": self.mean_, "scale": np.ones_like(self.mean_)}
        no_bias = np.zeros(len(self.components_), np.float32)
        return [
            ClassifierStep("standardise", scale),
            ClassifierStep("linear", {"weights": self.components_.T, "bias": no_bias}),
            ClassifierStep("trees", tree_arrays(self.booster_, self.best_iteration_)),
        ]

    def _raw(self, reduced: Floats) -> NDArray[Any]:
        return np.asarray(
            self.booster_.predict(reduced, raw_score=True, num_iteration=self.best_iteration_)
        )

    def _axes(self, X: Floats) -> Axes:
        """Return the principal axes of rows in memory."""
        kept = min(self.n_components, X.shape[1], max(1, len(X) - 1))
        solver = "randomized" if kept < min(X.shape) // 2 else "full"
        pca = PCA(kept, svd_solver=solver, random_state=self._seed).fit(X)
        std = np.sqrt(np.maximum(pca.explained_variance_, 1e-12))
        axes = np.asarray(pca.components_ / std[:, None], np.float32)
        return Axes(np.asarray(pca.mean_, np.float32), axes)

    def _reduce(self, X: Floats) -> Floats:
        return Axes(self.mean_, self.components_).reduce(X)


def _threads(shape: tuple[int, ...], n_classes: int) -> int:
    """Return the number of threads: 1 for small data, which a second one does not speed up."""
    count, width = shape
    if count * width <= _VALUES_PER_THREAD and count * n_classes <= _SCORES_PER_THREAD:
        return 1
    return threads_for_idle_cores()
