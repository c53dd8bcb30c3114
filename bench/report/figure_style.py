"""Base class and style of the report's figures."""

from __future__ import annotations

import io
import re
from abc import ABC, abstractmethod
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure as Canvas

# Okabe and Ito 2008: distinguishable for colour-blind readers, legible on light and dark.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#A0522D")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_INK = "#010203"  # stands for the page's text colour, which follows light and dark
_STYLE = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11,
    "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _INK,
    "xtick.color": _INK, "ytick.color": _INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#8888884d",
    "legend.frameon": False, "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "legend.labelcolor": _INK,
    "text.parse_math": False,  # a class named "$\\frac$" is no formula
}  # fmt: skip


class Figure(ABC):
    """Base class of figures: a table, its drawing and a text alternative.

    Attributes
    ----------
    name : str
        Name of the files, without extension.
    title : str
        Heading.
    alt : str
        Text alternative for readers who cannot see the figure.
    """

    name: str
    title: str

    @property
    @abstractmethod
    def alt(self) -> str:
        """What the figure shows, as text."""

    @abstractmethod
    def frame(self) -> pd.DataFrame:
        """Return the numbers that are drawn."""

    @abstractmethod
    def plot(self) -> Canvas:
        """Return the drawing of `frame`."""

    def drawn(self) -> tuple[str, bytes]:
        """Return the figure as SVG text for a page and as PNG bytes for a file."""
        style: dict[Any, Any] = {**_STYLE, "svg.hashsalt": self.name}
        with rc_context(style):
            canvas = self.plot()
            out = io.StringIO()
            canvas.savefig(out, format="svg", bbox_inches="tight")
            png = io.BytesIO()
            canvas.savefig(png, format="png", dpi=130, bbox_inches="tight", facecolor="white")
        svg = out.getvalue()
        svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
        # Ids must be unique on a page that holds many figures.
        svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{self.name}-", svg)
        svg = re.sub(r'<svg ([^>]*?)width="[^"]*" ', r"<svg \1", svg, count=1)
        svg = re.sub(r'<svg ([^>]*?)height="[^"]*" ', r"<svg \1", svg, count=1)
        label = self.alt.replace("&", "and").replace('"', "'").replace("<", "less than ")
        return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1), png.getvalue()


def axes_of(width: float = 7, height: float = 4) -> tuple[Canvas, Any]:
    """Return an empty drawing of a size in inches, and its axes."""
    canvas = Canvas(figsize=(width, height))
    return canvas, canvas.add_subplot()
