"""Names of classes, their order, and slices that differ from the rest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import fisher_exact

from bench.analysis.class_names import display_names
from bench.analysis.class_order import confusion_order
from bench.analysis.slices import significant, slices


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("n02085620-Chihuahua", "Chihuahua"),
        ("n02110063-malamute", "Malamute"),
        ("golden_retriever", "Golden retriever"),
        ("black-and-tan_coonhound", "Black-and-tan coonhound"),
        ("BMW_X5", "BMW X5"),
        ("n02085620", "N02085620"),
        ("n02085620-", "N02085620-"),
        ("___", "___"),
        ("élan", "Élan"),
        (7, "7"),
        (False, "False"),
        ("\u202eevil", "\\u202eevil"),
    ],
)
def test_names_are_made_readable(label: object, name: str) -> None:
    assert display_names([label, "another"])[0] == name


def test_names_stay_distinct() -> None:
    classes = ["wild_cat", "Wild cat", "n01234567-pug", "n76543210-pug", "fox"]
    names = display_names(classes)
    assert names == ["wild_cat", "Wild cat", "n01234567-pug", "n76543210-pug", "Fox"]


def test_confused_classes_become_neighbours() -> None:
    groups = [(0, 5, 9), (1, 4), (2, 7, 8)]
    table = np.diag(np.full(10, 50))
    for members in groups:
        for a in members:
            for b in members:
                table[a, b] += 8 * (a != b)
    order = confusion_order(table).tolist()
    assert sorted(order) == list(range(10))
    for members in groups:
        places = sorted(order.index(code) for code in members)
        assert places[-1] - places[0] == len(members) - 1
    assert order[-2:] == [3, 6]  # those that are never confused


@pytest.mark.parametrize("k", [1, 2, 3])
def test_few_classes_and_no_confusion_have_an_order(k: int) -> None:
    assert confusion_order(np.diag(np.full(k, 3))).tolist() == list(range(k))
    assert sorted(confusion_order(np.ones((k, k), int)).tolist()) == list(range(k))


def test_the_order_does_not_depend_on_classes_without_images() -> None:
    table = np.diag([5, 0, 5])
    table[0, 2] = 2
    assert sorted(confusion_order(table)[:2].tolist()) == [0, 2]


def result_of(right: Any, name: str = "c") -> Any:
    truth = np.zeros(len(right), np.int64)
    return SimpleNamespace(name=name, truth=truth, prediction=np.where(right, 0, 1))


def test_slices_have_fishers_p_corrected_for_all_of_a_contender() -> None:
    generator = np.random.default_rng(0)
    planted = np.array(["bad"] * 60 + ["good"] * 140)
    right = generator.random(200) < np.where(planted == "bad", 0.5, 0.9)
    noise = generator.choice(["a", "b", "c", "d"], 200)
    found = slices([result_of(right)], {"planted": list(planted), "noise": list(noise)})
    assert len(found) == 6
    bad = next(part for part in found if part.value == "bad")
    inside = right[planted == "bad"]
    table = [[inside.sum(), (~inside).sum()], [right[60:].sum(), (~right[60:]).sum()]]
    _, expected = fisher_exact(table)
    assert bad.p_value == pytest.approx(expected)
    assert bad.adjusted == pytest.approx(6 * expected)
    assert [part.value for part in significant(found)] == ["bad", "good"]


def test_each_contender_is_corrected_for_its_own_slices() -> None:
    right = np.array([True, False] * 30)
    values = {"x": ["a", "b"] * 30}
    alone = slices([result_of(right)], values)
    both = slices([result_of(right), result_of(~right, "d")], values)
    assert [p.adjusted for p in alone] == [p.adjusted for p in both if p.contender == "c"]


def test_random_slices_are_rarely_significant() -> None:
    generator = np.random.default_rng(1)
    found = 0
    for _ in range(60):
        right = generator.random(100) < 0.8
        values = {str(i): list(generator.choice(["a", "b", "c"], 100)) for i in range(4)}
        found += bool(significant(slices([result_of(right)], values)))
    assert found <= 6  # at a level of 5 %, three of 60 are expected at most
