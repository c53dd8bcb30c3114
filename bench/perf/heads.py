"""Speed, accuracy and memory of heads and of scikit-learn, on synthetic embeddings of two sizes."""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from typing import Any

import numpy as np

from heads import make_head

from .embeddings import synthetic_embeddings
from .timing import (
    format_spread,
    markdown_table,
    median,
    reset_peak_rss,
    resident_bytes,
    run_in_subprocess,
    run_interleaved,
)

SIZES = {"5,784 x 1,280, 101 classes": (5784, 1280, 101, 2893),
         "18,522 x 2,048, 120 classes": (18522, 2048, 120, 2058)}  # fmt: skip
OURS = ("logistic", "svm", "lightgbm")
# They take minutes, so they are run once, and only at the smaller size.
SLOW = ("sklearn LinearSVC", "sklearn SVC(linear)")
C_VALUES = (0.0003, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.2)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return seconds to fit and to predict, accuracy and peak memory of each classifier."""
    records: list[dict[str, Any]] = []
    for size, shape in SIZES.items():
        larger = shape[0] > 10_000
        names = [*OURS, "sklearn LogisticRegression"]
        slow = [] if larger else list(SLOW)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in [*names, *slow, "search"]}

        def fit_seconds(name: str, shape: tuple[int, ...] = shape, runs: Any = runs) -> float:
            record = run_in_subprocess("-m", "bench.perf.heads", name, *shape)
            runs[name].append(record)
            return float(record["fit"])

        actions = {name: functools.partial(fit_seconds, name) for name in names}
        run_interleaved(actions, options.repeats)
        for name in [*slow, "search"]:
            fit_seconds(name)
        records.append({"size": size, "runs": runs})
    return records


def _measure(name: str, rows: int, width: int, classes: int, others: int) -> dict[str, Any]:
    X, y = synthetic_embeddings(rows + others, width, classes)
    train, test = X[:rows].copy(), X[rows:].copy()
    del X
    if name != "search":  # so that imports are not part of the time of a fit
        (make_head(name) if name in OURS else _sklearn_model(name)).fit(train[:300], y[:300])
    reset_peak_rss()
    before = resident_bytes("VmRSS")
    started = time.perf_counter()
    if name == "search":
        return _measure_search(train, y[:rows], started)
    model = make_head(name) if name in OURS else _sklearn_model(name)
    model.fit(train, y[:rows])
    fitted = time.perf_counter()
    predictions = model.predict(test)
    predicted = time.perf_counter()
    peak = resident_bytes("VmHWM")
    return {
        "fit": fitted - started, "predict": predicted - fitted,
        "accuracy": float(np.mean(predictions == y[rows:])),
        "peak": (peak - before + train.nbytes) / train.nbytes,
    }  # fmt: skip


def _sklearn_model(name: str) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, LinearSVC

    # With the default C of the heads, so that the optimisation problem is the same.
    model = {
        "sklearn LogisticRegression": LogisticRegression(C=0.01, max_iter=300),
        "sklearn LinearSVC": LinearSVC(C=0.002),
        "sklearn SVC(linear)": SVC(kernel="linear", C=0.002),
    }[name]
    return make_pipeline(StandardScaler(), model)


def _measure_search(X: Any, y: Any, started: float) -> dict[str, Any]:
    """Measure `heads.search` over eight values of C in five folds."""
    from heads import search

    result = search("logistic", X, y, param_grid={"C": list(C_VALUES)}, cv=5)
    whole = time.perf_counter()
    make_head("logistic", C=result.best_params_["C"]).fit(X, y)
    single = time.perf_counter() - whole
    return {"fit": whole - started, "single": single, "accuracy": result.best_score_}


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        "Synthetic embeddings (`bench/perf/embeddings.py`). The fit of a head includes scaling "
        "and calibration, that of scikit-learn includes scaling. Seconds: median (min to max); "
        "the SVMs of scikit-learn are fitted once, and only at the smaller size. Peak memory "
        "includes the training matrix and is divided by its size.",
    ]
    for record in records:
        lines += ["", f"**{record['size']}**", ""]
        rows: list[list[object]] = [["head", "fit, s", "predict, s", "accuracy", "peak / matrix"]]
        runs = record["runs"]
        searches = runs.pop("search")
        for name, found in runs.items():
            if found:
                peak = max(run["peak"] for run in found)
                rows.append([
                    name, format_spread([run["fit"] for run in found]),
                    f"{median([run['predict'] for run in found]):.3f}",
                    f"{found[0]['accuracy']:.4f}", f"{peak:.2f}",
                ])  # fmt: skip
        lines += markdown_table(*rows)
        for run in searches:
            lines += ["", f"`heads.search` over {len(C_VALUES)} values of C in 5 folds, with a "
                      f"final fit on all rows: {run['fit']:.1f} s, "
                      f"{run['fit'] / run['single']:.1f} times a single fit."]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], *map(int, sys.argv[2:]))))
