"""Convert fitted scikit-learn estimators and pipelines to `Classifier`s, without scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest
from .classifier import Classifier, ClassifierStep


def to_classifier(model: Any) -> Classifier:
    """Convert a fitted head, estimator or pipeline to a classifier that needs NumPy alone.

    Parameters
    ----------
    model : Classifier, heads.Head, or scikit-learn estimator or Pipeline
        Steps before the last: `StandardScaler`, `RobustScaler`, `MaxAbsScaler`,
        `MinMaxScaler` (without clipping), `Normalizer` (L2), `PCA`, ``"passthrough"``, and
        pipelines of these. Last step: a head, `LogisticRegression`, `LogisticRegressionCV`,
        `LinearDiscriminantAnalysis` or `MLPClassifier` (ReLU or identity).

    Returns
    -------
    Classifier
        Gives the probabilities of ``model.predict_proba``, for the same `classes_`.

    Raises
    ------
    InvalidRequest
        If the model is not fitted, or has a step that cannot be stored.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> X = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    >>> to_classifier(LogisticRegression().fit(X, X[:, 0] > 0)).classes
    [False, True]
    """
    if isinstance(model, Classifier):
        return model
    _check_kind(model)
    *before, last = _flattened(model)
    try:
        width = _width([*before, last])
        steps = [converted for step in before for converted in _convert_transformer(step)]
        if hasattr(last, "to_classifier"):
            inner: Classifier = last.to_classifier()
            steps += inner.steps
            return Classifier(steps, inner.classes, width, inner.temperature)
        steps += _convert_classifier(last)
        return Classifier(steps, last.classes_.tolist(), width)
    except AttributeError as error:
        raise InvalidRequest(
            f"{type(model).__name__} is not fitted ({error}). Call fit(X, y) first.",
            received=type(model).__name__,
        ) from error


def _check_kind(model: Any) -> None:
    """Raise `InvalidRequest` unless the model is an instance of an estimator, and not a search."""
    if isinstance(model, type) or not (hasattr(model, "fit") or hasattr(model, "to_classifier")):
        received = (
            f"the class {model.__name__}" if isinstance(model, type) else repr(type(model).__name__)
        )
        raise InvalidRequest(
            "A bundle needs a fitted head, a Classifier, a scikit-learn estimator or a Pipeline, "
            f"not {received}.",
            received=type(model).__name__,
        )
    if hasattr(model, "param_grid") or hasattr(model, "param_distributions"):
        raise InvalidRequest(
            f"A bundle cannot store {type(model).__name__}; pass its .best_estimator_.",
            received=type(model).__name__,
        )


def _flattened(model: Any) -> list[Any]:
    """Return the steps of a pipeline, with nested pipelines flattened; other models as one step."""
    if _class_name(model) != "Pipeline":
        return [model]
    return [inner for _, step in model.steps for inner in _flattened(step)]


def _is_passthrough(step: Any) -> bool:
    return isinstance(step, str) and step == "passthrough"


def _width(steps: list[Any]) -> int:
    """Return the number of input columns of the first step that is not "passthrough"."""
    return int(next(step for step in steps if not _is_passthrough(step)).n_features_in_)


def _class_name(step: Any) -> str:
    """Return the name of a class of scikit-learn; in parentheses, so unknown, if of another."""
    kind = type(step)
    return kind.__name__ if kind.__module__.split(".")[0] == "sklearn" else f"({kind.__name__})"


def _convert_transformer(step: Any) -> list[ClassifierStep]:
    if _is_passthrough(step):
        return []
    return _convert(step, _TRANSFORMERS, "a step before the last it must be one of")


def _convert_classifier(step: Any) -> list[ClassifierStep]:
    return _convert(step, _CLASSIFIERS, "the last step it must be a head or one of")


def _convert(
    step: Any, table: dict[str, Callable[[Any], list[ClassifierStep]]], rule: str
) -> list[ClassifierStep]:
    converter = table.get(_class_name(step))
    if converter is None:
        raise _unsupported(step, f"as {rule} {', '.join(table)}")
    return converter(step)


def _unsupported(step: Any, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"A bundle cannot store {step!r}: {reason}.", received=type(step).__name__
    )


def _shift_and_scale(mean: Any, scale: Any, width: int) -> list[ClassifierStep]:
    mean = np.zeros(width) if mean is None else np.asarray(mean)
    scale = np.ones(width) if scale is None else np.asarray(scale)
    return [ClassifierStep("standardise", {"mean": mean, "scale": scale})]


def _standard_scaler(step: Any) -> list[ClassifierStep]:
    return _shift_and_scale(step.mean_ if step.with_mean else None, step.scale_, _width([step]))


def _robust_scaler(step: Any) -> list[ClassifierStep]:
    return _shift_and_scale(step.center_, step.scale_, _width([step]))


def _max_abs_scaler(step: Any) -> list[ClassifierStep]:
    if getattr(step, "clip", False):
        raise _unsupported(step, "clip=True is not supported")
    return _shift_and_scale(None, step.scale_, _width([step]))


def _min_max_scaler(step: Any) -> list[ClassifierStep]:
    if step.clip:
        raise _unsupported(step, "clip=True is not supported")
    return _shift_and_scale(-step.min_ / step.scale_, 1 / step.scale_, _width([step]))


def _normalizer(step: Any) -> list[ClassifierStep]:
    if step.norm != "l2":
        raise _unsupported(step, "only norm='l2' is supported")
    return [ClassifierStep("normalise")]


def _pca(step: Any) -> list[ClassifierStep]:
    axes = step.components_
    if step.whiten:
        floor = np.finfo(axes.dtype).eps
        axes = axes / np.sqrt(np.maximum(step.explained_variance_, floor))[:, None]
    centre = _shift_and_scale(step.mean_, None, _width([step]))
    return [*centre, _linear(axes.T, np.zeros(len(axes)))]


def _linear(weights: NDArray[Any], bias: NDArray[Any]) -> ClassifierStep:
    return ClassifierStep("linear", {"weights": weights, "bias": bias})


def _logits(weights: NDArray[Any], bias: NDArray[Any]) -> ClassifierStep:
    """Return a linear step of one score per class.

    Binary models have one score z; it becomes (0, z), the softmax of which is the sigmoid of z.
    """
    if weights.shape[1] == 1:
        weights = np.hstack([np.zeros_like(weights), weights])
        bias = np.append(np.zeros_like(bias), bias)
    return _linear(weights, bias)


def _logistic(step: Any) -> list[ClassifierStep]:
    ovr = step.solver == "liblinear" and len(step.classes_) > 2
    if ovr or getattr(step, "multi_class", "auto") not in ("auto", "deprecated"):
        raise _unsupported(
            step,
            "its probabilities are not a softmax of its scores; leave solver and multi_class at "
            "their defaults",
        )
    return _discriminant(step)


def _discriminant(step: Any) -> list[ClassifierStep]:
    intercept = np.broadcast_to(step.intercept_, len(step.coef_)).copy()
    return [_logits(step.coef_.T, intercept)]


def _perceptron(step: Any) -> list[ClassifierStep]:
    if step.activation not in ("relu", "identity"):
        raise _unsupported(step, "only the activations 'relu' and 'identity' are supported")
    if step.out_activation_ != "softmax" and step.n_outputs_ > 1:
        raise _unsupported(step, "it was trained on several labels per row")
    relu = [ClassifierStep("relu")] if step.activation == "relu" else []
    *inner, last = zip(step.coefs_, step.intercepts_, strict=True)
    hidden = [converted for weights, bias in inner for converted in (_linear(weights, bias), *relu)]
    return [*hidden, _logits(*last)]


_TRANSFORMERS: dict[str, Callable[[Any], list[ClassifierStep]]] = {
    "StandardScaler": _standard_scaler,
    "RobustScaler": _robust_scaler,
    "MaxAbsScaler": _max_abs_scaler,
    "MinMaxScaler": _min_max_scaler,
    "Normalizer": _normalizer,
    "PCA": _pca,
}
_CLASSIFIERS: dict[str, Callable[[Any], list[ClassifierStep]]] = {
    "LogisticRegression": _logistic,
    "LogisticRegressionCV": _logistic,
    "LinearDiscriminantAnalysis": _discriminant,
    "MLPClassifier": _perceptron,
}
