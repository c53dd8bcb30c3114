"""The figures of the report: each has its data (`frame`) and a drawing of them (`plot`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, NullFormatter

from featcache.toolkit import format_count, printable

from ..analysis.class_names import display_names
from ..analysis.class_order import confusion_order
from ..evaluation.few_shot import FewShot
from ..evaluation.results import Result
from ..splits import Split
from .figure_style import COLOURS, MARKS, Figure, axes_of
from .reliability_bins import reliability_bins

LABELLED_CLASSES = 40
MOST_PANELS = 6


def _short(name: str, most: int = 40) -> str:
    """Return a name that leaves room for the drawing."""
    return name if len(name) <= most else name[: most - 1] + "…"


@dataclass(frozen=True)
class LabelCounts(Figure):
    """Number of training and test images per class."""

    split: Split
    name = "label_counts"
    title = "Images per class"

    @property
    def alt(self) -> str:
        """What the figure shows, as text."""
        counts = self.frame()[["train", "test"]].sum(axis=1)
        low, high = int(counts.min()), int(counts.max())
        classes = format_count(len(counts), "class", "classes")
        if low == high:
            return f"{classes} with {format_count(low, 'image')} each"
        middle = f"{counts.median():.0f} in the middle"
        return f"{classes} with {low} to {high} images each, {middle}"

    def frame(self) -> pd.DataFrame:
        """Return class, displayed name, train, test; the largest class first."""
        k = len(self.split.classes)
        parts = {"train": self.split.train, "test": self.split.test}
        counts = {n: np.bincount(self.split.codes(p), minlength=k) for n, p in parts.items()}
        names = display_names(self.split.classes)
        labels = list(map(printable, self.split.classes))
        frame = pd.DataFrame({"class": labels, "name": names, **counts})
        order = (frame["train"] + frame["test"]).sort_values(ascending=False, kind="stable").index
        return frame.loc[order].reset_index(drop=True)

    def plot(self) -> Canvas:
        """Draw stacked bars; with many classes, without their names."""
        frame = self.frame()
        train, test = frame["train"], frame["test"]
        names = [_short(name) for name in frame["name"]]
        readable = len(frame) <= LABELLED_CLASSES
        canvas, axes = axes_of(7, 1 + 0.22 * len(frame) if readable else 4)
        if readable:
            rows = np.arange(len(frame))  # by number: shortened names may be equal
            axes.barh(rows, train, color=COLOURS[0], label="train")
            axes.barh(rows, test, left=train, color=COLOURS[1], label="test")
            axes.set_yticks(rows, names)
            axes.invert_yaxis()
            axes.set_xlabel("images")
            axes.grid(axis="y", visible=False)
        else:
            x = np.arange(len(frame))
            axes.bar(x, train, 1.0, color=COLOURS[0], label="train")
            axes.bar(x, test, 1.0, bottom=train, color=COLOURS[1], label="test")
            axes.set_xlabel(f"{len(frame)} classes, the largest first")
            axes.set_ylabel("images")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        return canvas


@dataclass(frozen=True)
class AccuracyCost(Figure):
    """Accuracy of each contender against its cost in seconds."""

    table: Sequence[dict[str, Any]]
    name = "accuracy_cost"
    title = "Accuracy against cost"

    @property
    def alt(self) -> str:
        """What the figure shows, as text."""
        return "; ".join(
            f"{row['contender']}: {row['top1']:.3f} in {row['total_seconds']:.1f} s"
            for row in self.table
        )

    def frame(self) -> pd.DataFrame:
        """Return contender, top-1 with interval, seconds with and without extraction."""
        columns = ["contender", "top1", "top1_low", "top1_high", "total_seconds", "head_seconds"]
        return pd.DataFrame(self.table, columns=columns)

    def plot(self) -> Canvas:
        """Draw a filled mark with extraction, and a hollow one without."""
        canvas, axes = axes_of(7, 4.5)
        for i, row in enumerate(self.table):
            colour, mark = COLOURS[i % len(COLOURS)], MARKS[i % len(MARKS)]
            top1, head, total = row["top1"], row["head_seconds"], row["total_seconds"]
            error = [[top1 - row["top1_low"]], [row["top1_high"] - top1]]
            axes.errorbar(
                total, top1, error, color=colour, marker=mark, markersize=8,
                capsize=3, linestyle="none", label=row["contender"],
            )  # fmt: skip
            axes.plot(head, top1, mark, color=colour, mfc="none", markersize=8)
            axes.plot([head, total], [top1] * 2, ":", color=colour)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("seconds: filled with extraction or decoding, hollow without")
        axes.set_ylabel("top-1 accuracy, 95 % interval")
        axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        return canvas


@dataclass(frozen=True)
class Curves(Figure):
    """Loss and accuracy of training and validation, epoch by epoch."""

    result: Result
    number: int
    title = "Learning curves"

    @property
    def name(self) -> str:  # type: ignore[override]
        """Of the files that are written."""
        return f"curves_{self.number}"

    @property
    def alt(self) -> str:
        """What the figure shows, as text."""
        frame = self.frame()
        best = int(np.nanargmin(frame["val_loss"]))
        return (
            f"{self.result.name}: {len(frame)} epochs; lowest validation loss "
            f"{frame['val_loss'][best]:.3f} with accuracy {frame['val_accuracy'][best]:.3f} in "
            f"epoch {best + 1}"
        )

    def frame(self) -> pd.DataFrame:
        """Return one row per epoch."""
        frame = pd.DataFrame(dict(self.result.facts.history))
        frame.insert(0, "epoch", np.arange(1, len(frame) + 1))
        return frame

    def plot(self) -> Canvas:
        """Draw loss on the left, accuracy on the right, the best epoch marked."""
        frame = self.frame()
        best = int(np.nanargmin(frame["val_loss"])) + 1
        canvas = Canvas(figsize=(7, 3))
        for i, what in enumerate(("loss", "accuracy")):
            axes = canvas.add_subplot(1, 2, i + 1)
            axes.plot(frame["epoch"], frame[what], color=COLOURS[0], label="train")
            axes.plot(
                frame["epoch"], frame[f"val_{what}"], "--", color=COLOURS[1], label="validation"
            )
            axes.axvline(best, color=COLOURS[6], linewidth=0.8)
            axes.set_xlabel("epoch")
            axes.set_title(what, fontsize=11)
        axes.legend(fontsize=9)
        canvas.tight_layout()
        return canvas


@dataclass(frozen=True)
class FewShotCurves(Figure):
    """Accuracy by the number of training images per class."""

    points: Sequence[FewShot]
    name = "few_shot"
    title = "Few images per class"

    @property
    def alt(self) -> str:
        """What the figure shows, as text."""
        frame = self.frame()
        least, most = frame["per_class"].min(), frame["per_class"].max()
        first = frame[frame["per_class"] == least].set_index("contender")["top1"]
        last = frame[frame["per_class"] == most].set_index("contender")["top1"]
        return f"Top-1 accuracy with {least} and {most} training images per class: " + "; ".join(
            f"{name} {first[name]:.3f} and {last[name]:.3f}" for name in first.index
        )

    def frame(self) -> pd.DataFrame:
        """Return mean, lowest and highest accuracy of each contender and count."""
        table = pd.DataFrame([vars(point) for point in self.points])
        groups = table.groupby(["contender", "per_class"], sort=False)["top1"]
        frame = groups.agg(["mean", "min", "max"]).reset_index()
        frame = frame.rename(columns={"mean": "top1", "min": "lowest", "max": "highest"})
        # A mean of equal numbers may be off by the last bit, and beyond all of them.
        frame["top1"] = frame["top1"].clip(frame["lowest"], frame["highest"])
        return frame

    def plot(self) -> Canvas:
        """Draw one line per contender, with the range of the draws."""
        canvas, axes = axes_of(7, 4.2)
        for i, (name, part) in enumerate(self.frame().groupby("contender", sort=False)):
            look = {"color": COLOURS[i % len(COLOURS)], "marker": MARKS[i % len(MARKS)]}
            error = [part["top1"] - part["lowest"], part["highest"] - part["top1"]]
            axes.errorbar(part["per_class"], part["top1"], error, capsize=3, label=name, **look)
        axes.set_xscale("log")
        axes.set_xticks(sorted({point.per_class for point in self.points}))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("training images per class")
        axes.set_ylabel("top-1 accuracy, mean and range of the draws")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        return canvas


@dataclass(frozen=True)
class Reliability(Figure):
    """Accuracy of each contender by the confidence of its predictions, with counts."""

    results: Sequence[Result]
    name = "reliability"
    title = "Reliability"

    @property
    def alt(self) -> str:
        """What the figure shows, as text."""
        errors = [f"{r.name}: {r.metrics['calibration_error']:.3f}" for r in self.results]
        left_out = len(self.results) - len(self._drawn)
        note = f"; drawn are the {len(self._drawn)} most accurate" if left_out else ""
        return "Expected calibration error: " + "; ".join(errors) + note

    @property
    def _drawn(self) -> list[Result]:
        best = sorted(self.results, key=lambda result: -result.metrics["top1"])[:MOST_PANELS]
        names = {result.name for result in best}
        return [result for result in self.results if result.name in names]

    def frame(self) -> pd.DataFrame:
        """Return one row per contender and non-empty bin, with Wilson's intervals."""
        parts = []
        for result in self.results:
            part = pd.DataFrame(reliability_bins(result))
            part.insert(0, "contender", result.name)
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    def plot(self) -> Canvas:
        """Draw one panel per contender: accuracy over confidence, intervals, and counts."""
        drawn = self._drawn
        lines = -(-len(drawn) // 2)
        canvas = Canvas(figsize=(7, 3.5 * lines))
        for i, result in enumerate(drawn):
            axes = canvas.add_subplot(lines, 2, i + 1)
            self._panel(axes, reliability_bins(result), COLOURS[i % len(COLOURS)])
            axes.set_title(_short(printable(result.name)), fontsize=10)
            axes.set_xlabel("confidence")
            axes.set_ylabel("accuracy")
        canvas.tight_layout()
        return canvas

    @staticmethod
    def _panel(axes: Any, bins: Sequence[Mapping[str, float]], colour: str) -> None:
        part = pd.DataFrame(bins)
        axes.plot([0, 1], [0, 1], color=COLOURS[6], linewidth=1)
        # Of a bin with all or none right, rounding may put the bound beyond the accuracy.
        below = (part["accuracy"] - part["accuracy_low"]).clip(lower=0)
        above = (part["accuracy_high"] - part["accuracy"]).clip(lower=0)
        axes.errorbar(
            part["confidence"], part["accuracy"], [below, above], color=colour, marker="o",
            markersize=4, capsize=2, linewidth=0.8,
        )  # fmt: skip
        for low, count in zip(part["low"], part["count"], strict=True):
            axes.text(low + 0.05, -0.09, f"{count:.0f}", fontsize=7, ha="center", va="center")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(-0.15, 1.05)
        axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])


