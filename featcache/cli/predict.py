"""`featcache predict`: photos in, classes and probabilities out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..printable import printable
from .options import Common, command, no_progress

if TYPE_CHECKING:
    from ..bundle.bundle import Prediction


@command("predict")
@click.argument("bundle", type=click.Path())
@click.argument("photos", nargs=-1, required=True)
@click.option("--top", type=int, default=3, show_default=True, help="Classes per photo.")
@click.option(
    "--backbone", metavar="MODEL.keras", help="Where the bundle was made with somebody's own model."
)
@click.option("--weights", help="Of the backbone, if they are a file.")
@click.option("--strict", is_flag=True, help="Exit status 1 if a photo cannot be used.")
@no_progress
def predict(
    common: Common,
    bundle: str,
    photos: tuple[str, ...],
    top: int,
    backbone: str | None,
    weights: str | None,
    strict: bool,
    no_progress: bool,
) -> int:
    """Print what photos show.

    BUNDLE is a file such as the model.featcache that a benchmark run leaves.

    PHOTOS are files, folders, CSV files with a column 'path', or - for a list of paths on
    standard input. A photo that cannot be used is listed with the reason, in its place.
    """
    from ..bundle.bundle import load_bundle

    chosen = {"backbone": backbone, "weights": weights}
    found = load_bundle(bundle).predict(
        _paths(photos),
        top=top,
        cache_dir=common.cache_dir,
        progress=common.progress(no_progress),
        **{name: value for name, value in chosen.items() if value},
    )
    if common.json:
        print(json.dumps([_record(prediction) for prediction in found], indent=2))
    else:
        for prediction in found:
            print(_line(prediction))
    return int(strict and any(prediction.reason for prediction in found))


def _paths(names: Iterable[str]) -> list[str]:
    from ..datasets.load import load_dataset
    from ..errors import DatasetError

    paths: list[str] = []
    for name in names:
        if name == "-":
            paths += [line.rstrip("\n") for line in sys.stdin if line.strip()]
        elif os.path.isdir(name) or name.lower().endswith((".csv", ".tsv")):
            paths += load_dataset(name).paths
        else:
            paths.append(name)  # also one that is missing or no photo: the reason takes its place
    if not paths:
        raise DatasetError("No photo was named; give photos, folders, or a list with -.")
    return paths


def _record(prediction: Prediction) -> dict[str, Any]:
    guesses = [{"label": name, "probability": value} for name, value in prediction.guesses]
    return {**asdict(prediction), "guesses": guesses}


def _line(prediction: Prediction) -> str:
    path = printable(prediction.path)  # one line per photo, whatever its name holds
    if prediction.reason:
        return f"{path}: no prediction ({prediction.reason})"
    guesses = [f"{printable(name)} {100 * value:.1f} %" for name, value in prediction.guesses]
    return f"{path}: {', '.join(guesses)}"
