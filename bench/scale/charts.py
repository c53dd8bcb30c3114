"""Pictures of what the model says, as SVG that follows the light or dark mode of its reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from ..report.figure_style import COLOURS, MARKS, Figure, axes_of
from .constants import Constants
from .model import CAUSES, IDENTIFY, MAX_TASK_IMAGES, SCHEDULER, Prediction, opening, predict
from .scenario import BEFORE, NEXT, NOW, Design, Ids, Scenario

IMAGES = (10**6, 10**7, 10**8, 10**9)
_SHOWN: tuple[Ids, ...] = ("new", "given")
WORKERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
# In an <img>, colours cannot come from the page: both are set here, so that they fit each other.
_MODES = (
    "<style>svg { color: #1f2328; background: #ffffff } "
    "@media (prefers-color-scheme: dark) { svg { color: #e6edf3; background: #0d1117 } }</style>"
)


@dataclass(frozen=True)
class _Chart(Figure):
    constants: Constants

    def predictions(
        self, images: Sequence[int], workers: Sequence[int], design: Design, **options: Any
    ) -> list[Prediction]:
        """Return the answers for each number of images and of workers."""
        plain = Scenario(1, 1, **options)
        return [
            predict(replace(plain, images=n, workers=w), self.constants, design)
            for n in images
            for w in workers
        ]


class Throughput(_Chart):
    """Images per second over the number of workers."""

    name = "scale-throughput"
    title = "Throughput of an extraction"

    @property
    def alt(self) -> str:
        """What the figure shows, as text."""
        last = self.frame()[self.frame()["workers"] == WORKERS[-1]]
        return f"Images per second with {WORKERS[-1]:,} workers: " + "; ".join(
            f"{row.images:,} images, ids {row.ids}: {row.rate:,.0f}" for row in last.itertuples()
        )

    def frame(self) -> pd.DataFrame:
        """Return images per second by images, workers, and where their ids come from."""
        rows = [
            (p.scenario.images, p.scenario.workers, p.scenario.ids, p.images_per_second)
            for ids in _SHOWN
            for p in self.predictions(IMAGES, WORKERS, NOW, ids=ids)
        ]
        return pd.DataFrame(rows, columns=["images", "workers", "ids", "rate"])

    def plot(self) -> Canvas:
        """Draw a line for each number of images, dashed where their ids are given."""
        frame = self.frame()
        canvas, axes = axes_of(7.5, 4.6)
        for i, images in enumerate(IMAGES):
            for ids in _SHOWN:
                part, given = (
                    frame[(frame["images"] == images) & (frame["ids"] == ids)],
                    ids == "given",
                )
                axes.plot(
                    part["workers"], part["rate"], "--" if given else "-", color=COLOURS[i],
                    marker=MARKS[i], markersize=5, mfc="none" if given else COLOURS[i],
                    label=_short(images) + (", ids given" * given),
                )  # fmt: skip
        one = Scenario(1, 1).cores / self.constants.image_core_seconds
        axes.plot(WORKERS, [w * one for w in WORKERS], ":", color=COLOURS[6], label="ideal")
        for name, rate in self.limits().items():
            axes.axhline(rate, color=COLOURS[6], linewidth=0.8)
            text = f"{name}:\n{_short(float(f'{rate:.2g}'))} per second"
            axes.text(
                1.01, rate, text, fontsize=9, transform=axes.get_yaxis_transform(), va="center"
            )
        _log_axes(axes, "workers of 8 cores", "images per second")
        axes.legend(fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.45, 1.0))
        return canvas

    def limits(self) -> dict[str, float]:
        """Return images per second that no number of workers exceeds, by what limits them."""
        one = self.constants
        return {
            IDENTIFY: 1e9 / predict(Scenario(10**9, 1), one, NOW).seconds[IDENTIFY],
            SCHEDULER: MAX_TASK_IMAGES / one.task_core_seconds,
        }


class CostPerMillion(_Chart):
    """Dollars per million images over the number of workers."""

    name = "scale-cost"
    title = "Cost per million images"
    images = 10**7

    kinds: Mapping[str, str] = MappingProxyType(
        {
            "new": "machines, new images",
            "given": "machines, ids given",
            "requests": "requests to the object store",
            "storage": "storage of the rows, per month",
        }
    )

    @property
    def alt(self) -> str:
        """What the figure shows, as text."""
        frame = self.frame()
        return f"USD per million images with {', '.join(map(str, WORKERS))} workers: " + "; ".join(
            f"{label} {', '.join(f'{value:.2f}' for value in frame[kind])}"
            for kind, label in self.kinds.items()
        )

    def frame(self) -> pd.DataFrame:
        """Return dollars per million images by kind and number of workers."""
        new, given = (self.predictions([self.images], WORKERS, NOW, ids=ids) for ids in _SHOWN)
        millions = self.images / 1e6
        rows = [
            (n.scenario.workers, *(value / millions for value in (
                n.dollars["machines"], k.dollars["machines"], n.dollars["requests"],
                n.dollars["storage"],
            )))
            for n, k in zip(new, given, strict=True)
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=["workers", *self.kinds])

    def plot(self) -> Canvas:
        """Draw a line per kind."""
        frame = self.frame()
        canvas, axes = axes_of(7.5, 4.2)
        for i, (kind, label) in enumerate(self.kinds.items()):
            style = "--" if kind == "given" else "-"
            axes.plot(frame["workers"], frame[kind], style, color=COLOURS[i], marker=MARKS[i],
                      markersize=5, label=label)  # fmt: skip
        _log_axes(axes, f"workers of 8 cores, for {self.images:,} images", "USD per million images")
        axes.legend(fontsize=9, loc="upper left")
        return canvas


class Bytes(_Chart):
    """Bytes of the lists of a store, before and now."""

    name = "scale-bytes"
    title = "Bytes of manifest and index"
    images: Sequence[int] = tuple(int(10 ** (6 + i / 2)) for i in range(7))

    @property
    def alt(self) -> str:
        """What the figure shows, as text."""
        last = self.frame().iloc[-1]
        return f"For {last['images']:,.0f} images: " + "; ".join(
            f"{name} {value / 1e9:,.2f} GB" for name, value in last.items() if name != "images"
        )

    def frame(self) -> pd.DataFrame:
        """Return bytes by kind and number of images, with 100 workers."""
        rows = []
        for images in self.images:
            before, now = (
                predict(Scenario(images, 100), self.constants, design) for design in (BEFORE, NOW)
            )
            opened = [
                opening(images, now.shards, self.constants, design)[1] for design in (BEFORE, NOW)
            ]
            rows.append({
                "images": images,
                "list of shards, written in all, before": before.manifest.written,
                "list of shards, written in all, now": now.manifest.written,
                "memory of an opened store, before": opened[0],
                "memory of an opened store, now": opened[1],
                "index file": images * self.constants.index_row_bytes,
            })  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self) -> Canvas:
        """Draw a line per kind; dashed before."""
        frame = self.frame()
        canvas, axes = axes_of(7.5, 4.4)
        colours = (0, 0, 1, 1, 6)
        for colour, name in zip(colours, frame.columns[1:], strict=True):
            axes.plot(
                frame["images"], frame[name], "--" if "before" in name else "-",
                color=COLOURS[colour], marker=MARKS[colour], markersize=5, label=name,
            )  # fmt: skip
        _log_axes(axes, "images", "bytes")
        axes.legend(fontsize=9, loc="upper left")
        axes.set_ylim(top=1e14)
        return canvas


class Limits(_Chart):
    """What takes the longest, by images and workers."""

    name = "scale-limits"
    title = "What limits an extraction"
    panels = (
        ("before", BEFORE, "new"), ("now", NOW, "new"), ("now, ids given", NOW, "given"),
        ("next, ids given", NEXT, "given"),
    )  # fmt: skip
    images = tuple(int(10 ** (6 + i / 2)) for i in range(7))
    workers = (1, 3, 10, 30, 100, 300, 1000)

    @property
    def alt(self) -> str:
        """What the figure shows, as text."""
        counts = Counter(zip(self.frame()["panel"], self.frame()["limit"], strict=True))
        return "What takes the longest, in how many cells: " + "; ".join(
            f"{panel}, {limit}: {count}" for (panel, limit), count in counts.items()
        )

    def frame(self) -> pd.DataFrame:
        """Return the limit and whether the memory is enough, by panel, images and workers."""
        rows = [
            (panel, p.scenario.images, p.scenario.workers, p.limit, not p.impossible)
            for panel, design, ids in self.panels
            for p in self.predictions(self.images, self.workers, design, ids=ids)
        ]
        return pd.DataFrame(rows, columns=["panel", "images", "workers", "limit", "possible"])

    def plot(self) -> Canvas:
        """Draw a map per panel; crossed out where the memory is insufficient."""
        frame = self.frame()
        canvas = Canvas(figsize=(11, 4))
        shown = [cause for cause in CAUSES if cause in set(frame["limit"])]
        palette = [COLOURS[i] for i in (2, 0, 1, 4, 3, 5, 7, 6)]
        colours = dict(zip(shown, palette, strict=False))
        for number, (panel, _, _) in enumerate(self.panels, 1):
            axes = canvas.add_subplot(1, len(self.panels), number)
            for row in frame[frame["panel"] == panel].itertuples():
                x, y = self.workers.index(row.workers), self.images.index(row.images)
                axes.bar(x, 0.94, 0.94, y - 0.47, color=colours[row.limit])
                if not row.possible:
                    axes.plot(x, y, "x", color="white", markersize=9, markeredgewidth=2)
            axes.set_title(panel, fontsize=11)
            axes.set_xticks(range(len(self.workers)), [str(w) for w in self.workers], fontsize=7.5)
            names = [
                f"1e{np.log10(n):.0f}" if i % 2 == 0 else "" for i, n in enumerate(self.images)
            ]
            axes.set_yticks(range(len(self.images)), names)
            axes.set_xlabel("workers")
            axes.set_ylabel("images" if number == 1 else "")
            axes.grid(visible=False)
        handles = [Patch(color=colours[cause], label=cause) for cause in shown]
        crossed = Line2D([], [], color=COLOURS[6], marker="x", markersize=8, markeredgewidth=2,
                         linestyle="none", label="memory insufficient")  # fmt: skip
        canvas.legend(handles=[*handles, crossed], loc="lower center", ncols=4, fontsize=10)
        canvas.subplots_adjust(bottom=0.27, wspace=0.2)
        return canvas


CHARTS = (Throughput, CostPerMillion, Bytes, Limits)


def write_charts(constants: Constants, folder: Path) -> list[Path]:
    """Write all pictures to a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in CHARTS:
        svg, _ = kind(constants).drawn()
        start = svg.index(">") + 1
        path = folder / f"{kind.name}.svg"
        path.write_text(svg[:start] + _MODES + svg[start:], encoding="utf-8")
        written.append(path)
    return written


def _log_axes(axes: Any, x: str, y: str) -> None:
    """Set logarithmic axes whose labels are not formulas, which the style does not draw."""
    for axis, label in ((axes.xaxis, x), (axes.yaxis, y)):
        axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}label": label})
        axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    """Return a number as text, from 100,000 on and below 0.01 as 1e5.

    >>> [_short(value) for value in (0.1, 1, 1000, 1e6)]
    ['0.1', '1', '1,000', '1e6']
    """
    if 0.01 <= value < 1e5:
        return f"{value:,g}"
    return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
