"""Training of LightGBM on a cluster: the part of the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from featcache.errors import InvalidRequest, MissingExtra
from featcache.toolkit import format_count, get_logger, install_hint

from .arguments import is_on_disk
from .blocks import Codes, RowBlocks
from .streamed import HELD_OUT
from .streamed_trees import some_of, split_rows, temperature
from .sums import principal_axes
from .weights import Floats

if TYPE_CHECKING:
    from .lightgbm import LightGBMHead

log = get_logger(__name__)

_SHIFT_ROWS = 1000  # whose mean the sums are about
# Names that LightGBM's estimators have for some parameters; they give the others another value.
_NAMES = {
    "feature_fraction": "colsample_bytree", "lambda_l2": "reg_lambda",
    "min_data_in_leaf": "min_child_samples", "seed": "random_state",
}  # fmt: skip


def check_arguments(X: Any, client: Any) -> None:
    """Check that rows are of a store, which workers can read, and that they can be used.

    Raises
    ------
    InvalidRequest
        If X is anything else, or `client` is no client.
    MissingExtra, WorkerRefused, ClusterError
        See `featcache.toolkit.check_cluster`.
    """
    from featcache.toolkit import check_cluster  # slow to import, and not needed otherwise

    if not is_on_disk(X) or isinstance(X, np.memmap):
        raise InvalidRequest(
            "client= trains on the rows of a store, which the workers read, and X is of the type "
            f"{type(X).__name__}, whose rows would have to be sent. Pass features, or leave "
            "client= out.",
            received=type(X).__name__,
        )
    check_cluster(client)


def fit_on_cluster(
    head: LightGBMHead, client: Any, blocks: RowBlocks, groups: Codes | None
) -> None:
    """Train LightGBM on the workers of a cluster; set the fitted attributes of a head.

    Parameters
    ----------
    head : LightGBMHead
        With `classes_`.
    client : distributed.Client
    blocks : RowBlocks
        Rows of a store.
    groups : ndarray (n,) of int64, optional
        Number of the group of each row.
    """
    cluster_trees = _library()
    train, held_out = split_rows(head, blocks, groups)
    count = cluster_trees.count_parts(client, len(train) + len(held_out))

    def parts_of(rows: Codes) -> list[Any]:
        dealt = cluster_trees.deal(rows, count)
        return [cluster_trees.Part(*blocks.unread(part)) for part in dealt]

    used = np.sort(np.concatenate([train, held_out]))
    some = blocks.take(some_of(used, _SHIFT_ROWS, head._seed))
    shift = some.rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    log.info("LightGBM: the workers read %s", format_count(count, "part"))
    sums = cluster_trees.sums_on_workers(client, parts_of(used), shift)
    head.mean_, head.components_ = axes = principal_axes(sums, head.n_components)
    params = {_NAMES.get(name, name): value for name, value in head._parameters(len(train)).items()}
    del params["num_threads"]  # those that Dask gives a worker are used
    parts = parts_of(train)
    head._use(cluster_trees.train_on_workers(client, parts, axes, params, head.n_estimators))
    if head.patience and len(held_out):
        tested = some_of(held_out, HELD_OUT, head._seed)
        reduced = blocks.scores_of(tested, head._reduce)
        head.best_iteration_ = best_round(
            head.booster_, reduced, blocks.codes[tested], blocks.weights.take(tested).loss,
            head.patience,
        )  # fmt: skip
    head.temperature_ = temperature(head, blocks, groups, held_out, train)


def best_round(
    booster: Any, rows: Floats, codes: Codes, weights: Floats | None, patience: int
) -> int:
    """Return the number of rounds at which early stopping by some rows would have ended.

    LightGBM does not stop early on a cluster, where each worker has other rows to stop by. A round
    does not depend on later ones, so that the result is the same.
    """
    own = np.arange(len(codes)), codes
    scores: NDArray[np.float64] | float = 0.0
    best, lowest = 0, np.inf
    for number in range(booster.current_iteration()):
        scores = scores + booster.predict(
            rows, raw_score=True, start_iteration=number, num_iteration=1
        )
        loss = float(np.average(-log_softmax(scores, axis=1)[own], weights=weights))
        if loss < lowest:
            best, lowest = number, loss
        elif number - best >= patience:
            break
    return best + 1


def _library() -> Any:
    try:
        import pandas  # noqa: F401  LightGBM asks for it, but does not say how to install it

        from . import cluster_trees
    except ImportError as error:
        raise MissingExtra(
            f"Training on a cluster needs Dask and pandas: {install_hint('dask')}",
            package=error.name or "dask",
        ) from error
    return cluster_trees
