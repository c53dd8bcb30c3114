"""Results of an evaluation: predictions, metrics and costs, saved as JSON and CSV."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.toolkit import format_count, printable

from ..contenders.base import ContenderInfo
from ..splits import Split
from .few_shot import FewShot
from .metrics import METRICS, confusion, per_class
from .predictions import prediction_records
from .tables import write_csv

OVERLAP = (
    "The photos of Stanford Dogs come from ImageNet, so a backbone with ImageNet weights may have "
    "seen the test images in its own training. Compare with results on a second data set."
)
# Weights that were not trained on photos.
_NOT_FROM_PHOTOS = ("random", "none", "packaged")


@dataclass(frozen=True)
class Cost:
    """Cost of a contender; seconds are wall time.

    Attributes
    ----------
    extract_seconds : float
        Computing the features of all images once, even if they were stored before this run; 0
        for a contender without features.
    prepare_seconds : float
        Preparation in this run; near 0 if all features were stored.
    fit_seconds, predict_seconds : float
        Training, and predicting the test part, from stored features.
    images, test_images : int
        Number of all images, and of the test images.
    trainable_parameters, total_parameters : int
    disk_bytes : int
        Size of store, decoded pixels and checkpoints.
    peak_memory_bytes : int
        Largest resident size of the process while the contender was prepared, trained and
        used; 0 if not measured.
    """

    extract_seconds: float
    prepare_seconds: float
    fit_seconds: float
    predict_seconds: float
    images: int
    test_images: int
    trainable_parameters: int = 0
    total_parameters: int = 0
    disk_bytes: int = 0
    peak_memory_bytes: int = 0

    @property
    def total_seconds(self) -> float:
        """Seconds of extraction, training and prediction."""
        return self.extract_seconds + self.fit_seconds + self.predict_seconds

    @property
    def head_seconds(self) -> float:
        """Seconds of training and prediction, as when the features are already stored."""
        return self.fit_seconds + self.predict_seconds


@dataclass(frozen=True)
class Result:
    """Predictions of one contender on the test part, with its metrics and costs.

    Attributes
    ----------
    name : str
    truth : ndarray (n,) of int64
        Class code of each test image.
    proba : ndarray (n, k) of float64
        Predicted probabilities; rows sum to 1.
    positions : ndarray (n,) of int64
        Position of each test image in the data set, ascending.
    cost : Cost
    facts : ContenderInfo
    """

    name: str
    truth: NDArray[np.int64]
    proba: NDArray[np.float64]
    positions: NDArray[np.int64]
    cost: Cost
    facts: ContenderInfo

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Values of all metrics of `bench.evaluation.metrics.METRICS`, by name."""
        return {name: m.function(self.truth, self.proba) for name, m in METRICS.items()}

    @property
    def prediction(self) -> NDArray[np.int64]:
        """Code of the most probable class of each test image, (n,) int64."""
        return np.asarray(self.proba.argmax(axis=1))

    def confusion(self) -> NDArray[np.int64]:
        """Return the confusion matrix (k, k): counts by true class (rows) and prediction."""
        return confusion(self.truth, self.proba)

    def per_class(self, classes: Sequence[Any]) -> list[dict[str, Any]]:
        """Return one record per class: precision, recall, F1 and support."""
        table = per_class(self.truth, self.proba)
        return [
            {"class": name, **{column: float(values[i]) for column, values in table.items()}}
            for i, name in enumerate(classes)
        ]


