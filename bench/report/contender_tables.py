"""Tables of the contenders: paired differences as a matrix, and the values of all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..analysis.earlier import EarlierRun, comparison_record, differences
from ..analysis.statistics import Comparison
from ..analysis.summary import Summary
from ..evaluation.metrics import METRICS
from ..evaluation.results import Results

# What the report compares: the accuracy, and a metric that weighs all classes alike.
COMPARED = ("top1", "macro_f1")


@dataclass(frozen=True)
class PairCell:
    """Metric of the row's contender minus that of the column's.

    Attributes
    ----------
    difference, low, high : float
        With its 95 % interval.
    p : float
        Corrected for all pairs.
    standing : str
        ``"better"`` or ``"worse"`` if the difference is significant, else ``"tied"``.
    """

    difference: float
    low: float
    high: float
    p: float
    standing: str


def pair_matrix(
    names: Sequence[str], comparisons: Sequence[Comparison], metric: str
) -> list[list[PairCell | None]]:
    """Return the differences of all pairs of contenders; None on the diagonal."""
    cells: dict[tuple[str, str], PairCell] = {}
    for c in comparisons:
        if c.metric == metric:
            cells[c.one, c.other] = _cell(c, c.difference, c.low, c.high)
            cells[c.other, c.one] = _cell(c, 0 - c.difference, 0 - c.high, 0 - c.low)
    return [[cells.get((one, other)) for other in names] for one in names]


def _cell(comparison: Comparison, difference: float, low: float, high: float) -> PairCell:
    better = (difference > 0) == METRICS[comparison.metric].higher_is_better
    standing = "tied" if not comparison.significant else "better" if better else "worse"
    return PairCell(difference, low, high, comparison.adjusted, standing)


def pair_matrices(summary: Summary) -> list[dict[str, Any]]:
    """Return the matrices of the report; empty for one contender."""
    names = [result.name for result in summary.first]
    if len(names) < 2:
        return []
    return [
        {"metric": metric, "rows": pair_matrix(names, summary.comparisons, metric)}
        for metric in COMPARED
    ]


def earlier_columns(results: Results, earlier: EarlierRun) -> dict[str, Any]:
    """Return what the page shows of an earlier run, with the change of top-1 by contender."""
    found = differences(results, earlier)
    record = comparison_record(results, earlier)
    return {**record, "changes": {d.contender: d for d in found if d.metric == "top1"}}


def seed_rows(summary: Summary) -> list[dict[str, Any]]:
    """Return top-1 of each seed, and mean and standard deviation of each metric over the seeds.

    Returns
    -------
    list of dict
        One per contender: ``contender``, ``top1`` (a list, one value per seed), and ``means``
        and ``stds`` by metric. Empty for one seed.
    """
    if len(summary.runs) < 2:
        return []
    rows = []
    for result in summary.first:
        values = {m: [run[result.name].metrics[m] for run in summary.runs] for m in METRICS}
        rows.append(
            {
                "contender": result.name,
                "top1": values["top1"],
                "means": {m: float(np.mean(v)) for m, v in values.items()},
                "stds": {m: float(np.std(v, ddof=1)) for m, v in values.items()},
            }
        )
    return rows
