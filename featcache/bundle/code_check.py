"""Check by its predictions that a head's integer classes are the codes of the features' labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import gammaln, rel_entr

from .._io.wording import format_values
from ..errors import WrongClassOrder
from ..extraction.features import Features
from .classifier import Classifier

Codes = NDArray[np.int64]
_MAX_ROWS = 4000
# Upper bound of the probability of refusing a head that predicts at chance level.
_FALSE_ALARM_RATE = 1e-3


def check_codes(classifier: Classifier, features: Features) -> None:
    """Predict some labelled rows, and refuse a head whose codes are in another order.

    Parameters
    ----------
    classifier : Classifier
        Its classes are indices into ``features.classes``.
    features : Features
        Without labelled rows nothing is checked.

    Raises
    ------
    InvalidRequest
        If the predictions agree clearly better with the labels under another assignment of
        codes to labels.
    """
    rows = np.flatnonzero(features.is_labelled)
    if not len(rows) or features.y is None or features.classes is None:
        return
    if len(rows) > _MAX_ROWS:  # evenly spaced, to have all classes where rows are sorted by class
        rows = rows[np.linspace(0, len(rows) - 1, _MAX_ROWS).astype(np.int64)]
    truth = features.y[rows].astype(np.int64)
    codes = np.array(list(classifier.classes), np.int64)
    scores = classifier.scores(np.asarray(features.X.take(rows)))
    predicted = codes[scores.argmax(axis=1)]
    trained = np.isin(truth, codes)
    # Rows of classes that the head was not trained on are no evidence, unless the codes of its
    # classes are those of other labels.
    if _agreement(predicted[trained], truth[trained]) > 0:
        predicted, truth = predicted[trained], truth[trained]
    better = better_assignment(predicted, truth)
    if better:
        raise _wrong_codes(predicted, truth, better, features.classes)


def better_assignment(predicted: Codes, truth: Codes) -> dict[int, int]:
    """Return an assignment of predicted codes to classes that is clearly better than the identity.

    A row agrees with an assignment if its prediction is assigned to its class. The best
    assignment (`scipy.optimize.linear_sum_assignment`) is clearly better if significantly more
    rows agree with it than with predictions that are independent of the class, corrected for
    the number of assignments, and than with the identity, as in McNemar's test. Both tests use
    the Chernoff bound of the binomial tail.

    Parameters
    ----------
    predicted, truth : ndarray (n,) of int64
        The head's code and the class of each row.

    Returns
    -------
    dict of int to int
        Code to class where they differ; empty if no assignment is clearly better.

    Examples
    --------
    >>> codes = np.arange(40) % 2
    >>> better_assignment(1 - codes, codes), better_assignment(codes, codes)
    ({0: 1, 1: 0}, {})
    """
    own, at_own = np.unique(predicted, return_inverse=True)
    present, at_present = np.unique(truth, return_inverse=True)
    counts = np.zeros((len(own), len(present)), np.int64)
    np.add.at(counts, (at_own, at_present), 1)
    by_chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / max(1, len(truth))
    same = own[:, None] == present
    excess = counts - by_chance
    gain = excess - (excess * same).sum(axis=1, keepdims=True)
    chosen = np.stack(linear_sum_assignment(-gain))
    chosen = chosen[:, gain[tuple(chosen)] > 0]
    rows, columns = chosen
    kept = int((counts * same)[rows].sum())
    better = int(counts[rows, columns].sum())
    if not _is_significant(counts[rows], better, kept, by_chance[rows, columns], len(own)):
        return {}
    return dict(zip(own[rows].tolist(), present[columns].tolist(), strict=True))


def _is_significant(
    counts: Codes, better: int, kept: int, by_chance: NDArray[Any], codes: int
) -> bool:
    """Return whether `better` agreeing rows exceed chance, and the `kept` ones of the identity."""
    if not better:
        return False
    moved, present = counts.shape
    rows = counts.sum()
    above_chance = rows * _divergence(better / rows, by_chance.sum() / rows)
    above_kept = (better + kept) * _divergence(better / (better + kept), 0.5)
    needed = -np.log(_FALSE_ALARM_RATE)
    # Number of assignments: which codes move, and to which classes.
    log_choices = _log_binomial(codes, moved) + _log_binomial(present, moved) + gammaln(moved + 1)
    return bool(above_chance > needed + log_choices and above_kept > needed + np.log(present))


def _agreement(predicted: Codes, truth: Codes) -> float:
    """Return the number of agreeing rows minus its expectation for independent predictions."""
    size = 1 + max(predicted.max(initial=0), truth.max(initial=0))
    by_chance = np.bincount(predicted, minlength=size) @ np.bincount(truth, minlength=size)
    return float((predicted == truth).sum() - by_chance / max(1, len(truth)))


def _log_binomial(n: int, k: int) -> float:
    return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def _divergence(observed: float, expected: float) -> float:
    """Return the exponent of the Chernoff bound: the Kullback-Leibler divergence of fractions."""
    if observed <= expected:
        return 0.0
    return float(rel_entr(observed, expected) + rel_entr(1 - observed, 1 - expected))


def _wrong_codes(
    predicted: Codes, truth: Codes, better: dict[int, int], names: Sequence[Any]
) -> WrongClassOrder:
    own = list(better)
    fitting = format_values([f"{code} as {names[better[code]]!r}" for code in own], str)
    assumed = format_values([f"{code} as {names[code]!r}" for code in own], str)
    moved = np.isin(predicted, own)
    assigned = np.array([better.get(code, code) for code in predicted.tolist()])
    agree, would_agree = (int((codes == truth)[moved].sum()) for codes in (predicted, assigned))
    return WrongClassOrder(
        f"The head's classes are integers, and as codes of the features they stand for {assumed}. "
        f"But of {int(moved.sum())} rows that it predicts as these, {agree} have that label, and "
        f"{would_agree} with {fitting}. Pass classes=, the labels in the order of the head's own "
        "classes, or train on features.y.",
        received=own,
        fitting={code: names[other] for code, other in better.items()},
    )
