"""Statistics of a comparison: bootstrap intervals, paired tests, correction for multiple tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ..evaluation.metrics import METRICS, Codes, Floats
from ..evaluation.results import Result

RESAMPLES = 1000
SIGNIFICANCE = 0.05


def bootstrap(
    truth: Codes, proba: Floats, *, resamples: int = RESAMPLES, random_state: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Return the values of all metrics on bootstrap resamples of the test images (Efron 1979).

    The same seed gives the same resamples, so that the values of two contenders are paired.

    Parameters
    ----------
    truth : ndarray (n,), int64
    proba : ndarray (n, k), float64
    resamples : int
        Number of resamples.
    random_state : int
        Seed of the resamples.

    Returns
    -------
    dict of str to ndarray (resamples,)
    """
    generator = np.random.default_rng(random_state)
    rows = generator.integers(0, len(truth), (resamples, len(truth)))
    values: dict[str, list[float]] = {name: [] for name in METRICS}
    for chosen in rows:
        t, p = truth[chosen], proba[chosen]
        for name, metric in METRICS.items():
            values[name].append(metric.function(t, p))
    return {name: np.array(column) for name, column in values.items()}


def interval(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrap values."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a proportion (Wilson 1927); (0, 1) if `total` is 0.

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]
    """
    if not total:  # SciPy raises an error for 0 of 0
        return 0.0, 1.0
    found = binomtest(hits, total).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def mcnemar(one_right: NDArray[np.bool_], other_right: NDArray[np.bool_]) -> float:
    """Return the two-sided p-value of McNemar's exact test of equal error rates.

    McNemar 1947: of the images that exactly one contender predicts correctly, each contender
    has half under the null hypothesis (binomial test).

    Parameters
    ----------
    one_right, other_right : ndarray (n,), bool
        Whether each contender predicts each test image correctly.
    """
    only_one = int(np.sum(one_right & ~other_right))
    only_other = int(np.sum(~one_right & other_right))
    if only_one + only_other == 0:
        return 1.0
    return float(binomtest(only_one, only_one + only_other, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple tests (Holm 1979).

    >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class Comparison:
    """Difference of two contenders in a metric, on the same test images.

    Attributes
    ----------
    one, other : str
    metric : str
    difference : float
        Metric of `one` minus metric of `other`.
    low, high : float
        Its 95 % interval by the paired bootstrap.
    p_value : float
        Two-sided: McNemar's exact test for top-1; for other metrics twice the fraction of
        resamples whose difference has the opposite sign.
    adjusted : float
        The p-value after Holm's correction for all pairs of this metric.
    """

    one: str
    other: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    adjusted: float

    @property
    def significant(self) -> bool:
        """Whether the contenders differ in this metric, after the correction."""
        return self.adjusted < SIGNIFICANCE


def compare(
    results: Sequence[Result], samples: dict[str, dict[str, NDArray[np.float64]]]
) -> list[Comparison]:
    """Compare each pair of contenders by each metric.

    Parameters
    ----------
    results : sequence of Result
        On the same test images.
    samples : dict of str to dict
        The `bootstrap` of each by name, made with one seed.
    """
    pairs = list(combinations(results, 2))
    found: list[Comparison] = []
    for metric in METRICS:
        rows = []
        for one, other in pairs:
            gaps = samples[one.name][metric] - samples[other.name][metric]
            if metric == "top1":
                p = mcnemar(one.prediction == one.truth, other.prediction == other.truth)
            else:
                n = len(gaps)
                tail = min(np.sum(gaps <= 0), np.sum(gaps >= 0))
                p = min(1.0, 2 * (tail + 1) / (n + 1))  # never 0: n resamples cannot show that
            rows.append((one, other, gaps, float(p)))
        adjusted = holm([row[3] for row in rows])
        for (one, other, gaps, p), corrected in zip(rows, adjusted, strict=True):
            low, high = interval(gaps)
            gap = one.metrics[metric] - other.metrics[metric]
            found.append(Comparison(one.name, other.name, metric, gap, low, high, p, corrected))
    return found
