"""How a photo becomes pixels of the right size, as values and as the text of the cache key.

The key holds one text, such as ``"box+0.1-stretch-bilinear"``. It is written and read here
alone; everything else uses the values.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

WHOLE = "whole"
MARGIN_DIGITS = 6  # significant digits of a margin in the key
_RULE = re.compile(r"(?:(?P<crop>.+)-)?(?P<resize>[a-z]+)-(?P<filter>[a-z]+)", re.DOTALL)
_BOX = re.compile(r"box(?:\+(?P<margin>[0-9.e-]+))?")


@dataclass(frozen=True)
class ResizeRule:
    """How a photo becomes pixels of the right size.

    Attributes
    ----------
    resize : str
        One of `featcache.images.decode.RESIZES`.
    crop : str
        ``"whole"``, or how the part of each photo is chosen: `featcache.Dataset.crop`.
    filter : str
    """

    resize: str
    crop: str = WHOLE
    filter: str = "bilinear"


def format_resize(rule: ResizeRule) -> str:
    """Return the text that the cache key holds for a rule.

    Examples
    --------
    >>> format_resize(ResizeRule("pad")), format_resize(ResizeRule("stretch", "box+0.1"))
    ('pad-bilinear', 'box+0.1-stretch-bilinear')
    """
    how = f"{rule.resize}-{rule.filter}"
    return how if rule.crop == WHOLE else f"{rule.crop}-{how}"


def parse_resize(text: str) -> ResizeRule | None:
    """Return the rule whose `format_resize` is a text; None if there is none.

    Examples
    --------
    >>> parse_resize("box+0.1-stretch-bilinear")
    ResizeRule(resize='stretch', crop='box+0.1', filter='bilinear')
    """
    match = _RULE.fullmatch(text)
    if match is None:
        return None
    rule = ResizeRule(match["resize"], match["crop"] or WHOLE, match["filter"])
    return rule if format_resize(rule) == text else None


def format_box(margin: float) -> str:
    """Return the crop of boxes that were widened by a margin, a fraction of their size.

    Examples
    --------
    >>> format_box(0), format_box(0.1)
    ('box', 'box+0.1')
    """
    return f"box+{margin:.{MARGIN_DIGITS}g}" if margin else "box"


def parse_box(crop: str) -> float | None:
    """Return the margin whose `format_box` is a crop; None if there is none.

    Examples
    --------
    >>> parse_box("box"), parse_box("box+0.1"), parse_box("whole")
    (0.0, 0.1, None)
    """
    match = _BOX.fullmatch(crop)
    if match is None:
        return None
    with contextlib.suppress(ValueError):  # of dots and signs that make no number
        margin = float(match["margin"] or 0)
        if format_box(margin) == crop:
            return margin
    return None
