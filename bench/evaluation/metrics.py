"""Metrics: pure functions of true classes and predicted probabilities.

Each takes ``truth`` (n,), int64 class codes, and ``proba`` (n, k), float64, whose rows sum to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A metric's name, direction and function.

    Attributes
    ----------
    name : str
    higher_is_better : bool
    function : callable
        ``(truth, proba) -> float``.
    counts_hits : bool
        Whether the value is the fraction of images that count as right.
    """

    name: str
    higher_is_better: bool
    function: Callable[[Codes, Floats], float]
    counts_hits: bool = False


def top_k(truth: Codes, proba: Floats, k: int) -> float:
    """Return the fraction of rows whose class is among the `k` most probable ones, 0 to 1.

    Among equal probabilities the lower class code comes first, as in `numpy.argmax`.

    >>> top_k(np.array([1, 0]), np.array([[0.6, 0.4], [0.6, 0.4]]), 1)
    0.5
    """
    return float(in_top_k(truth, proba, k).mean())


def in_top_k(truth: Codes, proba: Floats, k: int) -> NDArray[np.bool_]:
    """Return a mask (n,) of the rows whose class is among the `k` most probable ones."""
    own = proba[np.arange(len(truth)), truth][:, None]
    lower_number = np.arange(proba.shape[1])[None, :] < truth[:, None]
    ahead = (proba > own) | ((proba == own) & lower_number)
    return np.asarray(ahead.sum(axis=1) < k)


def confusion(truth: Codes, proba: Floats) -> NDArray[np.int64]:
    """Return the confusion matrix (k, k): counts by true class (rows) and prediction (columns)."""
    k = proba.shape[1]
    flat = np.bincount(truth * k + proba.argmax(axis=1), minlength=k * k)
    return flat.reshape(k, k)


def per_class(truth: Codes, proba: Floats) -> dict[str, Floats]:
    """Return the precision, recall, F1 and support of each class, arrays (k,).

    The precision of a class that is never predicted, and the recall of one that never occurs,
    are 0.
    """
    table = confusion(truth, proba).astype(float)
    hits, predicted, support = np.diag(table), table.sum(axis=0), table.sum(axis=1)
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=support > 0)
    total = predicted + support
    f1 = np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
    return {"precision": precision, "recall": recall, "f1": f1, "support": support}


def macro_f1(truth: Codes, proba: Floats) -> float:
    """Return the mean F1 over the classes that occur in the truth or in the predictions."""
    k = proba.shape[1]
    prediction = proba.argmax(axis=1)
    hits = np.bincount(truth[truth == prediction], minlength=k)
    total = np.bincount(truth, minlength=k) + np.bincount(prediction, minlength=k)
    present = total > 0
    return float((2 * hits[present] / total[present]).mean())


def log_loss(truth: Codes, proba: Floats) -> float:
    """Return the mean negative natural log of the true class' probability, clipped at 1e-15."""
    own = proba[np.arange(len(truth)), truth]
    return float(-np.log(np.clip(own, 1e-15, 1.0)).mean()) + 0.0  # no negative zero


def reliability(truth: Codes, proba: Floats, bins: int = 15) -> dict[str, Floats]:
    """Return confidence and accuracy in bins of equal width.

    Returns
    -------
    dict of str to ndarray (bins,)
        ``low``: lower edge of each bin; ``count``; mean ``confidence`` and ``accuracy`` of its
        rows, 0 if it is empty.
    """
    confidence = proba.max(axis=1)
    is_correct = proba.argmax(axis=1) == truth
    index = np.clip((confidence * bins).astype(int), 0, bins - 1)
    count = np.bincount(index, minlength=bins).astype(float)
    safe = np.maximum(count, 1)
    return {
        "low": np.arange(bins) / bins,
        "count": count,
        "confidence": np.bincount(index, confidence, minlength=bins) / safe,
        "accuracy": np.bincount(index, is_correct, minlength=bins) / safe,
    }


def calibration_error(truth: Codes, proba: Floats, bins: int = 15) -> float:
    """Return the expected calibration error over bins of equal width (Guo et al. 2017), 0 to 1."""
    table = reliability(truth, proba, bins)
    gaps = np.abs(table["confidence"] - table["accuracy"])
    return float((gaps * table["count"]).sum() / len(truth))


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("top1", True, lambda t, p: top_k(t, p, 1), counts_hits=True),
        Metric("top3", True, lambda t, p: top_k(t, p, 3), counts_hits=True),
        Metric("top5", True, lambda t, p: top_k(t, p, 5), counts_hits=True),
        Metric("macro_f1", True, macro_f1),
        Metric("log_loss", False, log_loss),
        Metric("calibration_error", False, calibration_error),
    )
}
