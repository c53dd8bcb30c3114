"""Metrics: pure functions of truth and probabilities.

Each takes ``truth`` (n,) of class codes and ``proba`` (n, k) whose rows sum to 1.
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
    """Share of rows whose class is among the `k` most probable ones.

    Of equal probabilities the class with the lower number counts as the more probable, as
    `numpy.argmax` has it.

    >>> top_k(np.array([1, 0]), np.array([[0.6, 0.4], [0.6, 0.4]]), 1)
    0.5
    """
    return float(in_top_k(truth, proba, k).mean())


def in_top_k(truth: Codes, proba: Floats, k: int) -> NDArray[np.bool_]:
    """Tell for each row whether its class is among the `k` most probable ones."""
    own = proba[np.arange(len(truth)), truth][:, None]
    lower_number = np.arange(proba.shape[1])[None, :] < truth[:, None]
    ahead = (proba > own) | ((proba == own) & lower_number)
    return np.asarray(ahead.sum(axis=1) < k)


def confusion(truth: Codes, proba: Floats) -> NDArray[np.int64]:
    """Count rows by true class (rows) and most probable class (columns)."""
    k = proba.shape[1]
    flat = np.bincount(truth * k + proba.argmax(axis=1), minlength=k * k)
    return flat.reshape(k, k)


def per_class(truth: Codes, proba: Floats) -> dict[str, Floats]:
    """Return precision, recall, F1 and support of each class, arrays (k,).

    Precision of a class that was never predicted, and recall of one that never occurs,
    count as 0.
    """
    table = confusion(truth, proba).astype(float)
    hits, predicted, support = np.diag(table), table.sum(axis=0), table.sum(axis=1)
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    recall = np.divide(hits, support, out=np.zeros_like(hits), where=support > 0)
    total = predicted + support
    f1 = np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
    return {"precision": precision, "recall": recall, "f1": f1, "support": support}


def macro_f1(truth: Codes, proba: Floats) -> float:
    """Mean F1 over the classes that occur in the truth or in the predictions."""
    k = proba.shape[1]
    prediction = proba.argmax(axis=1)
    hits = np.bincount(truth[truth == prediction], minlength=k)
    total = np.bincount(truth, minlength=k) + np.bincount(prediction, minlength=k)
    present = total > 0
    return float((2 * hits[present] / total[present]).mean())


def log_loss(truth: Codes, proba: Floats) -> float:
    """Mean negative log probability of the true class, clipped at 1e-15; natural log."""
    own = proba[np.arange(len(truth)), truth]
    return float(-np.log(np.clip(own, 1e-15, 1.0)).mean()) + 0.0  # no negative zero


def reliability(truth: Codes, proba: Floats, bins: int = 15) -> dict[str, Floats]:
    """Confidence against accuracy in bins of equal width.

    Returns
    -------
    dict
        ``low`` (bins,): lower edge of each bin; ``count``; mean ``confidence`` and
        ``accuracy`` of its rows, 0 where it is empty.
    """
    sure = proba.max(axis=1)
    right = proba.argmax(axis=1) == truth
    which = np.clip((sure * bins).astype(int), 0, bins - 1)
    count = np.bincount(which, minlength=bins).astype(float)
    safe = np.maximum(count, 1)
    return {
        "low": np.arange(bins) / bins,
        "count": count,
        "confidence": np.bincount(which, sure, minlength=bins) / safe,
        "accuracy": np.bincount(which, right, minlength=bins) / safe,
    }


def calibration_error(truth: Codes, proba: Floats, bins: int = 15) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017)."""
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
