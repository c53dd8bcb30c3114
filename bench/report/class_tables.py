"""Tables of the classes: scores, the confusion matrix for the page, frequent confusions."""

from __future__ import annotations

from typing import Any

import numpy as np

from featcache.toolkit import printable

from ..analysis.class_names import display_names
from ..analysis.class_order import confusion_order
from ..analysis.statistics import wilson
from ..evaluation.metrics import per_class
from ..evaluation.results import Result
from ..splits import Split


def class_rows(split: Split, result: Result) -> list[dict[str, Any]]:
    """Return one record per class, the lowest recall first.

    Returns
    -------
    list of dict
        ``code``; ``train`` and ``test``, numbers of images; ``errors``; ``recall`` with its
        interval ``low`` and ``high``; ``precision``, ``f1``; ``rival``, the code of the class that
        it was most often taken for (None without errors), and ``taken``, how often. Classes
        without test images come last.
    """
    scores, table = per_class(result.truth, result.proba), result.confusion()
    train = np.bincount(split.codes(split.train), minlength=len(table))
    rows = []
    for code, counts in enumerate(table):
        hits, test = int(counts[code]), int(counts.sum())
        wrong = counts.copy()
        wrong[code] = 0
        rival = int(wrong.argmax())
        low, high = wilson(hits, test)
        rows.append(
            {
                "code": code,
                "train": int(train[code]),
                "test": test,
                "errors": test - hits,
                **{name: float(scores[name][code]) for name in ("recall", "precision", "f1")},
                "low": low,
                "high": high,
                "rival": rival if wrong[rival] else None,
                "taken": int(wrong[rival]),
            }
        )
    return sorted(rows, key=lambda row: (not row["test"], row["recall"], row["f1"]))


def frequent_confusions(result: Result, count: int = 10) -> list[dict[str, int]]:
    """Return the most frequent confusions: codes ``truth``, ``predicted``, ``count``, ``test``."""
    table = result.confusion()
    wrong = table - np.diag(np.diag(table))
    flat = np.argsort(-wrong, axis=None, kind="stable")[:count]
    return [
        {
            "truth": int(one),
            "predicted": int(other),
            "count": int(wrong[one, other]),
            "test": int(table[one].sum()),
        }
        for one, other in zip(*np.unravel_index(flat, wrong.shape), strict=True)
        if wrong[one, other]
    ]


def matrix_data(split: Split, result: Result) -> dict[str, Any]:
    """Return the confusion matrix for the page's script, without the cells that are zero.

    Returns
    -------
    dict
        ``names`` and ``labels`` of the classes, as displayed and as in the data; ``order``, the
        codes in the order of the rows and columns; ``tests``, test images by code; ``cells``,
        (true code, predicted code, count).
    """
    table = result.confusion()
    return {
        "names": display_names(split.classes),
        "labels": [printable(label) for label in split.classes],
        "order": confusion_order(table).tolist(),
        "tests": table.sum(axis=1).tolist(),
        "cells": [
            [int(t), int(p), int(table[t, p])] for t, p in zip(*table.nonzero(), strict=True)
        ],
    }
