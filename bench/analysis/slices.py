"""Accuracy on slices of the test set: by columns, traits of the classes and computed attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from featcache.datasets import traits_of
from featcache.toolkit import BadImage, text_of

from ..evaluation.results import Result
from ..splits import Split
from .statistics import SIGNIFICANCE, holm, wilson

MOST_VALUES = 12
PARTS = 4


@dataclass(frozen=True)
class Slice:
    """A contender's accuracy on the test images that share a value.

    Attributes
    ----------
    contender, attribute, value : str
    images, hits : int
    accuracy, low, high : float
        Top-1 and Wilson's 95 % interval.
    gap : float
        Accuracy minus the contender's accuracy on all other test images.
    p_value : float
        Two-sided, of Fisher's exact test that the accuracy is the same on all other images.
    adjusted : float
        The p-value after Holm's correction for all slices of the contender.
    """

    contender: str
    attribute: str
    value: str
    images: int
    hits: int
    accuracy: float
    low: float
    high: float
    gap: float
    p_value: float
    adjusted: float

    @property
    def significant(self) -> bool:
        """Whether the accuracy differs from that on all other images, after the correction."""
        return self.adjusted < SIGNIFICANCE


def computed_attributes(split: Split) -> dict[str, list[str]]:
    """Measure aspect ratio, brightness and resolution of each test image.

    Returns
    -------
    dict of str to list of str
        ``aspect ratio`` (width / height), ``brightness`` (mean grey, 0..255) and
        ``megapixels``, in the order of ``split.test``; empty for an unreadable image.
    """
    columns: dict[str, list[str]] = {"aspect ratio": [], "brightness": [], "megapixels": []}
    for position in map(int, split.test):
        try:
            image = split.dataset.image(position)
            width, height = image.size
            small = np.asarray(image.convert("L").resize((32, 32)), float)
            values = (width / height, float(small.mean()), width * height / 1e6)
        except BadImage:
            values = None
        for column, value in zip(columns.values(), values or ("", "", ""), strict=True):
            column.append(f"{value:.6g}" if isinstance(value, float) else "")
    return columns


def class_attributes(split: Split) -> dict[str, list[str]]:
    """Return size, coat length and group of the breed of each test image.

    Empty if the traits of the classes are not known; see `featcache.datasets.traits_of`.
    """
    breeds = traits_of(split.classes)
    if breeds is None:
        return {}
    rows = [breeds[split.classes[code]] for code in split.codes(split.test)]
    return {
        "breed size": [row.size for row in rows],
        "coat length": [row.coat_length for row in rows],
        "breed group": [row.group for row in rows],
    }


def attributes_of_test(split: Split, *, computed: bool = True) -> dict[str, list[str]]:
    """Return the attributes of the test images, as text.

    Columns of the data set, traits of the classes and, optionally, computed attributes. A column
    comes before a trait of the same name.
    """
    own = {name: text_of(values[split.test]) for name, values in split.dataset.attributes.items()}
    return {**class_attributes(split), **own, **(computed_attributes(split) if computed else {})}


@dataclass(frozen=True)
class Parts:
    """The parts that the values of an attribute fall into.

    Attributes
    ----------
    names : list of str
        Of the parts, in their order: that of the numbers where they are numbers.
    of_each : list of str
        The part of each value; "" for a missing one.
    """

    names: list[str]
    of_each: list[str]


def group(values: Sequence[str]) -> Parts | None:
    """Find the part of each value: itself for few values, a range for numbers.

    Returns
    -------
    Parts or None
        None if the values are many and not numbers, or all the same.
    """
    present = sorted({value for value in values if value})
    if len(present) < 2:
        return None
    numbers = _numbers(values)
    if numbers is None or len(present) <= PARTS:
        few = len(present) <= MOST_VALUES
        return Parts(sorted(present, key=_place), list(values)) if few else None
    known = numbers[np.isfinite(numbers)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, PARTS + 1)))
    if len(edges) < 3:
        return None
    part = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    names = [f"{edges[i]:.3g} to {edges[i + 1]:.3g}" for i in range(len(edges) - 1)]
    pairs = zip(part.tolist(), numbers, strict=True)
    of_each = [names[p] if np.isfinite(n) else "" for p, n in pairs]
    # Two ranges may round to one name, and a range between quantiles may be empty.
    return Parts([name for name in dict.fromkeys(names) if name in of_each], of_each)


def _numbers(values: Sequence[str]) -> NDArray[np.float64] | None:
    try:
        return np.array([float(value) if value else np.nan for value in values])
    except ValueError:
        return None


def _place(value: str) -> tuple[float, str]:
    """Return what sorts numbers by their size, and behind them text by its letters."""
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def slices(results: Sequence[Result], attributes: Mapping[str, Sequence[str]]) -> list[Slice]:
    """Score each contender on each part of each attribute.

    Parameters
    ----------
    results : sequence of Result
    attributes : mapping of str to sequence of str
        One value per test image, in the order of the results' rows.

    Returns
    -------
    list of Slice
    """
    found = []
    for attribute, values in attributes.items():
        parts = group(values)
        if parts is None:
            continue
        of_each = np.array(parts.of_each)
        for value in parts.names:
            inside = of_each == value
            found += [_score(result, attribute, value, inside) for result in results]
    return _corrected(found)


def _corrected(found: Sequence[Slice]) -> list[Slice]:
    """Return the slices with p-values adjusted for all slices of the same contender."""
    adjusted = [0.0] * len(found)
    for name in {part.contender for part in found}:
        rows = [i for i, part in enumerate(found) if part.contender == name]
        for i, p in zip(rows, holm([found[i].p_value for i in rows]), strict=True):
            adjusted[i] = p
    return [replace(part, adjusted=p) for part, p in zip(found, adjusted, strict=True)]


def _score(result: Result, attribute: str, value: str, inside: NDArray[np.bool_]) -> Slice:
    right = result.prediction == result.truth
    hits, images = int(right[inside].sum()), int(inside.sum())
    rest = right[~inside]
    accuracy = hits / images
    gap = accuracy - float(rest.mean()) if len(rest) else 0.0
    other_hits = int(rest.sum())
    table = [[hits, images - hits], [other_hits, len(rest) - other_hits]]
    _, p_value = fisher_exact(table)
    p = float(np.asarray(p_value))
    low, high = wilson(hits, images)
    return Slice(result.name, attribute, value, images, hits, accuracy, low, high, gap, p, p)


def significant(found: Sequence[Slice]) -> list[Slice]:
    """Return the slices that differ significantly from the rest, the lowest accuracy first."""
    return sorted((part for part in found if part.significant), key=lambda part: part.accuracy)


def worst(found: Sequence[Slice], count: int = 5, smallest: int = 10) -> list[Slice]:
    """Return the slices with the largest deficit, by the upper bound of their accuracy.

    Slices of fewer than `smallest` images are left out.
    """
    large = [part for part in found if part.images >= smallest and part.gap < 0]
    return sorted(large, key=lambda part: part.high - part.accuracy + part.gap)[:count]
