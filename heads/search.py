"""Cross-validated search on stored features: no embedding is ever computed for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid, StratifiedGroupKFold, StratifiedKFold

from featcache import Features
from featcache.errors import InvalidRequest

from .base import Head
from .linear import LinearHead
from .registry import make_head
from .unlabelled import labelled_features

_SHOWN = 10  # points of a table in a notebook


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    best_head : Head
        Trained on all rows with the best parameters.
    best_parameters : dict
    best_score : float
        Mean accuracy over the folds.
    table : list of dict
        One record a point of the grid: ``parameters``, ``mean``, ``deviation``, ``folds``;
        the best first.
    """

    best_head: Head
    best_parameters: dict[str, Any]
    best_score: float
    table: list[dict[str, Any]]

    def _repr_html_(self) -> str:
        """Return the ten best points as a table, for a notebook."""
        rows = "".join(
            f"<tr><td>{escape(_settings(record['parameters']))}</td><td>{record['mean']:.4f}</td>"
            f"<td>{record['deviation']:.4f}</td></tr>"
            for record in self.table[:_SHOWN]
        )
        more = len(self.table) - _SHOWN
        return (
            f"<p>{escape(type(self.best_head).__name__)}: best accuracy {self.best_score:.4f} with "
            f"{escape(_settings(self.best_parameters))}</p>"
            "<table><thead><tr><th>parameters</th><th>accuracy</th><th>std over folds</th></tr>"
            f"</thead><tbody>{rows}</tbody></table>"
            + (f"<p>and {more} more in <code>table</code></p>" if more > 0 else "")
        )


def search(
    head: Head | str,
    features: Features,
    grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]],
    cv: int = 5,
    *,
    n_jobs: int = -1,
    random_state: int = 0,
) -> SearchResult:
    """Try every point of a grid by cross-validation, and train the best on all rows.

    Parameters
    ----------
    head : Head or str
        A head, or its name in the registry.
    features : featcache.Features
        With labels; unlabelled rows are left out, which is logged. Copies of a photo always
        fall into the same fold.
    grid : mapping or list of mappings
        Parameter name -> values, as `sklearn.model_selection.ParameterGrid`.
    cv : int
        Folds, stratified by class.
    n_jobs : int
        Processes; -1 is one a core. The matrix is mapped from one file by all of them, not
        copied to each. Linear heads are searched in one process, on all its cores, with the
        columns scaled once for all folds.
    random_state : int
        Of the folds.

    Returns
    -------
    SearchResult

    Raises
    ------
    InvalidRequest
        Without labels, with fewer than two folds or images, or an unknown parameter.

    Examples
    --------
    ``search("logistic", features, {"C": [0.003, 0.01, 0.03]}).best_parameters``
    """
    estimator = make_head(head) if isinstance(head, str) else head
    if features.y is None:
        raise InvalidRequest("A search needs labels, but these features have none (y is None).")
    features = labelled_features(features)
    assert features.y is not None
    points = list(ParameterGrid(grid))
    unknown = {name for point in points for name in point} - set(estimator.get_params())
    if unknown or not points:
        raise InvalidRequest(
            f"{type(estimator).__name__} has no parameter {sorted(unknown)}; it has "
            f"{sorted(estimator.get_params())}.",
            received=sorted(unknown),
        )
    folds = _folds(features, cv, random_state)
    X, y = np.asarray(features.X), features.y
    if isinstance(estimator, LinearHead):
        per_point = _along_paths(estimator, points, X, y, [test for _, test in folds])
    else:
        per_point = _one_by_one(estimator, points, X, y, folds, n_jobs)
    order = np.argsort(-per_point.mean(axis=1), kind="stable")
    table = [
        {
            "parameters": points[i],
            "mean": float(per_point[i].mean()),
            "deviation": float(per_point[i].std()),
            "folds": per_point[i].tolist(),
        }
        for i in order
    ]
    best = points[order[0]]
    trained = clone(estimator).set_params(**best).fit(X, y)
    return SearchResult(trained, dict(best), table[0]["mean"], table)


def _settings(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in parameters.items()) or "defaults"


def _folds(
    features: Features, cv: int, random_state: int
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    y = features.y
    assert y is not None
    _, groups = np.unique(np.array(features.ids), return_inverse=True)
    if not 2 <= cv <= len(set(groups.tolist())):
        raise InvalidRequest(
            f"cv={cv} folds cannot be made of {len(set(groups.tolist()))} different images.",
            received=cv,
        )
    # Groups are slow to deal out, and of no use where no photo is there twice.
    if groups.max() == len(groups) - 1:
        return list(StratifiedKFold(cv, shuffle=True, random_state=random_state).split(y, y))
    folds = StratifiedGroupKFold(cv, shuffle=True, random_state=random_state)
    return list(folds.split(y, y, groups))


def _one_by_one(
    head: Head,
    points: Sequence[Mapping[str, Any]],
    X: NDArray[Any],
    y: NDArray[Any],
    folds: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    n_jobs: int,
) -> NDArray[np.float64]:
    """Return the accuracy of each point on each fold, every one trained on its own."""
    scores = Parallel(n_jobs=n_jobs, max_nbytes="1M", mmap_mode="r")(
        delayed(_score)(clone(head).set_params(**point), X, y, *fold)
        for point in points
        for fold in folds
    )
    return np.array(scores).reshape(len(points), len(folds))


def _score(
    head: Head, X: NDArray[Any], y: NDArray[Any], train: NDArray[Any], test: NDArray[Any]
) -> float:
    head.fit(X[train], y[train])
    return float(np.mean(head.predict(X[test]) == y[test]))


def _along_paths(
    head: LinearHead,
    points: Sequence[Mapping[str, Any]],
    X: NDArray[Any],
    y: NDArray[Any],
    tests: Sequence[NDArray[Any]],
) -> NDArray[np.float64]:
    """Return the accuracy of each point on each fold; those that differ in C alone together.

    In one process: the matrix products use all cores, and nothing need be copied.
    """
    groups: dict[str, list[int]] = {}
    for number, point in enumerate(points):
        rest = {name: value for name, value in point.items() if name != "C"}
        groups.setdefault(repr(sorted(rest.items())), []).append(number)
    found = np.empty((len(points), len(tests)))
    for group in groups.values():
        solver = clone(head).set_params(**points[group[0]])
        strengths = [float(points[number].get("C", solver.C)) for number in group]
        found[group] = solver.accuracy_paths(X, y, tests, strengths)
    return found
