"""The HTML report of a comparison: one self-contained page, with its figures as PNG and CSV.

Needs the extra ``featcache[report]`` (Jinja2, matplotlib, pandas).
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache import __version__
from featcache.errors import MissingExtra
from featcache.toolkit import printable

from ..analysis.shared_traits import SHUFFLES
from ..analysis.statistics import RESAMPLES
from ..analysis.summary import ACCURACIES, Summary
from ..contenders.base import Contender
from ..evaluation.few_shot import DRAWS
from ..evaluation.metrics import METRICS
from ..evaluation.results import OVERLAP, Result, Results
from ..evaluation.tables import write_frame

if TYPE_CHECKING:
    from .figure_style import Figure

_PACKAGES = ("keras", "tensorflow", "numpy", "scikit-learn", "lightgbm", "h5py", "Pillow")
_DRAWN = ("size", "light", "fur_length", "coat")


def write_report(
    summary: Summary,
    folder: str | os.PathLike[str],
    contenders: Mapping[str, Contender] | None = None,
    command: str = "",
) -> Path:
    """Write ``report.html``, and its figures as PNG and CSV.

    Parameters
    ----------
    summary : Summary
    folder : path
        Created if it does not exist.
    contenders : mapping of str to Contender, optional
        The trained contenders; they add a section on the networks.
    command : str
        The command line that reproduces the results.

    Returns
    -------
    Path
        Path of the page, which contains everything it shows.

    Raises
    ------
    MissingExtra
        If the packages of ``featcache[report]`` are not installed.
    """
    try:
        import jinja2  # noqa: F401

        from . import figures  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"A report needs {error.name}: pip install 'featcache[report]'.", package=error.name
        ) from error
    first, best = summary.first, summary.best
    networks = _networks(contenders or {})
    drawn, curves = _figures(summary, networks)
    out = Path(folder)
    slices = [part for part in summary.slices if part.contender == best.name]
    template = _environment().get_template("report.html.j2")
    page = template.render(
        **_comparison(summary),
        **_examples(first, best, summary.best_with_mistakes),
        sections=_sections(
            bool(networks),
            bool(curves),
            bool(first.few_shot),
            bool(slices),
            traits=summary.explanations is not None,
        ),
        networks=[{**n, "kinds": list(n["kinds"].items())} for n in networks],
        curves=curves,
        worst=summary.worst,
        explanations=summary.explanations,
        shuffles=f"{SHUFFLES:,}",
        slices=slices,
        drawn_slices=_drawn_slices(slices),
        command=command,
        figure=_figure_markup(drawn, _write_figures(drawn, out)),
        seconds=_seconds,
        count=_count,
        bytes=_bytes,
    )
    target = out / "report.html"
    target.write_text(page, "utf-8")
    return target


def _figures(
    summary: Summary, networks: list[dict[str, Any]]
) -> tuple[dict[str, Figure], list[tuple[str, str]]]:
    """Return the figures by name, and the names of learning curves with their contenders."""
    from . import figures

    first = summary.first
    drawn: dict[str, Figure] = {}
    for one in (
        figures.LabelCounts(first.split),
        figures.AccuracyCost(summary.table()),
        figures.Reliability(first.results),
        figures.Confusion(summary.best, list(map(printable, first.split.classes))),
        *([figures.Networks(networks)] if networks else []),
        *([figures.FewShotCurves(first.few_shot)] if first.few_shot else []),
    ):
        drawn[one.name] = one
    curves = []
    for number, result in enumerate(first):
        if result.facts.history:
            curve = figures.Curves(result, number)
            drawn[curve.name] = curve
            curves.append((curve.name, result.name))
    return drawn, curves


def _figure_markup(
    drawn: Mapping[str, Figure], pictures: Mapping[str, str]
) -> Callable[[str], Any]:
    """Return the function from a figure's name to its picture and caption."""
    from markupsafe import Markup

    def figure(name: str) -> Any:
        return Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(
            Markup(pictures[name]), Markup.escape(drawn[name].alt)
        )

    return figure


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_printable_text,
    )
    environment.filters["printable"] = _printable_text
    return environment


