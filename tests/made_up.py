"""Results of made-up predictions on photos of noise: a report in a second, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench import Result, Results, Split, Summary, summarise
from bench.contenders.base import ContenderInfo
from bench.evaluation.results import Cost
from conftest import photo
from featcache import Dataset

PER_CLASS = 12


def made_up_results(
    folder: Path,
    classes: Sequence[str],
    boosts: Sequence[float] = (4.0, 3.5, 0.5),
    random_state: int = 0,
    file_prefix: str = "",
) -> Results:
    """Contenders ``one``, ``two``...: the larger the boost of the true class, the better."""
    paths, labels = [], []
    for code, label in enumerate(classes):
        for i in range(PER_CLASS):
            number = code * PER_CLASS + i
            paths.append(str(folder / f"{code}" / f"{file_prefix}{i:02d}.png"))
            if not Path(paths[-1]).exists():
                photo(Path(paths[-1]), number)
            labels.append(label)
    n = len(paths)
    dark = ["dark" if i % 3 == 0 else "bright" for i in range(n)]
    data = Dataset(paths, labels, root=str(folder), name="made up", attributes={"light": dark})
    test = np.array([i for i in range(n) if i % PER_CLASS >= 2])
    train = np.setdiff1d(np.arange(n), test)
    split = Split(data, [f"{i:064x}" for i in range(n)], train, test, "official")
    truth = split.codes(test)
    results = []
    for name, boost in zip(("one", "two", "three"), boosts, strict=False):
        generator = np.random.default_rng([random_state, len(results)])
        logits = generator.normal(size=(len(test), len(classes)))
        logits[np.arange(len(test)), truth] += boost
        proba = np.exp(logits)
        proba /= proba.sum(axis=1, keepdims=True)
        cost = Cost(1.5, 0.1, 2.0, 0.1, n, len(test), 10, 1000, 2**20, 2**28)
        results.append(Result(name, truth, proba, test, cost, ContenderInfo(weights="none")))
    return Results(results, split, random_state, {})


def made_up_summary(folder: Path, classes: Sequence[str], seeds: int = 1) -> Summary:
    """Return a summary of such results, one per seed."""
    runs = [made_up_results(folder, classes, random_state=seed) for seed in range(seeds)]
    return summarise(runs, computed_attributes=False)
