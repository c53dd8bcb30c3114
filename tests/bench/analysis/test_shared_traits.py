"""Errors within a trait against chance: what is planted is found, and what is not is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.analysis.explanations import explain_errors
from bench.analysis.shared_traits import SharedTrait, expected_errors, shared_trait
from bench.analysis.slices import class_attributes
from featcache.datasets import traits

CLASSES = list(traits("stanford-dogs"))
BREEDS = [traits("stanford-dogs")[name] for name in CLASSES]
SIZES = np.array([breed.size for breed in BREEDS])


def confusion_of(pairs: Sequence[tuple[int, int]], right: int = 10) -> NDArray[np.int64]:
    """Return a confusion matrix with some hits per class and one error for each pair."""
    found = np.eye(len(BREEDS), dtype=np.int64) * right
    for truth, prediction in pairs:
        found[truth, prediction] += 1
    return found


Allowed = Callable[[int], NDArray[np.bool_]]


def drawn_pairs(seed: int, errors: int, allowed: Allowed) -> list[tuple[int, int]]:
    """Return errors of random breeds, each as one of those that are allowed for it."""
    generator = np.random.default_rng(seed)
    every = np.arange(len(BREEDS))
    return [
        (int(truth), int(generator.choice(every[allowed(truth) & (every != truth)])))
        for truth in generator.integers(0, len(BREEDS), errors)
    ]


def within_size(seed: int, errors: int = 200) -> list[tuple[int, int]]:
    return drawn_pairs(seed, errors, lambda truth: SIZES[truth] == SIZES)


def at_random(seed: int, errors: int = 200) -> list[tuple[int, int]]:
    return drawn_pairs(seed, errors, lambda truth: np.ones(len(BREEDS), bool))


def measured(pairs: Sequence[tuple[int, int]], trait: str = "size") -> SharedTrait:
    found = shared_trait(trait, confusion_of(pairs), BREEDS)
    assert found is not None
    return found


def test_expected_errors_are_those_of_wrong_predictions_drawn_at_random() -> None:
    generator = np.random.default_rng(0)
    confusion = generator.integers(0, 9, (5, 5)) + 20 * np.eye(5, dtype=int)
    predicted = confusion.sum(axis=0)
    total = np.zeros((5, 5))
    draws = 4000
    for truth in range(5):
        errors = confusion[truth].sum() - confusion[truth, truth]
        # Draw predictions as often as each class is predicted, and drop those that are right.
        drawn = generator.choice(5, errors * draws * 3, p=predicted / predicted.sum())
        wrong = drawn[drawn != truth][: errors * draws]
        assert len(wrong) == errors * draws
        total[truth] = np.bincount(wrong, minlength=5) / draws
    assert expected_errors(confusion.astype(float)) == pytest.approx(total, abs=0.15)


def test_expected_errors_of_a_class_that_takes_all_predictions_are_none() -> None:
    confusion = np.array([[5.0, 0.0], [3.0, 0.0]])
    assert expected_errors(confusion).tolist() == [[0, 0], [3, 0]]


def test_the_expected_fraction_is_that_of_a_simulation() -> None:
    pairs = at_random(3)
    found = measured(pairs)
    generator = np.random.default_rng(1)
    predicted = confusion_of(pairs).sum(axis=0)
    fractions = []
    for _ in range(300):
        same = []
        for truth, _prediction in pairs:
            odds = np.where(np.arange(len(BREEDS)) == truth, 0, predicted)
            drawn = generator.choice(len(BREEDS), p=odds / odds.sum())
            same.append(SIZES[truth] == SIZES[drawn])
        fractions.append(np.mean(same))
    assert found.expected == pytest.approx(np.mean(fractions), abs=0.01)
    assert found.within == sum(SIZES[a] == SIZES[b] for a, b in pairs)
    assert found.fraction == found.within / found.errors
    assert found.low < found.fraction < found.high


def test_the_range_and_the_p_value_are_those_of_shuffles_one_by_one() -> None:
    pairs = at_random(4, 80)
    found = measured(pairs)
    confusion = confusion_of(pairs).astype(float)
    excess = confusion * (1 - np.eye(len(BREEDS))) - expected_errors(confusion)
    generator = np.random.default_rng(9)
    shuffled = []
    for _ in range(3000):
        sizes = generator.permutation(SIZES)
        shuffled.append(np.sum(excess * (sizes[:, None] == sizes)) / found.errors)
    low, high = np.quantile(shuffled, [0.025, 0.975])
    assert found.expected_low == pytest.approx(found.expected + low, abs=0.01)
    assert found.expected_high == pytest.approx(found.expected + high, abs=0.01)
    distance = np.abs(np.array(shuffled) - np.mean(shuffled))
    assert found.p_value == pytest.approx(
        np.mean(distance >= abs(found.fraction - found.expected)), abs=0.04
    )


def test_errors_within_a_size_are_found_and_counted_by_size() -> None:
    found = measured(within_size(0))
    assert found.fraction == 1
    assert found.expected_high < 0.5
    assert found.p_value < 0.001
    counts = np.array(found.counts)
    assert found.values == ["small", "medium", "large", "giant"]
    assert counts.sum() == np.trace(counts) == found.errors == 200


def test_p_values_of_errors_at_random_are_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.analysis.shared_traits.SHUFFLES", 199)
    p_values = [measured(at_random(seed, 60)).p_value for seed in range(60)]
    assert 0 <= sum(p < 0.1 for p in p_values) <= 14  # 6 expected, 14 in one of a thousand
    assert 0.35 < np.mean(p_values) < 0.65


def test_many_errors_of_one_pair_are_not_many_proofs() -> None:
    small = np.flatnonzero(SIZES == "small")
    one_pair = measured([(int(small[0]), int(small[1]))] * 100)
    assert one_pair.fraction == 1
    assert one_pair.p_value > 0.05


def test_a_trait_that_only_the_group_explains_does_not_matter_within_groups() -> None:
    groups = np.array([breed.group for breed in BREEDS])
    pairs = drawn_pairs(5, 400, lambda truth: groups[truth] == groups)
    by_group, by_size = measured(pairs), measured(within_size(5, 400))
    assert by_group.p_value < 0.01
    assert by_group.beyond_groups is not None
    assert by_size.beyond_groups is not None
    assert by_group.beyond_groups > 0.05
    assert by_size.beyond_groups < 0.01
    assert measured(pairs, "breed group").beyond_groups is None


def test_breeds_without_a_group_take_no_part_in_groups() -> None:
    wild, dog = CLASSES.index("Dingo"), CLASSES.index("Basenji")
    found = measured([(wild, dog), (dog, wild), *at_random(0, 50)], "breed group")
    named = [breed.fci_group is not None for breed in BREEDS]
    assert found.errors == sum(named[a] and named[b] for a, b in at_random(0, 50))
    assert "not recognised" not in found.values


def test_breeds_share_a_colour_if_any_is_the_same() -> None:
    names = ["Samoyed", "Great Pyrenees", "Vizsla"]  # white and cream, white, red and tan
    confusion = np.array([[9, 3, 1], [2, 9, 0], [0, 0, 9]])
    found = shared_trait("colour", confusion, [traits("stanford-dogs")[name] for name in names])
    assert found is not None
    assert (found.errors, found.within) == (6, 5)


def test_nothing_is_compared_without_errors_or_without_a_difference() -> None:
    assert shared_trait("size", confusion_of([]), BREEDS) is None
    alike = [replace(breed, size="small") for breed in BREEDS]
    assert shared_trait("size", confusion_of(at_random(0)), alike) is None


def result_of(pairs: Sequence[tuple[int, int]]) -> Any:
    """Return what the analysis needs of a result: two correct predictions per class, then pairs."""
    every = [(row, row) for row in range(len(BREEDS)) for _ in range(2)] + list(pairs)
    truth, prediction = np.array(every).T
    confusion = np.zeros((len(BREEDS), len(BREEDS)), np.int64)
    np.add.at(confusion, (truth, prediction), 1)
    return SimpleNamespace(
        name="one", truth=truth, prediction=prediction, confusion=lambda: confusion
    )


def test_the_sentence_says_that_an_explanation_holds() -> None:
    found = explain_errors(result_of(within_size(0)), CLASSES, {})
    assert found is not None
    assert found.light is None
    sentence = found.sentences["size"]
    assert sentence.startswith(
        "Size: 100 % of the 200 errors are between breeds of one size class (95 % interval "
    )
    assert "the explanation holds, breeds of one size class are confused more often" in sentence
    assert "also within their breed groups (p < 0.001" in sentence.replace("p = 0.001", "p < 0.001")


def test_the_sentence_says_that_an_explanation_is_not_confirmed() -> None:
    found = explain_errors(result_of(at_random(2)), CLASSES, {})
    assert found is not None
    assert list(found.sentences) == ["size", "colour", "coat length", "breed group"]
    for trait, sentence in found.sentences.items():
        assert ("the explanation is not confirmed, " in sentence) == (trait != "breed group")
        assert "confused significantly more or less often than chance" in sentence


def test_the_sentence_says_that_the_opposite_holds() -> None:
    pairs = drawn_pairs(0, 400, lambda truth: SIZES[truth] != SIZES)
    found = explain_errors(result_of(pairs), CLASSES, {})
    assert found is not None
    assert found.sentences["size"].startswith("Size: 0 % of the 400 errors")
    assert (
        "the explanation is not confirmed, breeds of one size class are confused less often"
        in (found.sentences["size"])
    )


def test_light_is_told_by_the_brightness_of_the_photos() -> None:
    result = result_of(at_random(2))
    wrong = result.prediction != result.truth
    generator = np.random.default_rng(0)
    even = [f"{value:.4g}" for value in generator.uniform(0, 255, len(wrong))]
    dark = [f"{value:.4g}" for value in generator.uniform(0, 99, len(wrong)) + 120 * ~wrong]
    same, different = (explain_errors(result, CLASSES, {"brightness": b}) for b in (even, dark))
    assert same is not None
    assert different is not None
    assert "does not depend significantly on the light (" in same.sentences["colour"]
    assert "the explanation is not confirmed, " in same.sentences["colour"]
    assert "the explanation holds in part, " in different.sentences["colour"]
    assert "the error rate depends on the light (100, " in different.sentences["colour"]
    assert different.light is not None
    assert sum(different.light.images) == len(wrong)
    assert sum(different.light.errors) == wrong.sum()
    assert different.adjusted["light"] < 0.001


def test_other_classes_have_no_traits() -> None:
    assert explain_errors(result_of(at_random(2)), ["cat", *CLASSES[1:]], {}) is None


def test_numbers_are_written_as_json() -> None:
    found = explain_errors(result_of(within_size(0)), CLASSES, {})
    assert found is not None
    record = json.loads(json.dumps(found.as_json()))
    assert record["contender"] == "one"
    assert record["shared"][0]["trait"] == "size"
    assert set(record["sentences"]) == {"size", "colour", "coat length", "breed group"}


def test_slices_of_breeds_follow_the_class_of_each_test_image() -> None:
    classes = ["beagle", "great_dane", "pug"]
    codes = np.array([0, 2, 1])
    split: Any = SimpleNamespace(classes=classes, test=codes, codes=lambda positions: codes)
    assert class_attributes(split) == {
        "breed size": ["medium", "small", "giant"],
        "coat length": ["short", "short", "short"],
        "breed group": ["scent hounds", "companions and toys", "pinschers and molossers"],
    }
    assert class_attributes(SimpleNamespace(**{**vars(split), "classes": ["cat"]})) == {}  # type: ignore[arg-type]


@pytest.fixture
def photos_of_breeds(tmp_path: Path) -> Path:
    from conftest import photo

    for number, name in enumerate(["beagle", "pug", "great_dane"]):
        for i in range(8):
            photo(tmp_path / "dogs" / name / f"{i}.png", 10 * number + i)
    return tmp_path


def test_the_report_and_the_results_have_traits_only_for_breeds(photos_of_breeds: Path) -> None:
    from bench import CachedHead, evaluate, make_split, summarise, write_report
    from conftest import make_tiny_model
    from featcache import load_dataset

    head = CachedHead(make_tiny_model(), "logistic", cache_dir=photos_of_breeds / "cache")
    split = make_split(load_dataset(photos_of_breeds / "dogs"), 0.5)
    summary = summarise([evaluate({"head": head}, split)])
    wrong = result_of(within_size(0))
    explained = replace(summary, explanations=explain_errors(wrong, CLASSES, {}))
    assert explained.as_json()["traits"]["contender"] == "one"
    page = write_report(explained, photos_of_breeds / "out").read_text()
    assert 'id="traits"' in page
    assert "Size: 100 % of the 200 errors" in page
    assert "predicted giant" in page
    assert {s.attribute for s in summary.slices} >= {"breed size", "breed group"}
    without = replace(summary, explanations=None)
    assert "traits" not in without.as_json()
    assert 'id="traits"' not in write_report(without, photos_of_breeds / "out").read_text()
