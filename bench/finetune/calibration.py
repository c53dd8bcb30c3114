"""Temperature scaling of a fine-tuned network; the result is stored beside its checkpoint."""

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

# Prefix of the folders of cross-validation models; they are removed once the temperature is fitted.
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
        Folder of the run. A temperature that is stored there is not fitted again.
    model : keras.Model
        The trained network.
    codes : ndarray (n,)
        Class of each image.
    unseen : ndarray (m,)
        Images held out of training.
    proba_of : callable
        Returns the probabilities of a model for images.
    train_on : callable
        Returns a model that is trained on some images, as `model` is on all.
    random_state : int
        Seed of the folds.

    Returns
    -------
    (float, float)
    """
    stored = _read(folder / _FILE)
    if stored is not None:
        return stored
    started = time.perf_counter()
    temperature = _fit(model, codes, unseen, proba_of, train_on, random_state)
    found = temperature, time.perf_counter() - started
    record = {"temperature": found[0], "seconds": found[1]}
    write_memo(folder / _FILE, record, "a calibration")
    for fold in folder.glob(f"{FOLD_PREFIX}*"):
        # Another process that trains the same run may be writing there; it removes the rest.
        shutil.rmtree(fold, ignore_errors=True)
    return found


def divide_scores(model: Any, temperature: float) -> None:
    """Divide the weights of the last layer, so that the saved model itself is calibrated."""
    top = model.layers[-1]
    top.set_weights([weight / temperature for weight in top.get_weights()])


def _fit(
    model: Any, codes: Rows, unseen: Rows, proba_of: Any, train_on: Any, random_state: int
) -> float:
    # The score of a class without images is not trained, and is left out.
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
    """Return the stored temperature and seconds; None if there is no valid file."""
    try:
        record: Any = read_memo(file)
        found = float(record["temperature"]), float(record["seconds"])
    except (ValueError, KeyError, TypeError):
        return None
    return found if np.isfinite(found).all() and min(found) > 0 else None
