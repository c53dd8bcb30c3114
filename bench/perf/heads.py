"""Heads against scikit-learn's own, on made-up embeddings of two sizes."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

from heads import make_head

from .embeddings import made_up
from .timing import forget_the_peak, in_a_process, in_turns, median, resident, spread, table

SIZES = {"5,784 x 1,280, 101 classes": (5784, 1280, 101, 2893),
         "18,522 x 2,048, 120 classes": (18522, 2048, 120, 2058)}  # fmt: skip
OURS = ("logistic", "svm", "lightgbm")
# These take minutes, and so are run once, and at the smaller size alone.
SLOW = ("sklearn LinearSVC", "sklearn SVC(linear)")
PATH = (0.0003, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.2)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return seconds to fit and to predict, accuracy and memory of each."""
    found: list[dict[str, Any]] = []
    for size, shape in SIZES.items():
        larger = shape[0] > 10_000
        names = [*OURS, "sklearn LogisticRegression"]
        slow = [] if larger else list(SLOW)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in [*names, *slow, "C path"]}

        def once(name: str, shape: tuple[int, ...] = shape, runs: Any = runs) -> float:
            record = in_a_process("-m", "bench.perf.heads", name, *shape)
            runs[name].append(record)
            return float(record["fit"])

        in_turns({name: lambda name=name: once(name) for name in names}, options.repeats)  # type: ignore[misc]
        for name in [*slow, "C path"]:
            once(name)
        found.append({"size": size, "runs": runs})
    return found


def _one(name: str, rows: int, width: int, classes: int, others: int) -> dict[str, Any]:
    X, y = made_up(rows + others, width, classes)
    train, test = X[:rows].copy(), X[rows:].copy()
    del X
    if name != "C path":  # imports are no part of what a fit takes
        (make_head(name) if name in OURS else _theirs(name)).fit(train[:300], y[:300])
    forget_the_peak()
    before = resident("VmRSS")
    started = time.perf_counter()
    if name == "C path":
        return _path(train, y[:rows], started)
    model = make_head(name) if name in OURS else _theirs(name)
    model.fit(train, y[:rows])
    fitted = time.perf_counter()
    predictions = model.predict(test)
    predicted = time.perf_counter()
    peak = resident("VmHWM")
    return {
        "fit": fitted - started, "predict": predicted - fitted,
        "accuracy": float(np.mean(predictions == y[rows:])),
        "peak": (peak - before + train.nbytes) / train.nbytes,
    }  # fmt: skip


def _theirs(name: str) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, LinearSVC

    # With the strengths of our heads' defaults: the same problem, solved by others.
    model = {
        "sklearn LogisticRegression": LogisticRegression(C=0.01, max_iter=300),
        "sklearn LinearSVC": LinearSVC(C=0.002),
        "sklearn SVC(linear)": SVC(kernel="linear", C=0.002),
    }[name]
    return make_pipeline(StandardScaler(), model)


def _path(X: Any, y: Any, started: float) -> dict[str, Any]:
    """Cross-validate eight strengths in five folds, as `heads.search` does."""
    from types import SimpleNamespace

    from heads import search

    features: Any = SimpleNamespace(X=X, y=y, ids=[str(i) for i in range(len(X))])
    result = search("logistic", features, param_grid={"C": list(PATH)}, cv=5)
    whole = time.perf_counter()
    make_head("logistic", C=result.best_params_["C"]).fit(X, y)
    single = time.perf_counter() - whole
    return {"fit": whole - started, "single": single, "accuracy": result.best_score_}


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        "Made-up embeddings (`bench/perf/embeddings.py`). Our fits include scaling and "
        "calibration, scikit-learn's the scaling. Seconds: median (least to largest); the SVMs of "
        "scikit-learn once each, at the smaller size alone. Memory: the training matrix and what "
        "fitting takes besides, over the matrix.",
    ]
    for record in records:
        lines += ["", f"**{record['size']}**", ""]
        rows: list[list[object]] = [["head", "fit, s", "predict, s", "accuracy", "peak / matrix"]]
        runs = record["runs"]
        path = runs.pop("C path")
        for name, found in runs.items():
            if found:
                peak = max(run["peak"] for run in found)
                rows.append([
                    name, spread([run["fit"] for run in found]),
                    f"{median([run['predict'] for run in found]):.3f}",
                    f"{found[0]['accuracy']:.4f}", f"{peak:.2f}",
                ])  # fmt: skip
        lines += table(*rows)
        for run in path:
            lines += ["", f"`heads.search` over {len(PATH)} values of C in 5 folds, with the best "
                      f"trained on all rows: {run['fit']:.1f} s, {run['fit'] / run['single']:.1f} "
                      "times one fit of it."]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(_one(sys.argv[1], *map(int, sys.argv[2:]))))