@dataclass(frozen=True)
class Confusion(Figure):
    """Confusion matrix: the fraction of each class's test images by predicted class."""

    result: Result
    classes: Sequence[Any]
    name = "confusion"
    title = "Confusion matrix"

    @property
    def alt(self) -> str:
        """What the figure shows, as text."""
        table = self.result.confusion()
        return (
            f"{self.result.name}: {np.trace(table)} of {table.sum()} test images on the diagonal "
            f"of {len(self.classes)} classes, ordered so that confused classes are neighbours"
            f"{self._numbered}"
        )

    @property
    def _numbered(self) -> str:
        if len(self.classes) <= LABELLED_CLASSES:
            return ""
        return "; figures/confusion.csv names them"

    def frame(self) -> pd.DataFrame:
        """Return counts, true classes as rows, confused classes side by side."""
        table = self.result.confusion()
        order = confusion_order(table)
        names = [printable(self.classes[code]) for code in order]
        return pd.DataFrame(table[np.ix_(order, order)], names, names)

    def plot(self) -> Canvas:
        """Draw the fractions of each row; with more than 40 classes, numbers instead of names."""
        table = self.result.confusion()
        order = confusion_order(table)
        shown = display_names(self.classes)
        names = [_short(shown[code]) for code in order]
        counts = table[np.ix_(order, order)].astype(float)
        fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        k = len(self.classes)
        side = float(np.clip(0.26 * k + 2, 4, 10))
        canvas, axes = axes_of(side, side)
        # The square root lifts single mistakes out of the background.
        image = axes.imshow(
            np.sqrt(fractions), cmap="cividis", vmin=0, vmax=1, interpolation="nearest"
        )
        axes.grid(visible=False)
        if k <= LABELLED_CLASSES:
            axes.set_xticks(range(k), names, rotation=90, fontsize=8)
            axes.set_yticks(range(k), names, fontsize=8)
        else:
            steps = range(0, k, 10)
            axes.set_xticks(steps, [str(i + 1) for i in steps])
            axes.set_yticks(steps, [str(i + 1) for i in steps])
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        bar = canvas.colorbar(image, ax=axes, shrink=0.6, ticks=np.sqrt([0, 0.05, 0.25, 0.5, 1]))
        bar.ax.set_yticklabels(["0", "5 %", "25 %", "50 %", "100 %"])
        return canvas


