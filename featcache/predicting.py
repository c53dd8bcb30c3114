"""`featcache predict`: photos in, breeds and probabilities out."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from .bundle import Prediction, load_bundle
from .dataset import Dataset
from .errors import DatasetError
from .formats import SUFFIXES
from .loading import load_dataset


def run(options: argparse.Namespace) -> int:
    """Predict and print; 1 if some photo could not be used."""
    bundle = load_bundle(options.bundle)
    chosen: dict[str, Any] = {
        "cache_dir": options.cache_dir,
        "progress": False if options.no_progress or options.quiet else None,
    }
    for name in ("weights", "backbone"):
        if getattr(options, name):
            chosen[name] = getattr(options, name)
    found = bundle.predict(_photos(options.photos), top=options.top, **chosen)
    if options.json:
        print(json.dumps([_record(prediction) for prediction in found], indent=2))
    else:
        for prediction in found:
            print(_line(prediction))
    return int(any(prediction.reason for prediction in found))


def _photos(names: Iterable[str]) -> Dataset:
    paths: list[str] = []
    for name in names:
        if name == "-":
            paths += [line.rstrip("\n") for line in sys.stdin if line.strip()]
        elif os.path.isdir(name) or os.path.splitext(name)[1].lower() not in SUFFIXES:
            paths += load_dataset(name).paths
        else:
            paths.append(name)  # also one that is missing: it is told in its place
    if not paths:
        raise DatasetError("No photo was named; give photos, folders, or a list with -.")
    return load_dataset(paths)


def _record(prediction: Prediction) -> dict[str, Any]:
    guesses = [{"label": name, "probability": share} for name, share in prediction.guesses]
    return {**asdict(prediction), "guesses": guesses}


def _line(prediction: Prediction) -> str:
    if prediction.reason:
        return f"{prediction.path}: cannot be used: {prediction.reason}"
    guesses = ", ".join(f"{name} {100 * share:.1f} %" for name, share in prediction.guesses)
    return f"{prediction.path}: {guesses}"
