"""`evaluate`: train contenders on a split, and measure their predictions and their cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featcache.errors import InvalidRequest
from featcache.toolkit import get_logger

from ..contenders.base import Contender, ContenderInfo, Training
from ..splits import Images, Split, blind_images, images_of
from .callbacks import Callback, CallbackList
from .few_shot import few_shot_curves
from .memory import PeakMemory
from .results import Cost, Result, Results

log = get_logger(__name__)


def evaluate(
    contenders: Mapping[str, Contender],
    split: Split,
    *,
    random_state: int = 0,
    few_shot: Sequence[int] = (),
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
) -> Results:
    """Train each contender on the training part and score it on the test part.

    Contenders get anonymous files in random order and the training labels, never a test label.
    An image that one of them cannot use is left out for all.

    Parameters
    ----------
    contenders : mapping of str to Contender
        By the name that the results show.
    split : Split
    random_state : int
        Seed of the contenders and of the order of the images.
    few_shot : sequence of int
        Numbers of training images per class, such as (1, 2, 5): also train the quick
        contenders on that few; see `bench.evaluation.few_shot`.
    callbacks : sequence of Callback
        Told of each result as soon as it is there; see `bench.Callback`.
    progress : bool, optional
        Show progress bars. Default: if standard error is a terminal.

    Returns
    -------
    Results
        In the order of `contenders`.

    Raises
    ------
    InvalidRequest
        If there is no contender, the training part has fewer than two classes, or a contender
        gives anything else than probabilities.
    """
    if not contenders:
        raise InvalidRequest("There is no contender to evaluate; name at least one.")
    _check_parts(split)  # now, not after all images were computed
    told = CallbackList(callbacks)
    told.begin(split, list(contenders), random_state)
    try:
        results = _evaluate(contenders, split, random_state, few_shot, told, progress)
    except BaseException:  # also Ctrl-C
        told.end(None)
        raise
    told.end(results)
    return results


def _evaluate(
    contenders: Mapping[str, Contender],
    split: Split,
    random_state: int,
    few_shot: Sequence[int],
    told: CallbackList,
    progress: bool | None,
) -> Results:
    with blind_images(split) as placed:
        by_name = np.array(sorted(placed, key=placed.__getitem__))
        prepared = _prepare(contenders, images_of(split, placed, by_name), progress)
        usable = split.without(set(prepared.unusable))
        _check_parts(usable)
        task = _task(usable, placed, random_state)
        curves = few_shot_curves(
            contenders if few_shot else {},
            (task.train, task.codes),
            (task.test, usable.codes(task.positions)),
            len(split.classes),
            counts=few_shot,
            random_state=random_state,
            progress=progress,
        )
        results = []
        for name, contender in contenders.items():
            log.info("%s: training on %d images", name, len(task.train))
            trial = _train_and_predict(contender, task, random_state, progress)
            _check(name, trial.proba, len(task.test), len(split.classes))
            results.append(_result(name, contender.facts(), task, trial, prepared))
            log.info("%s: top-1 %.4f", name, results[-1].metrics["top1"])
            told.result(results[-1])
    return Results(results, usable, random_state, prepared.unusable, curves)


@dataclass
class _Preparation:
    """What preparing took, by contender, and which images cannot be used, by id."""

    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)


def _prepare(
    contenders: Mapping[str, Contender], images: Images, progress: bool | None
) -> _Preparation:
    """Let each contender prepare all images, those of both parts at once."""
    found = _Preparation()
    for name, contender in contenders.items():
        log.info("%s: preparing %d images", name, len(images))
        started = time.perf_counter()
        with PeakMemory() as memory:
            found.unusable.update(contender.prepare(images, progress))
        found.seconds[name] = time.perf_counter() - started
        found.peaks[name] = memory.peak
    return found


def training_of(split: Split, random_state: int) -> Training:
    """Return what `evaluate` trains contenders on if they can use all images.

    The paths are those of the data set, and no contender may be trained on it.
    """
    task = _task(split, dict(enumerate(split.dataset.paths)), random_state)
    return Training(task.train, task.codes, len(split.classes), random_state)


@dataclass(frozen=True)
class _Task:
    """The images of each contender, in random order, and the true classes of the test images.

    Attributes
    ----------
    positions : ndarray of int64
        Position in the data set of each test image.
    """

    train: Images
    codes: NDArray[np.int64]
    test: Images
    positions: NDArray[np.int64]
    split: Split


def _task(split: Split, placed: Mapping[int, str], random_state: int) -> _Task:
    order = np.random.default_rng(random_state)
    train, test = order.permutation(split.train), order.permutation(split.test)
    images, test_images = (images_of(split, placed, rows) for rows in (train, test))
    return _Task(images, split.codes(train), test_images, test, split)


class _Trial(NamedTuple):
    proba: NDArray[np.float64]
    fit_seconds: float
    predict_seconds: float
    peak_memory: int


def _train_and_predict(
    contender: Contender, task: _Task, random_state: int, progress: bool | None
) -> _Trial:
    classes = len(task.split.classes)
    started = time.perf_counter()
    with PeakMemory() as memory:
        contender.fit(task.train, task.codes, classes, random_state=random_state, progress=progress)
        fitted = time.perf_counter()
        proba = np.asarray(contender.predict_proba(task.test), np.float64)
        predicted = time.perf_counter()
    return _Trial(proba, fitted - started, predicted - fitted, memory.peak)


def _result(
    name: str, facts: ContenderInfo, task: _Task, trial: _Trial, prepared: _Preparation
) -> Result:
    """Join predictions to the truth in the data set's order, and times to a cost."""
    in_order = np.argsort(task.positions)
    positions = task.positions[in_order]
    cost = Cost(
        extract_seconds=facts.extract_seconds,
        prepare_seconds=prepared.seconds[name],
        fit_seconds=trial.fit_seconds if facts.fit_seconds is None else facts.fit_seconds,
        predict_seconds=trial.predict_seconds
        if facts.predict_seconds is None
        else facts.predict_seconds,
        images=len(task.train) + len(task.test),
        test_images=len(task.test),
        trainable_parameters=facts.trainable_parameters,
        total_parameters=facts.total_parameters,
        disk_bytes=facts.disk_bytes,
        peak_memory_bytes=max(prepared.peaks[name], trial.peak_memory),
    )
    truth = task.split.codes(positions)
    return Result(name, truth, trial.proba[in_order], positions, cost, facts)


def _check_parts(split: Split) -> None:
    """Raise `InvalidRequest` if a part is empty, or the training part has one class."""
    if not len(split.train) or not len(split.test):
        raise InvalidRequest("No usable image is left in the training or the test part.")
    codes = np.unique(split.codes(split.train))
    if len(codes) < 2:
        raise InvalidRequest(
            f"The training part has {len(split.train)} usable images of one class, "
            f"{split.classes[codes[0]]!r}, and none of another; a comparison needs at least two "
            "classes. Add images of other classes, or use another split.",
            received=[split.classes[code] for code in codes],
        )


def _check(name: str, proba: NDArray[np.float64], rows: int, classes: int) -> None:
    is_valid = proba.shape == (rows, classes) and np.isfinite(proba).all() and (proba >= 0).all()
    if not is_valid or not np.allclose(proba.sum(axis=1), 1, atol=1e-3):
        raise InvalidRequest(
            f"The contender {name!r} gave an array of shape {proba.shape} that does not hold "
            f"probabilities; expected {rows} rows of {classes} values from 0 that sum to 1.",
            received=proba.shape,
        )
