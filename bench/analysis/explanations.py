"""Whether breeds are confused for their size, their colour in different light and their fur.

A published run on Stanford Dogs names these three causes of its errors. Each is compared with the
errors of a contender here, and said in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import chi2_contingency

from featcache.datasets import traits_of

from ..evaluation.results import Result
from .shared_traits import TRAITS, SharedTrait, shared_trait
from .slices import group
from .statistics import holm

LEVEL = 0.05


@dataclass(frozen=True)
class Light:
    """Errors by the brightness of the photo.

    Attributes
    ----------
    parts : list of str
        Ranges of mean grey, from dark to bright; 0 is black, 255 white.
    images, errors : list of int
        Of each part.
    p_value : float
        Chi-square test of equal error rates.
    """

    parts: list[str]
    images: list[int]
    errors: list[int]
    p_value: float


@dataclass(frozen=True)
class Explanations:
    """Traits that confused breeds share, and light.

    Attributes
    ----------
    contender : str
    shared : list of SharedTrait
    light : Light or None
    adjusted : dict of str to float
        The p-value of each trait, and of ``"light"``, after Holm's correction.
    sentences : dict of str to str
        What the numbers say of each explanation, by trait.
    """

    contender: str
    shared: list[SharedTrait]
    light: Light | None
    adjusted: dict[str, float]
    sentences: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return the entry ``traits`` of the summary in `results.json`."""
        return asdict(self)


def explain_errors(
    result: Result, classes: Sequence[Any], attributes: Mapping[str, Sequence[str]]
) -> Explanations | None:
    """Compare three explanations of errors, and the breed group, with the errors of a contender.

    Parameters
    ----------
    result : Result
    classes : sequence
        The class of each code.
    attributes : mapping of str to sequence of str
        Of the test images; ``brightness`` is used if it is there.

    Returns
    -------
    Explanations or None
        None if the traits of the classes are not known, or nothing can be compared.
    """
    breeds = traits_of(classes)
    if breeds is None:
        return None
    rows = [breeds[name] for name in classes]
    confusion = result.confusion()
    shared = [s for s in (shared_trait(name, confusion, rows) for name in TRAITS) if s is not None]
    if not shared:
        return None
    light = _light(result, attributes.get("brightness", ()))
    p_values = {s.trait: s.p_value for s in shared} | ({"light": light.p_value} if light else {})
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    found = Explanations(result.name, shared, light, adjusted, {})
    return replace(found, sentences={s.trait: _sentence(s, found) for s in shared})


def _light(result: Result, brightness: Sequence[str]) -> Light | None:
    parts = group(brightness) if len(brightness) == len(result.truth) else None
    if parts is None:
        return None
    wrong, of_each = result.prediction != result.truth, np.array(parts.of_each)
    images = [int((of_each == part).sum()) for part in parts.names]
    errors = [int(wrong[of_each == part].sum()) for part in parts.names]
    table = np.array([errors, np.subtract(images, errors)])
    if not table.sum(axis=1).all():  # no errors or only errors: nothing to compare
        return None
    found: Any = chi2_contingency(table)
    return Light(parts.names, images, errors, float(found.pvalue))


_SHARED = {
    "size": ("Size", "are between breeds of one size class", "breeds of one size class"),
    "colour": (
        "Colour in different light", "are between breeds with a usual colour in common",
        "breeds with a colour in common",
    ),
    "coat length": (
        "Length of the fur", "are between breeds of one coat length", "breeds of one coat length",
    ),
    "breed group": (
        "For comparison, the breed group", "are between breeds of one group", "breeds of one group",
    ),
}  # fmt: skip


def _sentence(shared: SharedTrait, found: Explanations) -> str:
    """Say whether confused breeds share a trait more often than chance, with the numbers."""
    title, what, breeds = _SHARED[shared.trait]
    adjusted = found.adjusted[shared.trait]
    numbers = (
        f"{title}: {_percent(shared.fraction)} % of the {shared.errors} errors {what} "
        f"(95 % interval {_percent(shared.low)} to {_percent(shared.high)} %), "
        f"{_percent(shared.expected)} % expected by chance (95 % range "
        f"{_percent(shared.expected_low)} to {_percent(shared.expected_high)} %, "
        f"{_p(adjusted)})"
    )
    clause = _comparison(shared, adjusted, breeds)
    if shared.trait == "breed group":  # no explanation of the run, but what breeds share anyway
        return f"{numbers}: {clause}."
    supported = [adjusted < LEVEL and shared.fraction > shared.expected]
    if shared.trait == "colour" and found.light is not None:
        supported.append(found.adjusted["light"] < LEVEL)
        clause += f"; {_light_clause(found.light, found.adjusted['light'])}"
    return f"{numbers}: the explanation {_verdict(supported)}, {clause}."


def _verdict(supported: Sequence[bool]) -> str:
    """Say whether all, some or none of the parts of an explanation are supported."""
    if all(supported):
        return "holds"
    return "holds in part" if any(supported) else "is not confirmed"


def _comparison(shared: SharedTrait, adjusted: float, breeds: str) -> str:
    """Say how often breeds that share a trait are confused, in a clause."""
    if adjusted >= LEVEL:
        return f"{breeds} are not confused significantly more or less often than chance"
    if shared.fraction < shared.expected:
        return f"{breeds} are confused less often than chance"
    found = f"{breeds} are confused more often than chance"
    if shared.beyond_groups is None:
        return found
    within = "also" if shared.beyond_groups < LEVEL else "but not significantly so"
    return f"{found}, {within} within their breed groups ({_p(shared.beyond_groups)})"


def _light_clause(light: Light, adjusted: float) -> str:
    """Say whether the error rate depends on the brightness of the photo, in a clause."""
    rates = ", ".join(
        _percent(wrong / images) for wrong, images in zip(light.errors, light.images, strict=True)
    )
    depends = "depends" if adjusted < LEVEL else "does not depend significantly"
    return (
        f"the error rate {depends} on the light ({rates} % from the darkest to the brightest "
        f"photos, {_p(adjusted)})"
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
