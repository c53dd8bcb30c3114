"""Every prediction on the test part, one record per contender and image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featcache import Dataset

from ..splits import Split

if TYPE_CHECKING:
    from .results import Result

TOP = 5


def file_name(dataset: Dataset, position: int) -> str:
    """Return the path of an image relative to the data set's folder, with forward slashes.

    The path of an image outside of that folder is returned unchanged.
    """
    path = dataset.paths[position]
    folder = os.path.join(dataset.root, "") if dataset.root else ""
    inside = bool(folder) and path.startswith(folder)
    return path[len(folder) :].replace(os.sep, "/") if inside else path


def top_classes(proba: NDArray[np.float64], count: int = TOP) -> NDArray[np.int64]:
    """Return the codes of the most probable classes of each row, (n, at most `count`).

    Among equal probabilities the lower class code comes first, as in `numpy.argmax`.

    Examples
    --------
    >>> top_classes(np.array([[0.2, 0.4, 0.4], [0.1, 0.0, 0.9]]), 2).tolist()
    [[1, 2], [2, 0]]
    """
    return np.asarray(np.argsort(-proba, axis=1, kind="stable")[:, :count])


def prediction_records(result: Result, split: Split) -> Iterator[dict[str, Any]]:
    """Yield one record per test image: file, id, truth, and the most probable classes.

    Parameters
    ----------
    result : Result
    split : Split
        The one that the result was computed on.

    Yields
    ------
    dict
        ``contender``, ``file``, ``example_id``, ``box`` (if the data set has boxes), ``truth``,
        ``correct``, ``truth_probability``, and ``prediction_1``, ``probability_1`` up to
        `TOP`, or the number of classes if that is smaller.
    """
    classes, dataset, ids = split.classes, split.dataset, split.example_ids
    best = top_classes(result.proba)
    for row, position in enumerate(map(int, result.positions)):
        truth, proba = int(result.truth[row]), result.proba[row]
        record: dict[str, Any] = {
            "contender": result.name,
            "file": file_name(dataset, position),
            "example_id": ids[position],
        }
        if dataset.boxes is not None:
            box = dataset.boxes[position]
            record["box"] = "" if box is None else " ".join(map(str, box))
        record["truth"] = classes[truth]
        record["correct"] = bool(best[row, 0] == truth)
        record["truth_probability"] = _rounded(proba[truth])
        for rank, code in enumerate(best[row].tolist(), 1):
            record[f"prediction_{rank}"] = classes[code]
            record[f"probability_{rank}"] = _rounded(proba[code])
        yield record


def _rounded(probability: float) -> float:
    return float(f"{probability:.6g}")