def _comparison(summary: Summary) -> dict[str, Any]:
    """Return what the page says of the data, the contenders and their figures."""
    first, rows = summary.first, summary.table()
    return {
        "title": f"featcache: {first.split.dataset.name}",
        "facts": {
            "train": len(first.split.train),
            "test": len(first.split.test),
            "classes": len(first.split.classes),
            "split": first.split.name,
            "seeds": ", ".join(str(run.random_state) for run in summary.runs),
        },
        "best": next(row for row in rows if row["contender"] == summary.best.name),
        "warnings": _warnings(first),
        "table": rows,
        "metrics": list(METRICS),
        "many_seeds": len(summary.runs) > 1,
        "resamples": f"{RESAMPLES:,}",
        "accuracies": [f"{a:g}" for a in ACCURACIES],
        "reached": summary.time_to_accuracy(),
        "comparisons": [c for c in summary.comparisons if c.metric in ("top1", "macro_f1")],
        "pairs": len(rows) * (len(rows) - 1) // 2,
        "few_shot": bool(first.few_shot),
        "draws": DRAWS,
        "made": _made(summary),
        "unusable": _unusable(first),
    }


def _examples(results: Results, best: Result, mistaken: Result) -> dict[str, Any]:
    """Return photos of the data, and of correct and wrong predictions."""
    from . import gallery

    split = results.split
    return {
        "photos": gallery.random_photos(split),
        "right": gallery.correct_predictions(split, best),
        "mistaken": mistaken.name,
        "wrong": gallery.most_confident_errors(split, mistaken),
        "confused": gallery.confused_pairs(split, mistaken),
    }


def save_summary(summary: Summary, folder: str | os.PathLike[str]) -> None:
    """Add intervals, comparisons and slices to the ``results.json`` of a folder."""
    path = Path(folder) / "results.json"
    record = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**record, "summary": summary.as_json()}, indent=1), "utf-8")


def _write_figures(drawn: Mapping[str, Any], out: Path) -> dict[str, str]:
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for name, one in drawn.items():
        svg, png = one.drawn()
        pictures[name] = svg
        (folder / f"{name}.png").write_bytes(png)
        write_frame(folder / f"{name}.csv", one.frame(), index=name == "confusion")
    return pictures


def _networks(contenders: Mapping[str, Contender]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for contender in contenders.values():
        network = contender.network()
        if network is not None:
            found.setdefault(f"{network['network']} {network['free_from']}", network)
    return list(found.values())


def _sections(
    networks: bool, curves: bool, few_shot: bool, slices: bool, *, traits: bool
) -> list[tuple[str, str]]:
    every = [
        ("contenders", "Contenders", True),
        ("data", "Data", True),
        ("networks", "Networks", networks),
        ("curves", "Learning curves", curves),
        ("few-shot", "Few images per class", few_shot),
        ("predictions", "Predictions", True),
        ("mistakes", "Mistakes", True),
        ("reliability", "Reliability", True),
        ("slices", "Slices", slices),
        ("traits", "Confused breeds", traits),
        ("made", "Reproducibility", True),
    ]
    return [(anchor, name) for anchor, name, there in every if there]


def _warnings(results: Results) -> list[str]:
    found = []
    if results.overlaps_imagenet:
        found.append(OVERLAP)
    random = [result.name for result in results if result.facts.weights_kind == "random"]
    if random:
        found.append(
            f"{', '.join(random)}: with seeded random weights. The figures show that the steps "
            "work and what is to be beaten, not what the backbone can do."
        )
    return found


def _drawn_slices(parts: list[Any]) -> list[Any]:
    """The reference run's three failures, if the data know them all."""
    known = {part.attribute for part in parts}
    if not {"size", "light", "fur_length"} <= known:
        return []
    return [part for part in parts if part.attribute in _DRAWN]


def _made(summary: Summary) -> list[tuple[str, str]]:
    rows = [("featcache", __version__), ("Python", platform.python_version())]
    rows += [("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores")]
    for package in _PACKAGES:
        try:
            rows.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            continue
    rows.append(("seeds", ", ".join(str(run.random_state) for run in summary.runs)))
    for result in summary.first:
        notes = "; ".join(f"{k}: {v}" for k, v in result.facts.notes.items() if k != "model")
        rows.append((result.name, f"weights: {result.facts.weights}; {notes}"))
    return rows


def _printable_text(value: Any) -> Any:
    """Escape names that no page can hold; pictures, which are markup, stay as they are."""
    return printable(value, keep="\n\t") if type(value) is str else value


def _unusable(results: Results) -> list[tuple[str, str]]:
    split = results.split
    return [
        (split.dataset.paths[i], results.unusable[image_id])
        for i, image_id in enumerate(split.example_ids)
        if image_id in results.unusable
    ]


def _seconds(value: float) -> str:
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _count(value: int) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.1f} M"
    return f"{value / 1e3:.0f} k" if value >= 1e3 else str(value)


def _bytes(value: int) -> str:
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
