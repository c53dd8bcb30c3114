"""All errors of a contender, for the page's gallery, with the photos that there is room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from featcache.toolkit import printable

from ..evaluation.predictions import file_name, top_classes
from ..evaluation.results import Result
from ..splits import Split
from .gallery import URL_START, thumbnail

# Of all photos together, as Base64, so that a page of 120 classes stays below 4 MB.
PHOTO_BYTES = 2_400_000
MOST_ERRORS = 5_000
# Longest side in pixels, up to a number of errors.
_SIDES = ((150, 160), (400, 128), (900, 96))
_SMALLEST = 80


@dataclass(frozen=True)
class ErrorPhoto:
    """A test photo that was predicted as another class.

    Attributes
    ----------
    file : str
    truth : int
        Code of its class.
    truth_probability : float
    predictions : list of (int, float)
        Codes and probabilities of the three most probable classes.
    image : str or None
        Base64; "" if the photo cannot be read, None if the page has no room for it.
    """

    file: str
    truth: int
    truth_probability: float
    predictions: list[tuple[int, float]]
    image: str | None


@dataclass(frozen=True)
class ErrorGallery:
    """The errors of a contender, the most confident first.

    Attributes
    ----------
    errors : list of ErrorPhoto
    total : int
        Number of all errors; more than `errors` if the page has no room for them.
    side : int
        Longest side of the photos in pixels.
    """

    errors: list[ErrorPhoto]
    total: int
    side: int

    @property
    def without_photo(self) -> int:
        """Number of errors whose photo was left out to keep the page small."""
        return self.total - sum(error.image is not None for error in self.errors)

    def data(self) -> dict[str, Any]:
        """Return the errors for the page's script."""
        return {
            "start": URL_START,
            "side": self.side,
            "errors": [
                [
                    e.file,
                    e.truth,
                    round(e.truth_probability, 4),
                    [code for code, _ in e.predictions],
                    [round(p, 4) for _, p in e.predictions],
                    e.image,
                ]
                for e in self.errors
            ],
        }


def error_gallery(split: Split, result: Result, room: int = PHOTO_BYTES) -> ErrorGallery:
    """Collect the errors of a contender, and thumbnails of the most confident ones.

    Parameters
    ----------
    split : Split
    result : Result
    room : int
        Number of bytes of all thumbnails together, as Base64.

    Returns
    -------
    ErrorGallery
    """
    rows = np.flatnonzero(result.prediction != result.truth)
    order = rows[np.argsort(-result.proba[rows].max(axis=1), kind="stable")]
    side = next((side for most, side in _SIDES if len(rows) <= most), _SMALLEST)
    errors: list[ErrorPhoto] = []
    best = top_classes(result.proba, 3)
    for row in order[:MOST_ERRORS]:
        position, proba = int(result.positions[row]), result.proba[row]
        image = thumbnail(split.dataset, position, side) if room > 0 else None
        room -= len(image or "")
        if room < 0:  # this one and all that follow
            image = None
        errors.append(
            ErrorPhoto(
                printable(file_name(split.dataset, position)),
                int(result.truth[row]),
                float(proba[result.truth[row]]),
                [(code, float(proba[code])) for code in best[row].tolist()],
                image,
            )
        )
    return ErrorGallery(errors, len(rows), side)
