"""`featcache predict`: print the most probable classes of photos."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from ..errors import DatasetError
from ..printable import printable
from .options import Common, command, no_progress, path_column
from .prediction_table import ID_KINDS, IdKind, PredictionTable, summary_line

if TYPE_CHECKING:
    from ..bundle.bundle import Prediction

_SEVERAL = (
    "is an archive or a Parquet file, not a photo; unpack it, or use Bundle.predict in Python"
)


@command("predict")
@click.argument("bundle", type=click.Path())
@click.argument("photos", nargs=-1, required=True)
@click.option(
    "--top",
    type=click.IntRange(1, 10**6),
    metavar="N",
    default=3,
    show_default=True,
    help="Number of classes per photo.",
)
@click.option(
    "--backbone",
    metavar="MODEL",
    multiple=True,
    help="The .keras or .onnx file, if the bundle was made with a model of your own. Repeat it for "
    "a bundle of several, in their order.",
)
@click.option(
    "--weights",
    metavar="FILE",
    multiple=True,
    help="The weights, if the bundle was made with a weights file; may be repeated, too.",
)
@click.option(
    "--tta",
    is_flag=True,
    help="Test-time augmentation: average the probabilities of each photo and its mirror image.",
)
@path_column
@click.option("--csv", "out", metavar="FILE", help="Write the classes to a CSV file as well.")
@click.option(
    "--proba", is_flag=True, help="With --csv: a column with the probability of each class."
)
@click.option(
    "--id",
    "ids",
    type=click.Choice(ID_KINDS),
    default="path",
    show_default=True,
    help="With --csv: the first column: the path, the file's name, or its name without ending, as "
    "competitions ask for.",
)
@click.option("--overwrite", is_flag=True, help="With --csv: replace FILE if it exists.")
@click.option("--strict", is_flag=True, help="Exit with status 1 if a photo cannot be used.")
@no_progress
def predict(
    common: Common,
    bundle: str,
    photos: tuple[str, ...],
    strict: bool,
    out: str | None,
    proba: bool,
    ids: IdKind,
    overwrite: bool,
    top: int,
    path_column: str | None,
    **options: Any,
) -> int:
    """Predict the classes of photos.

    Prints one line per photo: its path, and the most probable classes with their probabilities.

    BUNDLE is a trained classifier: a file that featcache.make_bundle(...).save() wrote, or the
    model.featcache of a benchmark run.

    PHOTOS are image files, folders (searched at any depth), CSV files with a column of paths, or
    - to read paths from standard input. For a photo that cannot be used, the line gives the
    reason.

    With --csv FILE, FILE has one line per photo: its path, the most probable class (empty if there
    is no prediction) and, with --proba, the probability of each class. Photos without a prediction
    are printed.
    """
    from ..bundle.bundle import load_bundle

    if out is None and (proba or overwrite or ids != "path"):
        raise click.UsageError("--proba, --id and --overwrite go with --csv FILE.")
    if path_column is not None and not any(map(_is_table, photos)):
        raise click.UsageError("--path-column goes with a CSV file among PHOTOS.")

    listed = [_one_image(photo) for photo in _photos(photos, path_column)]
    if not listed:
        raise DatasetError("No photo was given; name photos or folders, or give a list with -.")
    model = load_bundle(bundle)
    table = None
    if out is not None:
        table = PredictionTable(out, model.classes, ids, proba, overwrite)
        table.check([photo.path for photo in listed])  # before anything is computed
    usable = [photo.file or photo.path for photo in listed if photo.reason is None]
    answers = model.predict(
        usable,
        top=len(model.classes) if proba else top,
        cache_dir=common.cache_dir,
        progress=common.progress,
        **{name: value for name, value in options.items() if value},
    ) if usable else []  # fmt: skip
    found = _in_place(listed, answers)
    written = None if table is None else table.write(found)
    found = [replace(one, top_classes=one.top_classes[:top]) for one in found]
    if common.json:
        print(json.dumps([_record(prediction) for prediction in found], indent=2))
    else:
        for prediction in found:
            if written is None or prediction.reason:
                print(_line(prediction))
        if written is not None:
            print(summary_line(written, found))
    return int(strict and any(prediction.reason for prediction in found))


@dataclass(frozen=True)
class _Photo:
    """A photo to predict.

    Attributes
    ----------
    path : str
        The path as the user wrote it, for the output.
    reason : str or None
        Why it cannot be a photo, if that is clear without opening it.
    file : str or None
        The file to open, if that is not `path`.
    """

    path: str
    reason: str | None = None
    file: str | None = None


def _photos(names: Iterable[str], column: str | None) -> Iterator[_Photo]:
    """Yield the photos of the arguments, in order; those that cannot be used with a reason."""
    from ..data.tables import read_csv_paths
    from ..data.urls import clean_url, is_url

    for name in names:
        if is_url(name):
            yield _Photo(clean_url(name), file=name)
        elif name == "-":
            lines = (line.rstrip("\n") for line in sys.stdin if line.strip())
            yield from (
                _Photo(clean_url(line), file=line) if is_url(line) else _Photo(line)
                for line in lines
            )
        elif os.path.isdir(name):
            yield from _photos_below(name)
        elif _is_table(name):
            yield from (_Photo(path, file=file) for path, file in read_csv_paths(name, column))
        else:
            yield _Photo(name)  # if it is missing or not a photo, reading it gives the reason


def _is_table(name: str) -> bool:
    return name.lower().endswith((".csv", ".tsv"))


def _one_image(photo: _Photo) -> _Photo:
    """Return a photo, with a reason if its file holds several images.

    Archives alone in a list would be read as the images in them, whose predictions would be
    printed beside the names of others.
    """
    from ..data.load import holds_several_images

    if photo.reason is None and holds_several_images(photo.file or photo.path):
        return replace(photo, reason=_SEVERAL)
    return photo


def _photos_below(folder: str) -> list[_Photo]:
    from ..data.listing import list_images, other_files

    try:
        listing = list_images(folder)
    except DatasetError as error:
        return [_Photo(folder, str(error).removesuffix("."))]
    if not listing.images:
        others = other_files(listing.ignored).removesuffix(".")
        return [_Photo(folder, f"is a folder without images{others and '.'}{others}")]
    return [_Photo(path) for path in listing.images]


def _in_place(listed: Iterable[_Photo], answers: Iterable[Prediction]) -> list[Prediction]:
    """Return one prediction per photo, in the order of the arguments and with their paths."""
    from ..bundle.bundle import Prediction

    rest = iter(answers)
    return [
        replace(next(rest), path=photo.path)
        if photo.reason is None
        else Prediction(photo.path, [], photo.reason)
        for photo in listed
    ]


def _record(prediction: Prediction) -> dict[str, Any]:
    found = [{"label": name, "probability": value} for name, value in prediction.top_classes]
    return {**asdict(prediction), "top_classes": found}


def _line(prediction: Prediction) -> str:
    path = printable(prediction.path)  # one line per photo, whatever its name holds
    if prediction.reason:
        return f"{path}: no prediction ({prediction.reason})"
    found = [f"{printable(name)} {100 * value:.1f} %" for name, value in prediction.top_classes]
    return f"{path}: {', '.join(found)}"
