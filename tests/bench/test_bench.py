"""Metrics are scikit-learn's; the evaluation hands out no answer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import (
    CachedHead,
    Contender,
    ContenderInfo,
    Training,
    evaluate,
    load_split,
    make_split,
)
from bench.__main__ import main
from bench.contenders.colour_histogram import ColourHistogram, colour_histogram
from bench.evaluation import metrics
from conftest import make_tiny_model, photo
from contracts import ContenderContract
from featcache import Dataset, load_dataset
from featcache.errors import DatasetError, InvalidRequest
from heads import LogisticHead


def predictions(n: int, k: int, seed: int) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    proba = generator.dirichlet(np.ones(k), n)
    return generator.integers(0, k, n), proba


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(2, 9), st.integers(0, 1000))
def test_metrics_agree_with_scikit_learn(n: int, k: int, seed: int) -> None:
    truth, proba = predictions(n, k, seed)
    labels = np.arange(k)
    prediction = proba.argmax(axis=1)
    assert metrics.top_k(truth, proba, 1) == pytest.approx(np.mean(prediction == truth))
    if k > 2:
        for m in (2, 3):
            expected = (
                reference.top_k_accuracy_score(truth, proba, k=m, labels=labels) if m < k else 1
            )
            assert metrics.top_k(truth, proba, m) == pytest.approx(expected)
    assert metrics.macro_f1(truth, proba) == pytest.approx(
        reference.f1_score(truth, prediction, average="macro")
    )
    assert metrics.log_loss(truth, proba) == pytest.approx(
        reference.log_loss(truth, proba, labels=labels)
    )
    table = reference.confusion_matrix(truth, prediction, labels=labels)
    assert np.array_equal(metrics.confusion(truth, proba), table)
    each = reference.precision_recall_fscore_support(
        truth, prediction, labels=labels, zero_division=0
    )
    ours = metrics.per_class(truth, proba)
    for name, expected in zip(("precision", "recall", "f1", "support"), each, strict=True):
        assert np.allclose(ours[name], expected)


def test_calibration_error_of_a_sure_and_a_modest_model() -> None:
    truth = np.array([0, 0, 0, 1])
    sure = np.tile([1.0, 0.0], (4, 1))
    modest = np.tile([0.75, 0.25], (4, 1))
    assert metrics.calibration_error(truth, sure) == pytest.approx(0.25)
    assert metrics.calibration_error(truth, modest) == pytest.approx(0)


class TestCachedHead(ContenderContract):
    def make(self) -> Contender:
        return CachedHead(make_tiny_model(), "logistic")

    def test_boxes_of_one_photo_are_one_group_of_the_head(self, easy_images: Any) -> None:
        images, codes = easy_images
        seen: list[Any] = []

        class Recorder(LogisticHead):
            def fit(
                self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None
            ) -> Any:
                seen.append(groups)
                return super().fit(X, y, sample_weight, groups)

        contender = CachedHead(make_tiny_model(), Recorder())
        contender.prepare(images)
        contender.fit(images.take(range(20)), codes[:20], 2, random_state=0, progress=False)
        assert seen == [images.photos[:20]]


class TestColourHistogram(ContenderContract):
    keeps_files = False

    def make(self) -> Contender:
        return ColourHistogram()


class Constant(Contender):
    """Says the same for every image, and keeps whatever it was given."""

    def train(self, training: Training) -> None:
        self.seen, self.codes = training.images, training.codes
        self.n_classes = training.n_classes

    def predict_proba(self, images: Any) -> Any:
        self.asked = images
        return np.full((len(images), self.n_classes), 1 / self.n_classes)

    def facts(self) -> ContenderInfo:
        return ContenderInfo(backbone="none")


def test_a_colour_histogram_counts_pixels() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2, :2] = (255, 0, 40)
    histogram = colour_histogram(pixels)
    assert histogram[0] ** 2 == pytest.approx(0.75)
    assert histogram[7 * 64 + 0 * 8 + 1] ** 2 == pytest.approx(0.25)
    assert np.sum(histogram**2) == pytest.approx(1)


def test_all_contenders_get_the_same_images(photos: Path) -> None:
    split = make_split(load_dataset(photos), 0.25)
    one, other = Constant(), Constant()
    evaluate({"one": one, "other": other}, split)
    assert one.seen == other.seen
    assert one.asked == other.asked
    assert not set(one.seen.ids) & set(one.asked.ids)
    assert len(one.seen) + len(one.asked) == 12


def test_nothing_a_contender_gets_tells_the_class_of_a_test_image(photos: Path) -> None:
    split = make_split(load_dataset(photos), 0.5)
    spy = Constant()
    evaluate({"spy": spy}, split)
    labels = dict(zip(split.ids, split.dataset.labels or [], strict=True))
    truth = [labels[i] for i in spy.asked.ids]
    for path in spy.asked.paths:
        assert "cat" not in os.path.realpath(path).replace(str(photos.parent), "")
        assert "dog" not in os.path.realpath(path).replace(str(photos.parent), "")
    assert truth != sorted(truth)  # nor the order they come in
    by_name = [label for _, label in sorted(zip(spy.asked.paths, truth, strict=True))]
    assert by_name != sorted(by_name)
    assert len(spy.codes) == len(spy.seen)


def test_copies_of_a_training_image_never_fall_into_the_test_part(photos: Path) -> None:
    for i in range(12):
        source = next(photos.glob(f"*/{i:02d}.png"))
        for copy in range(2):
            (photos / "dog" / f"copy{copy}-{i}.png").write_bytes(source.read_bytes())
    for seed in range(10):
        split = make_split(load_dataset(photos), 0.3, seed)
        assert not {split.ids[i] for i in split.train} & {split.ids[i] for i in split.test}


def test_an_image_that_one_contender_cannot_use_is_left_out_for_all(photos: Path) -> None:
    (photos / "cat" / "00.png").write_bytes(b"no image")
    split = make_split(load_dataset(photos), 0.5)
    other = Constant()
    results = evaluate({"head": CachedHead(make_tiny_model(), "svm"), "other": other}, split)
    assert len(other.seen) + len(other.asked) == 11
    assert next(iter(results.unusable.values())).startswith("is not an image")
    assert {len(r.truth) for r in results} == {len(other.asked)}


def test_results_are_in_the_order_of_the_data_set_and_saved_whole(
    photos: Path, tmp_path: Path
) -> None:
    split = make_split(load_dataset(photos), 0.5)
    results = evaluate({"logistic": CachedHead(make_tiny_model(), "logistic")}, split)
    result = results["logistic"]
    assert result.positions.tolist() == split.test.tolist()
    assert result.truth.tolist() == split.codes(split.test).tolist()
    files = results.save(tmp_path / "out")
    record = json.loads(files[0].read_text())
    assert record["contenders"][0]["top1"] == result.metrics["top1"]
    assert np.sum(record["contenders"][0]["confusion"]) == len(split.test)
    assert "logistic" in str(results)
    assert files[1].read_text().startswith("contender,top1,top3,top5,macro_f1,log_loss")


def test_the_cost_of_features_is_charged_also_when_they_were_stored_before(photos: Path) -> None:
    split = make_split(load_dataset(photos), 0.5)
    costs = [
        evaluate({"h": CachedHead(make_tiny_model(), "svm")}, split)["h"].cost for _ in range(2)
    ]
    assert costs[0].extract_seconds == pytest.approx(costs[1].extract_seconds) != 0
    assert costs[1].total_seconds > costs[1].head_seconds


@pytest.mark.parametrize(
    "bad",
    [
        lambda n, k: np.ones((n, k)),
        lambda n, k: np.full((n, k), np.nan),
        lambda n, k: np.full((n, k - 1), 1.0),
    ],
)
def test_what_is_no_probability_is_refused(photos: Path, bad: Any) -> None:
    class Wrong(Constant):
        def predict_proba(self, images: Any) -> Any:
            return bad(len(images), self.n_classes)

    with pytest.raises(InvalidRequest, match="does not hold probabilities"):
        evaluate({"wrong": Wrong()}, make_split(load_dataset(photos), 0.5))


def test_a_saved_split_fits_the_set_after_a_move(photos: Path, tmp_path: Path) -> None:
    split = make_split(load_dataset(photos), 0.25, random_state=3)
    split.save(tmp_path / "split.json")
    moved = photos.rename(tmp_path / "elsewhere")
    again = load_split(tmp_path / "split.json", load_dataset(moved))
    assert [again.ids[i] for i in again.test] == [split.ids[i] for i in split.test]
    photo(moved / "cat" / "00.png", 77)
    with pytest.raises(DatasetError, match="1 of its images are not in"):
        load_split(tmp_path / "split.json", load_dataset(moved))


@pytest.mark.parametrize("labels", [None, ["a"] * 6])
def test_a_set_without_two_classes_is_refused(photos: Path, labels: Any) -> None:
    paths = sorted(str(p) for p in photos.glob("cat/*.png"))
    with pytest.raises(DatasetError, match="at least two classes"):
        make_split(Dataset(paths, labels))


def test_the_script_prints_a_table_and_computes_nothing_the_second_time(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--data", str(photos), "--backbones", "mobilenet", "--heads", "logistic,svm", "--weights",
        "random", "--image-size", "32", "--out", str(tmp_path / "out"), "--quiet",
    ]  # fmt: skip
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "mobilenet + logistic" in first
    assert "12 embeddings were computed now" in first
    assert main(command) == 0
    assert "\nNo embedding was computed: all were stored" in capsys.readouterr().out
    assert (tmp_path / "out" / "results.json").exists()
    assert main([*command, "--out", "/proc/nowhere"]) == 2
    assert "cannot be created" in capsys.readouterr().err
    assert main([*command, "--heads", "nope"]) == 2
    assert "There is no head 'nope'" in capsys.readouterr().err
