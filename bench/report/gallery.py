"""Photos for the report: thumbnails with the truth and the first predictions."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache import Dataset
from featcache.toolkit import BadImage, load_image

from ..evaluation.results import Result
from ..splits import Split

THUMBNAIL = 176


@dataclass(frozen=True)
class Card:
    """A photo with what was predicted.

    Attributes
    ----------
    image : str
        A ``data:`` URL of a JPEG, or "" if the photo can no longer be read.
    truth : str
    predictions : list of (str, float)
        The three most probable classes with their probabilities; empty for a plain photo.
    """

    image: str
    truth: str
    predictions: list[tuple[str, float]]

    @property
    def right(self) -> bool:
        """Whether the first prediction is the truth."""
        return bool(self.predictions) and self.predictions[0][0] == self.truth


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes that a contender confuses, with a photo of each."""

    one: str
    other: str
    count: int
    images: tuple[str, str]


def thumbnail(dataset: Dataset, position: int, side: int = THUMBNAIL) -> str:
    """Return an example as a ``data:`` URL of a small JPEG; "" if it cannot be read."""
    try:
        image = load_image(dataset.paths[position], dataset.box(position))
    except BadImage:
        return ""
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def random_photos(split: Split, count: int = 24, random_state: int = 0) -> list[Card]:
    """Return random training photos."""
    generator = np.random.default_rng(random_state)
    chosen = generator.permutation(split.train)[:count]
    return [_card(split, int(i), None) for i in chosen]


def correct_predictions(
    split: Split, result: Result, count: int = 12, random_state: int = 0
) -> list[Card]:
    """Return random test photos that were predicted correctly."""
    rows = np.flatnonzero(result.prediction == result.truth)
    chosen = np.random.default_rng(random_state).permutation(rows)[:count]
    return [_card(split, int(result.positions[r]), result.proba[r]) for r in chosen]


def most_confident_errors(split: Split, result: Result, count: int = 12) -> list[Card]:
    """Return the most confident errors of a contender, in descending order of confidence."""
    rows = np.flatnonzero(result.prediction != result.truth)
    order = np.argsort(-result.proba[rows].max(axis=1), kind="stable")[:count]
    return [_card(split, int(result.positions[r]), result.proba[r]) for r in rows[order]]


def confused_pairs(split: Split, result: Result, count: int = 8) -> list[ConfusedPair]:
    """Return the pairs of classes that are confused most often, with a test photo of each class."""
    table = result.confusion()
    both = np.triu(table + table.T, 1)
    flat = np.argsort(-both, axis=None, kind="stable")[:count]
    pairs = []
    for one, other in zip(*np.unravel_index(flat, both.shape), strict=True):
        if both[one, other]:
            a, b = int(one), int(other)
            images = (_example(split, result, a, b), _example(split, result, b, a))
            names = (str(split.classes[a]), str(split.classes[b]))
            pairs.append(ConfusedPair(*names, int(both[a, b]), images))
    return pairs


def _example(split: Split, result: Result, code: int, rival: int) -> str:
    """Return a test photo of a class, preferably one that was predicted as the other class."""
    rows = np.flatnonzero(result.truth == code)
    mistaken = rows[result.prediction[rows] == rival]
    chosen = mistaken if len(mistaken) else rows
    if not len(chosen):
        own = split.train[split.codes(split.train) == code]
        return thumbnail(split.dataset, int(own[0])) if len(own) else ""
    return thumbnail(split.dataset, int(result.positions[chosen[0]]))


def _card(split: Split, position: int, proba: NDArray[np.float64] | None) -> Card:
    label = str((split.dataset.labels or ())[position])
    predictions: list[tuple[str, float]] = []
    if proba is not None:
        best = np.argsort(-proba, kind="stable")[:3]
        predictions = [(str(split.classes[code]), float(proba[code])) for code in best]
    return Card(thumbnail(split.dataset, position), label, predictions)
