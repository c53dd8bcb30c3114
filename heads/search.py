"""Cross-validated grid search over the parameters of a head, on stored embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import get_active_backend
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.metrics import check_scoring
from sklearn.model_selection import ParameterGrid
from sklearn.utils.validation import has_fit_parameter

from featcache.errors import InvalidRequest
from featcache.toolkit import first_line, format_count

from .arguments import as_features, check_lengths, unpack_features
from .base import Head, RandomState, unfitted
from .block_head import BlockHead
from .blocks import limit_bytes
from .folds import Fold, is_partition, make_folds
from .groups import Codes, group_codes
from .linear import LinearHead
from .registry import HEADS, make_head
from .unlabelled import labelled_mask, take_labelled

if TYPE_CHECKING:
    from featcache import Features

_MAX_SHOWN = 10  # points of a table in a notebook
Grid = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]]


@dataclass(frozen=True, repr=False)
class SearchResult:
    """Result of `search`, with the attributes of `sklearn.model_selection.GridSearchCV`.

    Attributes
    ----------
    best_estimator_ : Head or None
        Trained on all labelled rows with the best parameters; None with ``refit=False``.
    best_params_ : dict
        The point of the grid with the highest mean score.
    best_score_ : float
        Its mean score over the folds.
    best_index_ : int
        Its index in `cv_results_`.
    cv_results_ : dict of str to array or list
        ``params``, ``param_<name>``, ``split<i>_test_score``, ``mean_test_score``,
        ``std_test_score`` and ``rank_test_score``, one entry per point of the grid.
    """

    best_estimator_: Head | None
    best_params_: dict[str, Any]
    best_score_: float
    best_index_: int
    cv_results_: dict[str, Any]

    def __repr__(self) -> str:
        candidates = format_count(len(self.cv_results_["params"]), "candidate")
        return (
            f"SearchResult(best_score_={self.best_score_:.4f}, best_params_={self.best_params_}, "
            f"{candidates})"
        )

    def _repr_html_(self) -> str:
        """Return the ten best points as a table, for a notebook."""
        found = self.cv_results_
        order = np.argsort(found["rank_test_score"], kind="stable")
        rows = "".join(
            f"<tr><td>{escape(_settings(found['params'][i]))}</td>"
            f"<td>{found['mean_test_score'][i]:.4f}</td>"
            f"<td>{found['std_test_score'][i]:.4f}</td></tr>"
            for i in order[:_MAX_SHOWN]
        )
        more = len(order) - _MAX_SHOWN
        return (
            f"<p>Best mean score {self.best_score_:.4f} with "
            f"{escape(_settings(self.best_params_))}</p>"
            "<table><thead><tr><th>parameters</th><th>mean score</th><th>std over folds</th></tr>"
            f"</thead><tbody>{rows}</tbody></table>"
            + (f"<p>and {more} more in <code>cv_results_</code></p>" if more > 0 else "")
        )


def search(
    head: Head | str,
    X: Features | ArrayLike,
    y: ArrayLike | None = None,
    *,
    param_grid: Grid,
    groups: ArrayLike | None = None,
    cv: object = 5,
    scoring: str | Callable[..., float] | None = None,
    n_jobs: int = -1,
    random_state: RandomState = 0,
    refit: bool = True,
) -> SearchResult:
    """Evaluate every point of a grid by cross-validation, and train the best on all rows.

    Parameters
    ----------
    head : Head or str
        A head, or its name in `heads.HEADS`.
    X : featcache.Features or array-like (n, d)
        Embeddings.
    y : array-like (n,), optional
        Labels; default: the codes of the features. Unlabelled rows are left out, which is
        logged.
    param_grid : mapping or list of mappings
        Values by the name of the parameter, as for `sklearn.model_selection.ParameterGrid`.
    groups : array-like (n,), optional
        Rows of one group are in the same fold, and in the same part of the rows that a head holds
        out within a fold. Default for features: the image ids, which keeps copies and views
        of a photo together.
    cv : int, splitter, array-like (n,) or iterable of (train, test)
        A number of folds, stratified by class; a splitter of scikit-learn; the number or name
        of each row's fold, with -1 or None for rows that are always trained on; or the row
        indices of each fold.
    scoring : str or callable, optional
        A scorer of scikit-learn; default: accuracy.
    n_jobs : int
        Number of processes; -1 is one per core. They share the matrix by a memory map. The
        accuracy of linear heads is computed in one process with all its threads, along a path
        of ``C``. Rows of a store that do not fit in the head's ``memory_limit`` stay there: each
        training reads its own, in blocks, and by default takes its part of half the free memory.
    random_state : int, numpy.random.RandomState or None
        Seed of the folds that an integer `cv` makes.
    refit : bool
        Whether to train a head with the best parameters on all rows.

    Returns
    -------
    SearchResult

    Raises
    ------
    InvalidRequest
        If there are no labels or another number of them, the folds cannot be made, or the head,
        the grid or the scorer is not valid.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(60, 8)).astype("float32")
    >>> found = search("svm", X, X[:, 0] > 0, param_grid={"C": [0.001, 0.01]}, cv=3)
    >>> found.cv_results_["mean_test_score"].shape
    (2,)
    """
    estimator = make_head(head) if isinstance(head, str) else _checked_head(head)
    points = _points(estimator, param_grid)
    scorer = _scorer(estimator, scoring)
    on_disk = _stays_on_disk(estimator, X)
    X, y, groups, mask = _labelled_rows(X, y, groups, on_disk)
    rows: Any = X if on_disk else np.asarray(X)
    codes = np.asarray(y)
    # Those who divide rows into folds need their number, and no values.
    shown = np.zeros((len(codes), 1), np.float32) if on_disk else rows
    folds = make_folds(shown, codes, groups, cv, random_state, mask)
    own = groups if groups is None or mask is None else groups[mask]
    plain = scoring in (None, "accuracy") and not on_disk
    has_paths = isinstance(estimator, LinearHead) and plain
    paths, others = _sort_points(estimator, points, has_paths and is_partition(folds, len(rows)))
    scores = np.empty((len(points), len(folds)))
    for group in paths:
        solver = cast(LinearHead, unfitted(estimator).set_params(**points[group[0]]))
        strengths = [points[i].get("C", solver.C) for i in group]
        scores[group] = solver.accuracy_paths(rows, codes, [test for _, test in folds], strengths)
    if others:
        heads = [unfitted(estimator).set_params(**points[i]) for i in others]
        scores[others] = _cross_validate(heads, rows, codes, own, folds, scorer, n_jobs)
    result = _result(points, scores)
    if not refit:
        return result
    best = unfitted(estimator).set_params(**result.best_params_)
    return replace(result, best_estimator_=_fit(best, rows, codes, own))


def _stays_on_disk(estimator: Any, X: Any) -> bool:
    """Return whether rows of a store do not fit in memory, so that each training reads its own."""
    features = as_features(X)
    rows = X if features is None else features.X
    is_stored = not isinstance(rows, np.ndarray)
    return is_stored and isinstance(estimator, BlockHead) and estimator.is_exceeded_by(rows)


def _labelled_rows(
    X: Any, y: Any, groups: Any, on_disk: bool
) -> tuple[Any, Any, Codes | None, NDArray[np.bool_] | None]:
    """Return the rows with a label, their labels, the groups, and which rows these are.

    The last is None if all rows have a label. Group numbers are those of all rows.
    """
    stored, positions = X, np.arange(len(X))[:, None] if on_disk else None
    features = as_features(X)
    if on_disk and features is not None:
        y, groups = features.y if y is None else y, features.ids if groups is None else groups
        stored = features.X
    X, y, groups = (positions, y, groups) if on_disk else unpack_features(X, y, groups)
    if y is None:
        raise InvalidRequest(
            "A search needs labels, but y is None. Give one label per row, or features of a "
            "labelled data set."
        )
    check_lengths(X, y)
    groups = group_codes(groups, len(X))
    mask = labelled_mask(X, y)
    if mask is not None:
        if not mask.any():
            raise InvalidRequest(
                f"A search needs labels, but none of the {len(mask)} rows has one."
            )
        X, y = take_labelled(X, y, mask)
    return stored.take(X[:, 0]) if on_disk else X, y, groups, mask


def _checked_head(head: Any) -> Any:
    if isinstance(head, type):
        raise InvalidRequest(
            f"head={head.__name__} is a class; give an instance, {head.__name__}(), or the name of "
            "a head.",
            received=head,
        )
    if not hasattr(head, "get_params"):
        raise InvalidRequest(
            f"head={head!r} must be a head or the name of one: {', '.join(HEADS)}.", received=head
        )
    return head


def _points(estimator: Any, grid: Grid) -> list[dict[str, Any]]:
    try:
        points = list(ParameterGrid(grid))
        reason = "it has no point"
    except (TypeError, ValueError) as error:
        points, reason = [], first_line(error)
    if not points:
        raise InvalidRequest(
            f"param_grid={grid!r} must map each parameter to a list of at least one value, or be a "
            f"list of such mappings: {reason}.",
            received=grid,
        )
    unknown = {name for point in points for name in point} - set(estimator.get_params())
    if unknown:
        raise InvalidRequest(
            f"{type(estimator).__name__} has no parameter {sorted(unknown)}; it has "
            f"{sorted(estimator.get_params())}.",
            received=sorted(unknown),
        )
    return points


def _scorer(estimator: Any, scoring: Any) -> Callable[..., float]:
    if scoring is not None and not isinstance(scoring, str) and not callable(scoring):
        raise InvalidRequest(
            f"scoring={scoring!r} is not one scorer; give the name of a scorer of scikit-learn, "
            "such as 'balanced_accuracy', or a callable (estimator, X, y) -> float.",
            received=scoring,
        )
    try:
        return check_scoring(estimator, scoring)  # type: ignore[no-any-return]
    except ValueError as error:
        raise InvalidRequest(
            f"scoring={scoring!r} is not a scorer of scikit-learn; see "
            "sklearn.metrics.get_scorer_names() for the available ones.",
            received=scoring,
        ) from error


def _sort_points(
    estimator: Any, points: Sequence[Mapping[str, Any]], has_paths: bool
) -> tuple[list[list[int]], list[int]]:
    """Return groups of points that differ in C alone, and the other points."""
    groups: dict[str, list[int]] = {}
    others = []
    for number, point in enumerate(points):
        params = {**estimator.get_params(), **point}
        if has_paths and not isinstance(params["C"], str) and params["class_weight"] is None:
            rest = {name: value for name, value in point.items() if name != "C"}
            groups.setdefault(repr(sorted(rest.items())), []).append(number)
        else:
            others.append(number)
    return list(groups.values()), others


def _cross_validate(
    heads: Sequence[Any],
    X: Any,
    y: NDArray[Any],
    groups: Codes | None,
    folds: Sequence[Fold],
    scorer: Callable[..., float],
    n_jobs: int,
) -> NDArray[np.float64]:
    """Return the score of each head on each fold."""
    if not isinstance(X, np.ndarray):
        heads = [_sharing(head, n_jobs) for head in heads]
    scores = Parallel(n_jobs=n_jobs, max_nbytes="1M", mmap_mode="r")(
        delayed(_score)(unfitted(head), X, y, groups, *fold, scorer)
        for head in heads
        for fold in folds
    )
    return np.array(scores, np.float64).reshape(len(heads), len(folds))


def _sharing(head: Any, n_jobs: int) -> Any:
    """Return a head that takes its part of the free memory, which it shares with other processes.

    On a cluster, each worker finds out how much is free there.
    """
    backend, _ = get_active_backend()
    if head.memory_limit is not None or "Dask" in type(backend).__name__:
        return head
    return unfitted(head).set_params(memory_limit=limit_bytes(None) // effective_n_jobs(n_jobs))


def _take(X: Any, rows: NDArray[np.int64]) -> Any:
    """Return some rows; those of a store are not read yet."""
    return X[rows] if isinstance(X, np.ndarray) else X.take(rows)


def _score(
    head: Any,
    X: Any,
    y: NDArray[Any],
    groups: Codes | None,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    scorer: Callable[..., float],
) -> float:
    own = None if groups is None else groups[train]
    return float(scorer(_fit(head, _take(X, train), y[train], own), _take(X, test), y[test]))


def _fit(head: Any, X: Any, y: NDArray[Any], groups: Codes | None) -> Any:
    """Train a head, which keeps groups together in the rows that it holds out itself."""
    if groups is None or not has_fit_parameter(head, "groups"):
        return head.fit(X, y)
    return head.fit(X, y, groups=groups)


def _result(points: list[dict[str, Any]], scores: NDArray[np.float64]) -> SearchResult:
    mean = scores.mean(axis=1)
    rank = rankdata(-mean, method="min").astype(np.int32)
    found: dict[str, Any] = {"params": points}
    for name in sorted({name for point in points for name in point}):
        values = np.ma.MaskedArray(np.empty(len(points), object), mask=True)
        for number, point in enumerate(points):
            if name in point:
                values[number] = point[name]
        found[f"param_{name}"] = values
    found |= {f"split{i}_test_score": scores[:, i] for i in range(scores.shape[1])}
    found |= {
        "mean_test_score": mean, "std_test_score": scores.std(axis=1), "rank_test_score": rank,
    }  # fmt: skip
    best = int(rank.argmin())
    return SearchResult(None, dict(points[best]), float(mean[best]), best, found)


def _settings(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in parameters.items()) or "defaults"
