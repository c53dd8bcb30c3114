"""Predicting many rows takes memory for the result, not for copies of the rows."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from heads import HEADS, Head, make_head

FEW: dict[str, dict[str, Any]] = {"dense": {"epochs": 1}, "lightgbm": {"n_estimators": 2}}
WIDTH = 256


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((200_000, WIDTH), np.float32)


@pytest.fixture(scope="module", params=list(HEADS))
def head(request: pytest.FixtureRequest, rows: NDArray[np.float32]) -> Head:
    fitted = make_head(request.param, **FEW.get(request.param, {}))
    return fitted.fit(rows[:90], np.arange(90) % 3)


def peak_bytes(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_head_copies_only_a_part_of_the_rows_at_a_time(
    head: Head, rows: NDArray[np.float32]
) -> None:
    assert peak_bytes(lambda: head.predict_proba(rows)) < rows.nbytes / 4
    assert peak_bytes(lambda: head.predict(rows)) < rows.nbytes / 4


def test_a_bundled_head_copies_only_a_part_of_the_rows_at_a_time(
    head: Head, rows: NDArray[np.float32]
) -> None:
    if not head.can_be_bundled:
        pytest.skip("no bundle can hold this head")
    classifier = head.to_classifier()
    assert peak_bytes(lambda: classifier.predict_proba(rows)) < rows.nbytes / 4