@dataclass(frozen=True)
class Networks(Figure):
    """Number of frozen and trained weights of each network."""

    networks: Sequence[dict[str, Any]]
    name = "networks"
    title = "The networks"

    @property
    def alt(self) -> str:
        """What the figure shows, as text."""
        return "; ".join(
            f"{n['network']}: {n['layers']} layers, {n['parameters'] / 1e6:.1f} million weights, "
            f"{n['trained_share']:.0%} of them trained"
            for n in self.networks
        )

    def frame(self) -> pd.DataFrame:
        """Return one row per network."""
        return pd.DataFrame([{k: v for k, v in n.items() if k != "kinds"} for n in self.networks])

    def plot(self) -> Canvas:
        """Draw one bar per network, with the trained weights hatched."""
        frame = self.frame()
        canvas, axes = axes_of(7, 1.2 + 0.5 * len(frame))
        frozen = frame["parameters"] * (1 - frame["trained_share"]) / 1e6
        trained = frame["parameters"] * frame["trained_share"] / 1e6
        axes.barh(frame["network"], frozen, color=COLOURS[5], label="frozen")
        axes.barh(
            frame["network"], trained, left=frozen, color=COLOURS[1], hatch="//", label="trained"
        )
        axes.invert_yaxis()
        axes.set_xlabel("million weights")
        axes.grid(axis="y", visible=False)
        axes.legend(fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        return canvas
