"""The HTML report of a comparison: one self-contained page, with its figures as PNG and CSV.

Needs the extra ``featcache[report]`` (Jinja2, matplotlib, pandas).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.errors import MissingExtra
from featcache.toolkit import format_count

from ..analysis.earlier import EarlierRun, comparison_record
from ..analysis.shared_traits import SHUFFLES
from ..analysis.slices import significant
from ..analysis.statistics import RESAMPLES
from ..analysis.summary import ACCURACIES, Summary
from ..contenders.base import Contender
from ..evaluation.few_shot import DRAWS
from ..evaluation.metrics import METRICS
from ..evaluation.tables import write_frame
from . import reproducibility
from .class_tables import class_rows, frequent_confusions, matrix_data
from .contender_tables import earlier_columns, pair_matrices, seed_rows
from .page import assets, environment, script_json
from .reliability_bins import reliability_bins

if TYPE_CHECKING:
    from .errors import ErrorGallery
    from .figure_style import Figure

_DRAWN = ("size", "light", "fur_length", "coat")
_METRIC_NAMES = ("top-1", "top-3", "top-5", "macro-F1", "log loss", "calibr. error")


def write_report(
    summary: Summary,
    folder: str | os.PathLike[str],
    contenders: Mapping[str, Contender] | None = None,
    command: str = "",
    earlier: EarlierRun | None = None,
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
    earlier : EarlierRun, optional
        An earlier run; the table shows differences to it.

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
            f"A report needs {error.name}: pip install -e '.[report]'.", package=error.name
        ) from error
    networks = _networks(contenders or {})
    drawn, curves = _figures(summary, networks)
    out = Path(folder)
    pictures = _write_figures(drawn, out)
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            **assets(),
            **_comparison(summary),
            **_classes(summary),
            **_slices(summary),
            sections=_sections(summary, networks=bool(networks), curves=bool(curves)),
            networks=[{**n, "kinds": list(n["kinds"].items())} for n in networks],
            curves=curves,
            earlier=None if earlier is None else earlier_columns(summary.first, earlier),
            command=command,
            figure=_figure_markup(drawn, pictures),
            format_count=format_count,
        )
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
        figures.Confusion(summary.best_with_mistakes, first.split.classes),
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
        return Markup('<figure id="figure-{}">{}<figcaption>{}</figcaption></figure>').format(
            name, Markup(pictures[name]), Markup.escape(drawn[name].alt)
        )

    return figure


def _comparison(summary: Summary) -> dict[str, Any]:
    """Return what the page says of the data, the contenders and their figures."""
    first, rows = summary.first, summary.table()
    seeds = [run.random_state for run in summary.runs]
    return {
        "title": f"featcache: {first.split.dataset.name}",
        "facts": {
            "train": len(first.split.train),
            "test": len(first.split.test),
            "classes": len(first.split.classes),
            "split": first.split.name,
            "seeds": ", ".join(map(str, seeds)),
        },
        "best": next(row for row in rows if row["contender"] == summary.best.name),
        "warnings": reproducibility.warnings(first),
        "table": rows,
        "metrics": list(METRICS),
        "metric_names": _METRIC_NAMES,
        "resamples": f"{RESAMPLES:,}",
        "seed_list": seeds,
        "seed_rows": seed_rows(summary),
        "accuracies": [f"{a:g}" for a in ACCURACIES],
        "reached": summary.time_to_accuracy(),
        "pair_matrices": pair_matrices(summary),
        "pairs": len(rows) * (len(rows) - 1) // 2,
        "few_shot": bool(first.few_shot),
        "draws": DRAWS,
        "made": reproducibility.facts(summary),
        "unusable": reproducibility.unusable_images(first),
    }


def _classes(summary: Summary) -> dict[str, Any]:
    """Return the tables and photos of classes, correct predictions and errors."""
    from . import gallery
    from .errors import error_gallery

    split, examined = summary.first.split, summary.best_with_mistakes
    errors: ErrorGallery = error_gallery(split, examined)
    page = matrix_data(split, examined)
    return {
        "page": page,
        "page_data": script_json({**page, "gallery": errors.data()}),
        "examined": examined.name,
        "class_rows": class_rows(split, examined),
        "confusions": frequent_confusions(examined),
        "gallery": errors,
        "photos": gallery.random_photos(split),
        "right": gallery.correct_predictions(split, summary.best),
        "confused": gallery.confused_pairs(split, examined),
    }


def _slices(summary: Summary) -> dict[str, Any]:
    """Return the best contender's slices and bins, and what the traits of classes explain."""
    slices = [part for part in summary.slices if part.contender == summary.best.name]
    return {
        "slices": slices,
        "significant_slices": significant(slices),
        "drawn_slices": _drawn_slices(slices),
        "bins": reliability_bins(summary.best),
        "explanations": summary.explanations,
        "shuffles": f"{SHUFFLES:,}",
    }


def save_summary(
    summary: Summary, folder: str | os.PathLike[str], earlier: EarlierRun | None = None
) -> None:
    """Add intervals, comparisons and slices to the ``results.json`` of a folder.

    With an earlier run, also the differences to it.
    """
    path = Path(folder) / "results.json"
    record = {**json.loads(path.read_text("utf-8")), "summary": summary.as_json()}
    if earlier is not None:
        record["earlier"] = comparison_record(summary.first, earlier)
    path.write_text(json.dumps(record, indent=1), "utf-8")


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


def _sections(summary: Summary, *, networks: bool, curves: bool) -> list[tuple[str, str]]:
    """Return anchor and name of each section that the page has."""
    every = [
        ("contenders", "Contenders", True),
        ("data", "Data", True),
        ("networks", "Networks", networks),
        ("curves", "Learning curves", curves),
        ("few-shot", "Few images per class", bool(summary.first.few_shot)),
        ("classes", "Classes", True),
        ("errors", "Errors", True),
        ("reliability", "Reliability", True),
        ("slices", "Slices", bool(summary.slices)),
        ("traits", "Confused breeds", summary.explanations is not None),
        ("made", "Reproducibility", True),
    ]
    return [(anchor, name) for anchor, name, there in every if there]


def _drawn_slices(parts: list[Any]) -> list[Any]:
    """The reference run's three failures, if the data know them all."""
    known = {part.attribute for part in parts}
    if not {"size", "light", "fur_length"} <= known:
        return []
    return [part for part in parts if part.attribute in _DRAWN]
