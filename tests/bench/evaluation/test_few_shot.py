"""Curves over few training images: nested draws, all test images, no slow contender."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import CachedHead, FineTuned, evaluate, make_split, summarise
from bench.evaluation.few_shot import DRAWS, counts_for, draw_rows
from bench.report.figures import FewShotCurves
from conftest import make_tiny_model
from featcache.datasets import drawn_dogs
from featcache.errors import InvalidRequest


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 99))
def test_a_draw_has_so_many_of_each_class_and_holds_the_smaller_ones(
    labels: list[int], per_class: int, seed: int
) -> None:
    codes = np.array(labels)
    rows = draw_rows(codes, per_class, 0, seed)
    chosen = np.bincount(codes[rows], minlength=5)
    assert np.array_equal(chosen, np.minimum(np.bincount(codes, minlength=5), per_class))
    assert set(draw_rows(codes, per_class, 0, seed)) <= set(
        draw_rows(codes, per_class + 1, 0, seed)
    )


def test_counts_that_a_class_cannot_fill_are_left_out() -> None:
    codes = np.repeat([0, 1, 3], [40, 10, 31])
    assert counts_for(codes) == [1, 2, 5, 10]
    with pytest.raises(InvalidRequest, match="start at 1"):
        counts_for(codes, (0, 1))


def test_curves_are_those_of_quick_contenders_and_reach_the_results(tmp_path: Path) -> None:
    dogs = drawn_dogs(3, 20, image_size=48)
    contenders = {
        "logistic": CachedHead(make_tiny_model(side=32), "logistic"),
        "lightgbm": CachedHead(make_tiny_model(side=32), "lightgbm"),
        "dense": CachedHead(make_tiny_model(side=32), "dense"),
        "tuned": FineTuned(make_tiny_model(side=32), 1.0, units=(4,), epochs=1),
    }
    results = evaluate(contenders, make_split(dogs, 0.4), few_shot=(1, 5, 12))
    points = results.few_shot
    assert {point.contender for point in points} == {"logistic", "lightgbm"}
    assert sorted({point.per_class for point in points}) == [1, 5, 12]
    assert len(points) == 2 * 3 * DRAWS
    # With all training images, a curve ends where the table stands.
    full = [p.top1 for p in points if p.contender == "logistic" and p.per_class == 12]
    assert full == pytest.approx([results["logistic"].metrics["top1"]] * DRAWS)
    results.save(tmp_path)
    record = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert len(record["few_shot"]) == len(points)
    figure = FewShotCurves(summarise([results]).first.few_shot)
    frame = figure.frame()
    assert len(frame) == 6
    assert (frame["lowest"] <= frame["top1"]).all()
    assert (frame["top1"] <= frame["highest"]).all()
    assert "with 1 and 12 training images" in figure.alt
    assert b"PNG" in figure.drawn()[1][:8]
