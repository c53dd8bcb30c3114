"""Labels that heads refuse, each in one sentence, and rows without a label."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from contracts import blobs
from featcache.errors import InvalidRequest
from heads import HEADS, LogisticHead, make_head


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed, but the target y is None: give one label per row"),
        ([None] * 12, "None of the 12 rows has a label"),
        ([float("nan")] * 12, "None of the 12 rows has a label"),
        ([0.5, 1.5] * 6, r"Unknown label type: continuous\. A head predicts classes, but y holds"),
        ([0.25, None] * 6, "Unknown label type: continuous"),
        (np.array(["a", 1] * 6, object), "y holds 'a', 1, ...; give integers, strings or"),
    ],
)
@pytest.mark.parametrize("name", list(HEADS))
def test_labels_that_are_no_classes_are_refused(name: str, y: Any, message: str) -> None:
    X, _ = blobs(3, 4, 6)
    with pytest.raises(InvalidRequest, match=message):
        make_head(name).fit(X, y)


def test_a_score_leaves_unlabelled_rows_out_and_says_how_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    X, y = blobs(3, 20, 6)
    head = LogisticHead().fit(X, y)
    labels = y.astype(float)
    labels[:7] = np.nan
    with caplog.at_level(logging.WARNING, "heads"):
        found = head.score(X, labels)
    assert "Unlabelled rows are left out: 7 of 60" in caplog.text
    assert found == head.score(X[7:], y[7:])
    gaps = [None if i < 7 else int(label) for i, label in enumerate(y)]
    assert head.score(X, gaps) == found
    weights = np.arange(60.0)
    assert head.score(X, gaps, weights) == head.score(X[7:], y[7:], weights[7:])


@pytest.mark.parametrize(
    ("y", "message"),
    [(None, "requires y to be passed"), ([None] * 60, "None of the 60 rows has a label")],
)
def test_a_score_needs_labels(y: Any, message: str) -> None:
    X, codes = blobs(3, 20, 6)
    with pytest.raises(InvalidRequest, match=message):
        LogisticHead().fit(X, codes).score(X, y)
