"""Intervals, tests and slices are what the textbooks say; the report holds them all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import accuracy_score

from bench import (
    NO_AUGMENTATION,
    CachedHead,
    FineTuned,
    evaluate,
    make_split,
    summarise,
    write_report,
)
from bench.__main__ import main
from bench.analysis.slices import Parts, group, slices, worst
from bench.analysis.statistics import bootstrap, holm, interval, mcnemar, wilson
from bench.evaluation.memory import PeakMemory
from bench.report.report import save_summary
from featcache.datasets import drawn_dogs


def test_mcnemar_is_the_exact_binomial_test() -> None:
    one = np.array([True] * 50 + [True] * 9 + [False] * 2)
    other = np.array([True] * 50 + [False] * 9 + [True] * 2)
    expected = 2 * binom.cdf(2, 11, 0.5)
    assert mcnemar(one, other) == pytest.approx(expected)
    assert mcnemar(one, one) == 1


def test_holm_orders_and_never_lowers() -> None:
    assert holm([0.2, 0.01, 0.03, 0.9]) == pytest.approx([0.4, 0.04, 0.09, 0.9])


def test_wilson_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    inside = [
        w[0] <= 0.9 <= w[1] for w in (wilson(int(h), 60) for h in generator.binomial(60, 0.9, 2000))
    ]
    assert 0.93 < np.mean(inside) < 0.985
    assert wilson(0, 0) == (0, 1)


def test_bootstrap_intervals_cover_the_metric_and_are_paired_by_seed() -> None:
    generator = np.random.default_rng(1)
    truth, proba = generator.integers(0, 4, 200), generator.dirichlet(np.ones(4), 200)
    samples = bootstrap(truth, proba, resamples=400)
    low, high = interval(samples["top1"])
    accuracy = accuracy_score(truth, proba.argmax(axis=1))
    assert low < accuracy < high
    assert (high - low) / 3.92 == pytest.approx(np.sqrt(accuracy * (1 - accuracy) / 200), rel=0.15)
    assert np.array_equal(samples["top1"], bootstrap(truth, proba, resamples=400)["top1"])


def test_numbers_are_cut_into_quarters_and_words_stay() -> None:
    parts = group([str(v) for v in range(100)])
    assert parts is not None
    assert [parts.of_each.count(name) for name in parts.names] == [25, 25, 25, 25]
    assert group(["a", "b", "a"]) == Parts(["a", "b"], ["a", "b", "a"])
    assert group(["10", "x", "9"]) == Parts(["9", "10", "x"], ["10", "x", "9"])
    assert group(["x"] * 9) is None
    assert group([f"name {i}" for i in range(50)]) is None
    mixed = group([*(str(v) for v in range(20)), ""])
    assert mixed is not None
    assert mixed.of_each[-1] == ""


def test_peak_memory_sees_what_was_taken_and_given_back() -> None:
    with PeakMemory(interval=0.005) as memory:
        block = np.ones(40_000_000)
        before = memory.peak
        del block
    assert memory.peak >= max(before, 300 * 2**20)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from conftest import make_tiny_model

    folder = tmp_path_factory.mktemp("report")
    dogs = drawn_dogs(4, 24, image_size=48, folder=folder / "dogs")
    (folder / "dogs" / "broken").mkdir()
    cache = {"cache_dir": folder / "cache"}
    contenders = {
        "logistic": CachedHead(make_tiny_model(side=32), "logistic", **cache),
        "dense": CachedHead(make_tiny_model(side=32), "dense", **cache),
        "tuned": FineTuned(
            make_tiny_model(side=32), 1.0, units=(8,), epochs=3,
            augmentation=NO_AUGMENTATION, **cache,
        ),
    }  # fmt: skip
    runs = [evaluate(contenders, make_split(dogs, 0.4, seed), random_state=seed) for seed in (0, 1)]
    return summarise(runs), contenders, folder


def test_every_number_of_the_summary_is_there_and_agrees(summary: Any) -> None:
    found, contenders, _ = summary
    rows = {row["contender"]: row for row in found.table()}
    assert list(rows) == list(contenders)
    for name, row in rows.items():
        values = [run[name].metrics["top1"] for run in found.runs]
        assert row["top1_mean"] == pytest.approx(np.mean(values))
        assert row["top1_low"] <= row["top1"] <= row["top1_high"]
        assert row["peak_memory_bytes"] > 2**20
        assert row["trainable_parameters"] > 0
    top1 = [c for c in found.comparisons if c.metric == "top1"]
    assert len(top1) == 3
    assert all(c.adjusted >= c.p_value for c in found.comparisons)
    assert rows["tuned"]["total_parameters"] > 0


def test_slices_add_up_to_the_whole_and_name_the_three_failures(summary: Any) -> None:
    found, *_ = summary
    result = found.first["logistic"]
    for attribute in ("size", "light", "fur_length"):
        parts = [s for s in found.slices if s.attribute == attribute and s.contender == "logistic"]
        assert sum(s.images for s in parts) == len(result.truth)
        assert sum(s.hits for s in parts) == round(result.metrics["top1"] * len(result.truth))
    assert {"aspect ratio", "brightness", "megapixels"} <= set(found.attributes)


def test_the_worst_slices_are_those_surely_below_the_rest(summary: Any) -> None:
    found, *_ = summary
    result = found.first.results[0]
    right = result.prediction == result.truth
    planted = ["bad" if not r else "good" for r in right]
    parts = slices([result], {"planted": planted})
    assert [p.value for p in worst(parts, smallest=1)] == ["bad"]


def test_time_to_accuracy_is_never_shorter_for_a_higher_one(summary: Any) -> None:
    found, *_ = summary
    for row in found.time_to_accuracy():
        times = [v for k, v in row.items() if k != "contender" and v is not None]
        assert times == sorted(times)


def test_the_report_is_one_file_that_needs_no_network(summary: Any, tmp_path: Path) -> None:
    found, contenders, _ = summary
    page = write_report(
        found, tmp_path / "out", contenders, "python -m bench --data 'a b'"
    ).read_text()
    addresses = re.findall(r'(?:src|href)="([^"#][^"]{0,30})', page)
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    for text in (
        "Size, light and length of fur", "most confident first", "Learning curves", "Depth",
        "Paired tests of the", "python -m bench --data &#39;a b&#39;", "Random training photos",
        found.first.split.dataset.name,
    ):  # fmt: skip
        assert text in page
    assert page.count("<svg") == 6  # the matrix is drawn by the script
    assert page.count("<img") > 30
    assert all('alt="' in image for image in re.findall(r"<img[^>]*>", page))
    figures = {p.name for p in (tmp_path / "out" / "figures").iterdir()}
    assert {
        "confusion.png",
        "confusion.csv",
        "accuracy_cost.png",
        "networks.csv",
        "reliability.csv",
    } <= figures


def test_labels_from_outside_cannot_become_markup(tmp_path: Path) -> None:
    from conftest import make_tiny_model, photo
    from featcache import load_dataset

    evil = "<script>alert(1)<|script>"
    for i in range(12):
        photo(tmp_path / "set" / ("plain" if i % 2 else evil) / f"{i}.png", i)
    split = make_split(load_dataset(tmp_path / "set"), 0.5)
    results = evaluate({'<b>"x"</b>': CachedHead(make_tiny_model(), "logistic")}, split)
    page = write_report(summarise([results]), tmp_path / "out").read_text()
    assert "<script>alert" not in page
    assert r'"\u003cscript\u003ealert(1)' in page
    assert "&lt;b&gt;" in page
    assert "<b>&#34;x" not in page


def test_the_summary_joins_the_results_file(summary: Any, tmp_path: Path) -> None:
    found, *_ = summary
    found.first.save(tmp_path)
    save_summary(found, tmp_path)
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["summary"]["seeds"] == [0, 1]
    assert record["seed"] == 0
    assert len(record["summary"]["table"]) == 3


def test_the_script_writes_a_report_with_a_fine_tuned_model(tmp_path: Path, capsys: Any) -> None:
    dogs = drawn_dogs(3, 10, image_size=40, folder=tmp_path / "dogs")
    command = [
        "--data", str(Path(dogs.root) / "images.csv"), "--backbones", "mobilenet", "--heads",
        "logistic", "--weights", "random", "--image-size", "32", "--finetune", "mobilenet:0.2",
        "--epochs", "1",
        "--seeds", "2", "--report", str(tmp_path / "out"), "-q",
    ]  # fmt: skip
    assert main(command) == 0
    assert "report.html" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "seeded random weights" in page
    assert "mobilenet:0.2 fine-tuned" in page
