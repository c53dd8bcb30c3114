"""Results of made-up predictions on photos of noise: a report in a second, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import Result, Results, Split, Summary, summarise
from bench.contenders.base import ContenderInfo
from bench.evaluation.results import Cost
from conftest import photo
from featcache import Dataset

PER_CLASS = 12
TRUTH = np.array([0, 2, 1, 0])
PROBA = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]])


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


def small_results(root: str = "/photos", first: str = "cat/1.jpg", boxes: Any = None) -> Results:
    """One contender on four test images, behind two to train."""
    names = ["a.jpg", "b.jpg", first, "ox/2.jpg", "=dog/3.jpg", "cat/4.jpg"]
    labels = ["cat", "=dog", "cat", "ox", "=dog", "cat"]
    dataset = Dataset(
        [f"{root}/{name}" for name in names], labels, root=root, name="x",
        categories=["cat", "=dog", "ox"], boxes=boxes, crop="box" if boxes else "whole",
    )  # fmt: skip
    ids = [f"{i:064x}" for i in range(6)]
    split = Split(dataset, ids, np.arange(2), np.arange(2, 6), "official")
    one = Result("c", TRUTH, PROBA, np.arange(2, 6), Cost(0, 0, 0, 0, 6, 4), ContenderInfo())
    return Results([one], split, 0, {})