@dataclass(frozen=True)
class Results:
    """The results of several contenders on one split.

    Attributes
    ----------
    results : list of Result
    split : Split
        Without the images that could not be used.
    random_state : int
    unusable : dict of str to str
        Reason by example id, of the images that could not be used.
    few_shot : list of FewShot
        Points of the few-shot curves; empty unless `evaluate` was asked for them.
    """

    results: list[Result]
    split: Split
    random_state: int
    unusable: dict[str, str]
    few_shot: list[FewShot] = field(default_factory=list)

    def __repr__(self) -> str:
        count = format_count(len(self.results), "contender")
        return f"<Results of {count} on {self.split.dataset.name}, split {self.split.name}>"

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __getitem__(self, name: str) -> Result:
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(name)

    @property
    def overlaps_imagenet(self) -> bool:
        """Whether a backbone may have been trained on the test photos."""
        return "stanford dogs" in self.split.dataset.name.lower() and any(
            result.facts.weights_kind not in _NOT_FROM_PHOTOS for result in self.results
        )

    def records(self) -> list[dict[str, Any]]:
        """Return one flat record per contender: name, metrics and costs."""
        return [
            {
                "contender": r.name,
                **r.metrics,
                **asdict(r.cost),
                "total_seconds": r.cost.total_seconds,
                "head_seconds": r.cost.head_seconds,
            }
            for r in self.results
        ]

    def __str__(self) -> str:
        names = ["top1", "top3", "top5", "macro_f1", "log_loss", "calibration_error"]
        shown = ["top-1", "top-3", "top-5", "macro-F1", "log loss", "calib. err."]
        header = [*shown, "extract s", "fit s", "predict s"]
        wide = max([len(r.name) for r in self.results] + [len("contender")])
        lines = [f"{'contender':<{wide}}" + "".join(f"{h:>12}" for h in header)]
        for r in self.results:
            cells = [f"{r.metrics[name]:.4f}" for name in names]
            cost = (r.cost.extract_seconds, r.cost.fit_seconds, r.cost.predict_seconds)
            cells += [f"{seconds:.2f}" for seconds in cost]
            lines.append(f"{r.name:<{wide}}" + "".join(f"{cell:>12}" for cell in cells))
        lines.append(f"\n{printable(self._counts())}")
        if self.overlaps_imagenet:
            lines.append(f"Caution: {OVERLAP}")
        return "\n".join(lines)

    def _counts(self) -> str:
        """Return how many images there are of what, in a sentence."""
        s = self.split
        return (
            f"{s.dataset.name}: {len(s.train)} train, {len(s.test)} test, "
            f"{format_count(len(s.classes), 'class', 'classes')}, split {s.name}; "
            f"{format_count(len(self.unusable), 'image')} unusable."
        )

    def _repr_html_(self) -> str:
        """Return the table of metrics and costs, for a notebook."""
        names = ["top1", "top5", "macro_f1", "log_loss", "calibration_error"]
        titles = ["contender", *names, "fit_seconds", "predict_seconds"]
        head = "".join(f"<th>{title}</th>" for title in titles)
        rows = []
        for r in self.results:
            cells = [escape(r.name), *(f"{r.metrics[name]:.4f}" for name in names)]
            cells += [f"{r.cost.fit_seconds:.2f}", f"{r.cost.predict_seconds:.2f}"]
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        notes = self._counts() + (f" Caution: {OVERLAP}" if self.overlaps_imagenet else "")
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
            f"<p>{escape(notes)}</p>"
        )

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write ``results.json``, ``results.csv``, ``predictions.csv``, the split and the classes.

        ``predictions.csv`` has one row per contender and test image; the classes of each
        contender are a CSV file of its own.

        Parameters
        ----------
        folder : path
            Created if it does not exist.

        Returns
        -------
        list of Path
            The files, the JSON first.
        """
        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        classes = self.split.classes
        record = {
            "dataset": self.split.dataset.name,
            "split": self.split.name,
            "seed": self.random_state,
            "train_images": len(self.split.train),
            "test_images": len(self.split.test),
            "test_ids_sha256": digest_of_test_ids(self.split),
            "classes": classes,
            "unusable": self.unusable,
            "few_shot": [asdict(point) for point in self.few_shot],
            "contenders": [
                {
                    **flat,
                    "facts": asdict(result.facts),
                    "per_class": result.per_class(classes),
                    "confusion": result.confusion().tolist(),
                }
                for flat, result in zip(self.records(), self.results, strict=True)
            ],
        }
        names = ("results.json", "results.csv", "split.json", "predictions.csv")
        files = [out / name for name in names]
        files[0].write_text(json.dumps(record, indent=1), "utf-8")
        write_csv(files[1], self.records())
        self.split.save(files[2])
        predictions = (prediction_records(result, self.split) for result in self.results)
        write_csv(files[3], chain.from_iterable(predictions))
        for result in self.results:
            file = out / f"per_class_{_file_name(result.name)}.csv"
            write_csv(file, result.per_class(classes))
            files.append(file)
        return files


def digest_of_test_ids(split: Split) -> str:
    """Return a SHA-256 of the example ids of the test part, equal for equal sets of images."""
    ids = split.example_ids
    chosen = sorted(ids[i] for i in split.test)
    return hashlib.sha256("\n".join(chosen).encode()).hexdigest()


def _file_name(name: str) -> str:
    text = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    data = name.encode("utf-8", "surrogatepass")
    if len(data) <= 200:
        return text
    # File systems refuse names of more than 255 bytes, after hours of training.
    return f"{text[:40]}-{hashlib.sha256(data).hexdigest()[:16]}"
