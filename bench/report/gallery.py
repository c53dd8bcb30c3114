"""Photos for the report: thumbnails with the truth and the first predictions."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import features

from featcache import Dataset
from featcache.toolkit import BadImage, printable

from ..evaluation.predictions import file_name, top_classes
from ..evaluation.results import Result
from ..splits import Split

THUMBNAIL = 176
# Half the size of JPEG at this size; a Pillow built without it writes JPEG.
FORMAT = "WEBP" if features.check("webp") else "JPEG"
URL_START = f"data:image/{FORMAT.lower()};base64,"


@dataclass(frozen=True)
class Card:
    """A photo with what was predicted.

    Attributes
    ----------
    image : str
        A ``data:`` URL, or "" if the photo can no longer be read.
    file : str
        Path of the photo, relative to the data set's folder.
    truth : int
        Code of its class.
    predictions : list of (int, float)
        Codes of the three most probable classes with their probabilities; empty for a plain
        photo.
    """

    image: str
    file: str
    truth: int
    predictions: list[tuple[int, float]]


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes, by code, that a contender confuses, with a photo of each."""

    one: int
    other: int
    count: int
    cards: tuple[Card, Card]


def thumbnail(dataset: Dataset, position: int, side: int = THUMBNAIL) -> str:
    """Return an example as Base64 of a small image; "" if it cannot be read."""
    try:
        image = dataset.image(position)
    except BadImage:
        return ""
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, FORMAT, quality=70)
    return base64.b64encode(out.getvalue()).decode("ascii")


def random_photos(split: Split, count: int = 24, random_state: int = 0) -> list[Card]:
    """Return random training photos."""
    chosen = np.random.default_rng(random_state).permutation(split.train)[:count]
    return [_card(split, int(i)) for i in chosen]


def correct_predictions(
    split: Split, result: Result, count: int = 12, random_state: int = 0
) -> list[Card]:
    """Return random test photos that were predicted correctly."""
    rows = np.flatnonzero(result.prediction == result.truth)
    chosen = np.random.default_rng(random_state).permutation(rows)[:count]
    return [_card(split, int(result.positions[r]), result.proba[r]) for r in chosen]


def confused_pairs(split: Split, result: Result, count: int = 8) -> list[ConfusedPair]:
    """Return the pairs of classes that are confused most often, with a test photo of each class."""
    table = result.confusion()
    both = np.triu(table + table.T, 1)
    flat = np.argsort(-both, axis=None, kind="stable")[:count]
    pairs = []
    for one, other in zip(*np.unravel_index(flat, both.shape), strict=True):
        if both[one, other]:
            a, b = int(one), int(other)
            cards = (_example(split, result, a, b), _example(split, result, b, a))
            pairs.append(ConfusedPair(a, b, int(both[a, b]), cards))
    return pairs


def _example(split: Split, result: Result, code: int, rival: int) -> Card:
    """Return a test photo of a class, preferably one that was predicted as the other class."""
    rows = np.flatnonzero(result.truth == code)
    mistaken = rows[result.prediction[rows] == rival]
    chosen = mistaken if len(mistaken) else rows
    if len(chosen):
        return _card(split, int(result.positions[chosen[0]]))
    own = split.train[split.codes(split.train) == code]
    return _card(split, int(own[0])) if len(own) else Card("", "", code, [])


def _card(split: Split, position: int, proba: NDArray[np.float64] | None = None) -> Card:
    predictions: list[tuple[int, float]] = []
    if proba is not None:
        best = top_classes(proba[None], 3)[0].tolist()
        predictions = [(code, float(proba[code])) for code in best]
    picture = thumbnail(split.dataset, position)
    return Card(
        URL_START + picture if picture else "",
        printable(file_name(split.dataset, position)),
        int(split.codes(np.array([position]))[0]),
        predictions,
    )
