"""Results and searches show short tables in a notebook."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.contenders.base import ContenderInfo
from bench.evaluation.results import Cost, Result, Results
from featcache import extract
from heads import search


def test_a_search_shows_its_best_points(photos: Path, tiny_model: Any) -> None:
    grid = {"C": np.geomspace(1e-4, 1, 12).tolist()}
    result = search("logistic", extract(tiny_model, photos), param_grid=grid, cv=2)
    page = result._repr_html_()
    assert page.count("<tr>") == 11
    assert f"C={result.best_params_['C']!r}" in page
    assert "and 2 more" in page


def test_results_show_metrics_and_names_as_text() -> None:
    proba = np.array([[0.8, 0.2], [0.3, 0.7]])
    one = Result(
        "<b>mine", np.array([0, 1]), proba, np.arange(2), Cost(0, 0, 1.5, 0, 4, 2), ContenderInfo()
    )
    split: Any = SimpleNamespace(
        dataset=SimpleNamespace(name="a & b"), train=[1, 2], test=[1, 2], classes=["x", "y"],
        name="random",
    )  # fmt: skip
    page = Results([one], split, 0, {})._repr_html_()
    assert "&lt;b&gt;mine" in page
    assert "a &amp; b: 2 train, 2 test" in page
    assert "<td>1.0000</td>" in page
    assert "<td>1.50</td>" in page
