"""A trained head as plain arrays, evaluated with NumPy alone.

Heads of any library become the same few kinds of steps, so that storing a classifier needs
neither pickle nor the library that trained it, and reading one runs no code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._io.wording import format_count
from ..errors import InvalidRequest

Arrays = Mapping[str, NDArray[Any]]

StepKind = Literal["standardise", "linear", "normalise", "relu", "trees"]

# The arrays of each kind of step, with their dimensions.
STEPS: dict[StepKind, dict[str, int]] = {
    "standardise": {"mean": 1, "scale": 1},
    "linear": {"weights": 2, "bias": 1},
    "normalise": {},
    "relu": {},
    "trees": {"root": 1, "column": 1, "threshold": 1, "left": 1, "right": 1, "value": 1},
}
_MAX_SCORE = 1e300
_ROWS_PER_CHUNK = 1024
_VALUES_PER_CHUNK = 1024 * 8192  # of the widest step
_TREES_AT_ONCE = 32  # per class
_MAX_DEPTH = 256  # of a tree; those of boosting and of forests are below 100 levels deep


@dataclass(frozen=True)
class ClassifierStep:
    """One step from embeddings to scores.

    Attributes
    ----------
    kind : str
        ``"standardise"``: ``(x - mean) / scale``. ``"linear"``: ``x @ weights + bias`` with
        weights (d, k). ``"normalise"``: ``x`` over its Euclidean length; 0 stays 0.
        ``"relu"``: ``max(x, 0)``. ``"trees"``: sums of regression trees; tree t adds to
        score t modulo k. ``root`` (t,) holds the index of each tree's first node. A node
        whose ``left`` is -1 is a leaf with `value`; at any other node a row goes left if its
        `column` is at most `threshold`, else right.
    arrays : mapping of str to ndarray
        The arrays that `STEPS` lists for the kind, of floating point or integer dtype.
    """

    kind: StepKind
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Classifier:
    """A classifier of embeddings that needs NumPy alone.

    Attributes
    ----------
    steps : sequence of ClassifierStep
    classes : sequence of str, int, bool or float
        Labels, of the type that they had in training.
    width : int
        Number of values of an embedding.
    temperature : float
        Divisor of the scores before the softmax; 1 if none was fitted (Guo et al. 2017,
        arXiv:1706.04599).

    Raises
    ------
    InvalidRequest
        If the shapes of the steps do not fit together, or there are fewer than two classes.
    """

    steps: Sequence[ClassifierStep]
    classes: Sequence[Any]
    width: int
    temperature: float = 1.0

    def __post_init__(self) -> None:
        width = self.width
        for number, step in enumerate(self.steps):
            try:
                width = _check(step, width, len(self.classes))
            except (KeyError, ValueError, IndexError, TypeError) as error:
                raise InvalidRequest(
                    f"Step {number + 1} ({step.kind!r}) of the classifier does not fit: {error}.",
                    received=step.kind,
                ) from error
        is_valid = np.isfinite(self.temperature) and self.temperature > 0
        if width != len(self.classes) or len(self.classes) < 2 or not is_valid:
            raise InvalidRequest(
                f"The classifier gives {format_count(width, 'score')} for "
                f"{format_count(len(self.classes), 'class', 'classes')}, with temperature "
                f"{self.temperature}. It needs one score per class, at least two classes and a "
                "positive temperature.",
                received=width,
            )

    @property
    def is_calibrated(self) -> bool:
        """Whether a temperature was fitted: heads fit one, estimators of scikit-learn do not."""
        return self.temperature != 1.0

    def scores(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the score of each class, before temperature and softmax.

        Parameters
        ----------
        X : array-like (n, d)
            Embeddings; converted to float32.

        Returns
        -------
        ndarray (n, k), float64
            Columns in the order of `classes`.

        Raises
        ------
        InvalidRequest
            If X has another shape than (n, `width`), or a score is not finite.
        """
        rows = np.asarray(X, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise InvalidRequest(
                f"The classifier takes embeddings of shape (n, {self.width}), not {rows.shape}.",
                received=rows.shape,
            )
        count = _chunk_rows(self.steps, len(self.classes))
        scores = np.empty((len(rows), len(self.classes)))
        for start in range(0, len(rows), count):
            scores[start : start + count] = self._scores(rows[start : start + count])
        return scores

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like (n, d)
            Embeddings; converted to float32.

        Returns
        -------
        ndarray (n, k), float64
            Rows sum to 1; columns in the order of `classes`.

        Raises
        ------
        InvalidRequest
            As `scores`.
        """
        proba = self.scores(X)  # changed in place, since copies of all rows may not fit in memory
        proba -= proba.max(axis=1, keepdims=True)
        with np.errstate(over="ignore"):  # far below the best score a probability is 0
            proba /= self.temperature
            np.exp(proba, out=proba)
        proba /= proba.sum(axis=1, keepdims=True)
        return proba

    def _scores(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        values: NDArray[Any] = rows
        with np.errstate(over="ignore", invalid="ignore"):
            for step in self.steps:
                values = _apply(step, values, len(self.classes))
        if not np.isfinite(values).all():
            raise InvalidRequest(
                "The classifier gives scores that are not finite: the embeddings are not finite, "
                "or the bundle was not trained on such embeddings. Check the embeddings, or make "
                "the bundle again.",
                received=int((~np.isfinite(values)).any(axis=1).sum()),
            )
        # Clipped, so that the difference of two scores is finite as well.
        return np.clip(np.asarray(values, np.float64), -_MAX_SCORE, _MAX_SCORE)


def _chunk_rows(steps: Sequence[ClassifierStep], classes: int) -> int:
    """Return how many rows to pass through the steps at once, by the widest of them."""
    widest = 1
    for step in steps:
        if step.kind == "linear":
            widest = max(widest, step.arrays["weights"].shape[1])
        elif step.kind == "trees":  # an index, a comparison and a threshold for each tree
            widest = max(widest, 2 * min(len(step.arrays["root"]), _TREES_AT_ONCE * classes))
    return max(1, min(_ROWS_PER_CHUNK, _VALUES_PER_CHUNK // widest))


def _apply(step: ClassifierStep, values: NDArray[Any], classes: int) -> NDArray[Any]:
    arrays = step.arrays
    if step.kind == "standardise":
        return np.asarray((values - arrays["mean"]) / arrays["scale"])
    if step.kind == "linear":
        return np.asarray(values @ arrays["weights"] + arrays["bias"])
    if step.kind == "normalise":
        length = np.linalg.norm(values, axis=1, keepdims=True)
        return np.asarray(values / np.where(length == 0, 1, length))
    if step.kind == "relu":
        return np.asarray(np.maximum(values, 0))
    return _trees(arrays, np.asarray(values, np.float64), classes)


def _trees(arrays: Arrays, values: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
    """Return the sums of trees: all trees are descended together, one level per step."""
    roots = arrays["root"]
    out = np.zeros((len(values), classes))
    each_row = np.arange(len(values))[:, None]
    for start in range(
        0, len(roots), _TREES_AT_ONCE * classes
    ):  # bounds the memory of rows x trees
        node = np.tile(roots[start : start + _TREES_AT_ONCE * classes], (len(values), 1))
        while True:
            left = arrays["left"][node]
            inner = left >= 0
            if not inner.any():
                break
            low = values[each_row, arrays["column"][node]] <= arrays["threshold"][node]
            node = np.where(inner, np.where(low, left, arrays["right"][node]), node)
        leaves = arrays["value"][node]
        out += leaves.reshape(len(values), -1, classes).sum(axis=1)
    return out


def _check(step: ClassifierStep, width: int, classes: int) -> int:
    """Return the number of columns after a step; raise `ValueError` if its arrays do not fit."""
    expected = STEPS[step.kind]
    if set(step.arrays) != set(expected):
        raise ValueError(f"arrays {sorted(step.arrays)}, expected {sorted(expected)}")
    for name, dimensions in expected.items():
        array = step.arrays[name]
        if array.ndim != dimensions or array.dtype.kind not in "fi":
            raise ValueError(f"{name} is {array.dtype} of {array.ndim} dimensions")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name} holds values that are not finite")
    if step.kind == "standardise":
        if not step.arrays["mean"].shape == step.arrays["scale"].shape == (width,):
            raise ValueError(f"it is not for width {width}")
        if not (step.arrays["scale"] > 0).all():
            raise ValueError("a scale is not positive")
    elif step.kind == "linear":
        rows, columns = step.arrays["weights"].shape
        if rows != width or step.arrays["bias"].shape != (columns,):
            raise ValueError(f"it is not for width {width}")
        return int(columns)
    elif step.kind == "trees":
        _check_trees(step.arrays, width, classes)
        return classes
    return width


def _check_trees(arrays: Arrays, width: int, classes: int) -> None:
    """Raise `ValueError` unless each descent from a root ends at a leaf within the arrays."""
    nodes = len(arrays["left"])
    if any(len(arrays[name]) != nodes for name in ("column", "threshold", "right", "value")):
        raise ValueError("the nodes' arrays have different lengths")
    indices = ("root", "column", "left", "right")
    if any(arrays[name].dtype.kind != "i" for name in indices) or len(arrays["root"]) % classes:
        raise ValueError("an index is not an integer, or a class lacks a tree")
    inner = arrays["left"] >= 0
    own = np.arange(nodes)[inner]
    column, root = arrays["column"][inner], arrays["root"]
    for child in (arrays["left"][inner], arrays["right"][inner]):
        # Children come after their parent, so that no descent can be a cycle.
        if not ((child > own) & (child < nodes)).all():
            raise ValueError("a node's child is not below it")
    if not ((column >= 0) & (column < width)).all() or not ((root >= 0) & (root < nodes)).all():
        raise ValueError("a node refers to a column that does not exist, or a root to a node")
    _check_depth(arrays)


def _check_depth(arrays: Arrays) -> None:
    """Raise `ValueError` for a tree that is too deep: each level costs a pass over all rows."""
    level = np.unique(arrays["root"])
    for _ in range(_MAX_DEPTH + 1):
        inner = level[arrays["left"][level] >= 0]
        if not len(inner):
            return
        level = np.unique(np.concatenate([arrays["left"][inner], arrays["right"][inner]]))
    raise ValueError(f"a tree is more than {_MAX_DEPTH} levels deep, which is the limit")
