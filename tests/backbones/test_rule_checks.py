"""Preprocessing functions that depend on other images, on chance or on state are refused."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preprocessing_rules import autocontrast

from featcache import explain
from featcache.backbones.preprocessing import check_rule_at_size, fingerprint
from featcache.errors import InvalidRequest

_LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (lambda x: x - x.mean(), "alone than in a batch"),
        (lambda x: x / np.float32(len(x)), "alone than in a batch"),
        (lambda x: x - x[:1], "alone than in a batch"),
        (lambda x: x + np.random.default_rng().normal(size=x.shape), "when called again"),
        (lambda x, c=itertools.count(): x + next(c), "when called again"),  # noqa: B008
        (lambda x, c=itertools.count(): x + 0 * next(c), "changes values"),  # noqa: B008
        (lambda x, lock=_LOCK: x, "cannot be read"),
        (lambda x: x[..., :2] @ np.ones((3, 3)), "failed on a batch"),
        (np.frompyfunc(lambda v: v, 1, 1), "hides the function"),
    ],
    ids=["mean", "count", "first", "noise", "counter", "unseen", "lock", "shape", "ufunc"],
)
def test_what_makes_no_key_is_refused_with_its_reason(rule: Any, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        fingerprint(rule)


def _rarely(draw: Callable[[], float]) -> Any:
    return lambda x: x / 255 * (0 if draw() < 1e-9 else 1)


@pytest.mark.parametrize(
    "rule",
    [_rarely(np.random.rand), _rarely(random.random), _rarely(np.random.standard_exponential)],
    ids=["numpy", "random", "exponential"],
)
def test_a_function_that_draws_random_numbers_is_refused_however_rarely_it_shows(rule: Any) -> None:
    with pytest.raises(InvalidRequest, match="draws random numbers"):
        fingerprint(rule)


def test_a_function_that_depends_on_a_large_batch_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="number of images"):
        fingerprint(lambda x: x / 255 - (x.mean() / 255 if len(x) > 99 else 0))


@pytest.mark.parametrize("size", [(224, 224), (100, 331), (5, 7)])
def test_a_function_that_depends_on_the_batch_at_one_size_alone_is_refused(
    size: tuple[int, int], photos: Path
) -> None:
    def at_size(x: Any) -> Any:
        return (x - x.mean()) / 255 if x.shape[1:3] == size else x / 255

    with pytest.raises(InvalidRequest, match="alone than in a batch"):
        explain("mobilenet", photos, weights="random", image_size=size, preprocessing=at_size)
    check_rule_at_size(autocontrast, size)


def test_the_trials_at_the_size_of_a_request_take_a_fraction_of_a_second() -> None:
    for size in ((224, 224), (1, 1), (2000, 1500)):
        sizes: list[int] = []
        check_rule_at_size(lambda x, sizes=sizes: [sizes.append(x.size), x / 255][1], size)
        assert sum(sizes) <= 6 * max(600_000, 2 * size[0] * size[1])


def test_a_random_flip_is_refused_always() -> None:
    def flips(x: Any) -> Any:
        turned = np.random.default_rng().random(len(x)) < 0.5
        return np.where(turned[:, None, None, None], x[:, :, ::-1], x)

    for _ in range(20):
        with pytest.raises(InvalidRequest):
            fingerprint(flips)
