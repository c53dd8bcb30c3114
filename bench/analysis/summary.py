"""Summary of a comparison: the numbers of the report and of `results.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation.metrics import METRICS
from ..evaluation.results import Result, Results
from .explanations import Explanations, explain_errors
from .slices import Slice, attributes_of_test, slices, worst
from .statistics import Comparison, bootstrap, compare, interval, wilson

ACCURACIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Summary:
    """Results of one or several seeds, with intervals, paired tests and slices.

    Attributes
    ----------
    runs : list of Results
        One per seed, of the same contenders. All details are those of the first seed.
    intervals : mapping of str to mapping of str to (float, float)
        95 % bootstrap interval by contender and metric, first seed.
    comparisons : list of Comparison
        All pairs in all metrics, first seed.
    slices, worst : list of Slice
        Accuracy by attribute, first seed.
    attributes : mapping of str to list of str
        Attributes of the test images, first seed.
    explanations : Explanations or None
        Traits that confused breeds share, for `best_with_mistakes`; None unless the traits of the
        classes are known.
    """

    runs: list[Results]
    intervals: Mapping[str, Mapping[str, tuple[float, float]]]
    comparisons: list[Comparison]
    slices: list[Slice]
    worst: list[Slice]
    attributes: Mapping[str, list[str]]
    explanations: Explanations | None = None

    @property
    def first(self) -> Results:
        """The results of the first seed."""
        return self.runs[0]

    @property
    def best(self) -> Result:
        """The contender with the highest top-1 accuracy of the first seed."""
        return max(self.first, key=lambda result: result.metrics["top1"])

    @property
    def best_with_mistakes(self) -> Result:
        """The best contender that has errors; the best one if none has."""
        wrong = [result for result in self.first if result.metrics["top1"] < 1]
        return max(wrong, key=lambda result: result.metrics["top1"], default=self.best)

    @property
    def tied_with_best(self) -> list[str]:
        """Names of the contenders whose top-1 does not differ significantly from the best one's."""
        best = self.best.name
        ties = [
            {c.one, c.other} - {best}
            for c in self.comparisons
            if c.metric == "top1" and best in (c.one, c.other) and not c.significant
        ]
        return [name for pair in ties for name in pair]

    def table(self) -> list[dict[str, Any]]:
        """Return one record per contender: metrics with intervals, mean over seeds, cost."""
        pairs = zip(self.first.records(), self.first, strict=True)
        return [self._row(record, result) for record, result in pairs]

    def _row(self, record: dict[str, Any], result: Result) -> dict[str, Any]:
        row = dict(record)
        tied = result.name in self.tied_with_best
        row["standing"] = "best" if result.name == self.best.name else "tied" if tied else ""
        for metric, (low, high) in self.intervals[result.name].items():
            row[f"{metric}_low"], row[f"{metric}_high"] = low, high
        if len(self.runs) > 1:
            for metric in METRICS:
                values = [run[result.name].metrics[metric] for run in self.runs]
                row[f"{metric}_mean"] = float(np.mean(values))
                row[f"{metric}_std"] = float(np.std(values, ddof=1))
        cost = result.cost
        # Seconds per new image: extraction or decoding, and prediction.
        seconds = cost.extract_seconds / cost.images + cost.predict_seconds / cost.test_images
        row["images_per_second"] = 1 / seconds if seconds else 0.0
        return row

    def time_to_accuracy(self) -> list[dict[str, Any]]:
        """Return the seconds until each contender reached an accuracy; None if it did not.

        For contenders that train in epochs, until the first epoch with that validation
        accuracy; for others, until the end of training if they have that test accuracy.
        Extraction is included.
        """
        return [
            {"contender": r.name, **{f"{a:g}": _seconds_to(r, a) for a in ACCURACIES}}
            for r in self.first
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the entry ``summary`` of `results.json`."""
        record = {
            "seeds": [run.random_state for run in self.runs],
            "table": self.table(),
            "comparisons": [asdict(c) for c in self.comparisons],
            "slices": [asdict(s) for s in self.slices],
            "worst_slices": [asdict(s) for s in self.worst],
            "time_to_accuracy": self.time_to_accuracy(),
        }
        if self.explanations is not None:
            record["traits"] = self.explanations.as_json()
        return record


def summarise(runs: Sequence[Results], *, computed_attributes: bool = True) -> Summary:
    """Compute intervals, paired tests and slices of results.

    Parameters
    ----------
    runs : sequence of Results
        One per seed, of the same contenders.
    computed_attributes : bool
        Also slice by aspect ratio, brightness and resolution, which reads the test images.

    Returns
    -------
    Summary
    """
    first = runs[0]
    samples = {r.name: bootstrap(r.truth, r.proba) for r in first}
    intervals = {
        name: {metric: _interval(metric, values, first[name]) for metric, values in columns.items()}
        for name, columns in samples.items()
    }
    attributes = attributes_of_test(first.split, computed=computed_attributes)
    found = slices(first.results, attributes)
    best = max(first, key=lambda result: result.metrics["top1"])
    summary = Summary(
        runs=list(runs),
        intervals=intervals,
        comparisons=compare(first.results, samples),
        slices=found,
        worst=worst([part for part in found if part.contender == best.name]),
        attributes=attributes,
    )
    explained = explain_errors(summary.best_with_mistakes, first.split.classes, attributes)
    return replace(summary, explanations=explained)


def _interval(metric: str, values: NDArray[Any], result: Result) -> tuple[float, float]:
    """Return the bootstrap interval; Wilson's if all resamples have the same accuracy.

    If all test images are predicted correctly, so are those of each resample, and the bootstrap
    interval would have width 0.
    """
    low, high = interval(values)
    if low == high and METRICS[metric].counts_hits:
        count = len(result.truth)
        return wilson(round(result.metrics[metric] * count), count)
    return low, high


def _seconds_to(result: Result, accuracy: float) -> float | None:
    cost, history = result.cost, result.facts.history
    if not history:
        return (
            cost.extract_seconds + cost.fit_seconds if result.metrics["top1"] >= accuracy else None
        )
    for value, seconds in zip(history["val_accuracy"], history["seconds"], strict=True):
        if value >= accuracy:
            return cost.extract_seconds + seconds
    return None
