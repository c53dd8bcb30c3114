"""The key of a preprocessing function: by its code, defaults, globals and closure."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preprocessing_rules import all_different, autocontrast, by_global, unit

from featcache import explain
from featcache.backbones.preprocessing import RULES, fingerprint

PINNED = {
    "none": "1e3b1113f59dde97",
    "unit": "bdd51cb3223bf648",
    "tf": "c018d628a86bee40",
    "torch": "b98ce519e312cd25",
    "caffe": "d91b2a4fd452072e",
    "clip": "6537076a8e5e93be",
}


def _divided_by(value: Any) -> Any:
    return lambda x: x / value


class _Scaling:
    def __init__(self, table: Any) -> None:
        self.table = table

    def __call__(self, x: Any) -> Any:
        return x / self.table

    def halved(self, x: Any) -> Any:
        return x / 2


def test_stretching_each_image_is_not_dividing_by_255() -> None:
    assert all_different([autocontrast, unit])


@pytest.mark.parametrize(
    "functions",
    [
        # Each pair does the same to every image that is looked at.
        [lambda x: x / 255, lambda x: x / 255 if x.shape[1] != 99 else x],
        [_divided_by(255), _divided_by(255.0)],
        [_divided_by(np.full(3, 255.0)), _divided_by(np.array([255, 255, 255 + 1e-9]))],
        [functools.partial(np.add, 1), functools.partial(np.add, 1.0)],
        [_Scaling(1), _Scaling(1.0)],
        [_Scaling(2), _Scaling(2).halved],
    ],
    ids=["branch", "closure", "array", "partial", "instance", "method"],
)
def test_functions_that_only_differ_unseen_have_different_keys(functions: list[Any]) -> None:
    assert all_different(functions)


def test_a_global_that_changes_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(by_global)
    monkeypatch.setattr("preprocessing_rules.DIVISOR", 255.0 + 1e-9)
    assert fingerprint(by_global) != before


def test_defaults_and_attributes_are_part_of_it() -> None:
    def scaled(by: float, unused: int = 0) -> Any:
        def rule(x: Any, by: float = by) -> Any:
            return x / by

        rule.unused = unused  # type: ignore[attr-defined]
        return rule

    assert all_different([scaled(255), scaled(255 + 1e-9), scaled(255, 1)])


def test_name_comments_and_annotations_are_not() -> None:
    def one(x: np.ndarray[Any, Any]) -> Any:
        """Divide."""
        return x / 255  # by the largest value

    def other(x):  # type: ignore[no-untyped-def]
        return x / 255

    assert fingerprint(one) == fingerprint(other)


def test_the_fingerprints_of_named_rules_are_pinned() -> None:
    """They are in the keys of all stores."""
    assert {rule: fingerprint(rule) for rule in RULES} == PINNED


def test_functions_of_libraries_are_known_by_name() -> None:
    import keras

    first, second = (
        getattr(keras.applications, name).preprocess_input for name in ("resnet50", "resnet_v2")
    )
    assert all_different([first, second])
    assert fingerprint(first) == fingerprint(first)
    assert all_different([keras.layers.Rescaling(1 / 255), keras.layers.Rescaling(1.0 / 254)])
    one, two = keras.layers.Rescaling(1 / 255), keras.layers.Rescaling(1 / 255)
    assert fingerprint(one) == fingerprint(two)


def test_two_functions_go_to_two_stores(tmp_path: Path, photos: Path) -> None:
    folders = {
        explain(
            "mobilenet", photos, weights="random", image_size=32, cache_dir=tmp_path,
            preprocessing=rule,
        ).folder
        for rule in (autocontrast, unit, "unit")
    }  # fmt: skip
    assert len(folders) == 3
