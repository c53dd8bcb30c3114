"""Bins of a contender's predictions by confidence, with counts and intervals."""

from __future__ import annotations

from ..analysis.statistics import wilson
from ..evaluation.metrics import reliability
from ..evaluation.results import Result

BINS = 10


def reliability_bins(result: Result) -> list[dict[str, float]]:
    """Return one record per non-empty bin of equal width.

    Returns
    -------
    list of dict
        ``low``, the lower edge of the bin; ``count`` of its test images; mean ``confidence`` and
        ``accuracy``; ``accuracy_low`` and ``accuracy_high``, Wilson's 95 % interval.
    """
    table = reliability(result.truth, result.proba, bins=BINS)
    records = [{name: float(values[i]) for name, values in table.items()} for i in range(BINS)]
    found = []
    for record in records:
        if record["count"]:
            total = round(record["count"])
            low, high = wilson(round(record["accuracy"] * total), total)
            found.append({**record, "accuracy_low": low, "accuracy_high": high})
    return found
