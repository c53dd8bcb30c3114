"""The temperature of a fine-tuned network: fitted once per run and kept beside its checkpoint."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.toolkit import read_memo, write_memo
from heads.calibration import choose_temperature

Rows = NDArray[np.int64]

# Folders of models on a part of the images begin with this; they go once the number is known.
FOLD_PREFIX = "fold-"
_FILE = "calibration.json"


def calibrate(
    folder: Path,
    model: Any,
    codes: Rows,
    unseen: Rows,
    proba_of: Callable[[Any, Rows], NDArray[np.float64]],
    train_on: Callable[[Rows], Any],
    random_state: int,
) -> tuple[float, float]:
    """Return the temperature of a trained network, and the seconds that fitting it took.

    Parameters
    ----------
    folder : Path
        Of the run; what was fitted before is read from it.
    model : keras.Model
        Trained.
    codes : ndarray (n,)
        Class of each image.
    unseen : ndarray (m,)
        Images that no step of training used.
    proba_of : callable
        From a model and images to probabilities.
    train_on : callable
        From images to a model that was trained on them as `model` was on all.
    random_state : int
        Of the folds.
    """
    known = _read(folder / _FILE)
    if known is not None:
        return known
    started = time.perf_counter()
    temperature = _fit(model, codes, unseen, proba_of, train_on, random_state)
    found = temperature, time.perf_counter() - started
    record = {"temperature": found[0], "seconds": found[1]}
    write_memo(folder / _FILE, record, "a calibration")
    for fold in folder.glob(f"{FOLD_PREFIX}*"):
        shutil.rmtree(fold)
    return found


def divide_scores(model: Any, temperature: float) -> None:
    """Divide the scores before the softmax, so that the saved model is calibrated by itself."""
    top = model.layers[-1]
    top.set_weights([weight / temperature for weight in top.get_weights()])


def _fit(
    model: Any, codes: Rows, unseen: Rows, proba_of: Any, train_on: Any, random_state: int
) -> float:
    # A class without images has a score that nothing was learned of.
    present, truth = np.unique(codes, return_inverse=True)

    def scores(model: Any, rows: Rows) -> NDArray[np.float64]:
        return np.asarray(np.log(np.clip(proba_of(model, rows)[:, present], 1e-30, 1)))

    if len(present) < 2:
        return 1.0
    return choose_temperature(
        truth,
        unseen,
        lambda rows: scores(model, rows),
        lambda rows, scored: scores(train_on(rows), scored),
        random_state,
        min_prior=1,
    )


def _read(file: Path) -> tuple[float, float] | None:
    """Return what was fitted before; None if there is nothing valid."""
    try:
        record: Any = read_memo(file)
        found = float(record["temperature"]), float(record["seconds"])
    except (ValueError, KeyError, TypeError):
        return None
    return found if np.isfinite(found).all() and min(found) > 0 else None
