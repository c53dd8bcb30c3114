"""Contenders x split -> results: one door, the same images, metrics and accounts for all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from featcache.errors import InvalidRequest
from featcache.toolkit import get_logger

from ..contenders.base import Contender
from ..splits import Split, blind_images, images_of
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
    progress: bool | None = None,
) -> Results:
    """Train each contender on the training part and score it on the test part.

    Contenders see files whose names and order tell nothing, the training labels, and no
    test label. An image that one of them cannot use is left out for all.

    Parameters
    ----------
    contenders : mapping of str to Contender
    split : Split
    random_state : int
        Of the contenders' randomness and of the order in which images are handed out.
    few_shot : sequence of int
        Also train quick contenders on so many images per class; see `bench.evaluation.few_shot`.
    progress : bool, optional
        Show progress bars. Default: if standard error is a terminal.

    Returns
    -------
    Results
        In the order of `contenders`.

    Raises
    ------
    InvalidRequest
        Without a contender, if the training part has fewer than two classes, or if a
        contender gives something else than probabilities.
    """
    if not contenders:
        raise InvalidRequest("There is no contender to evaluate; name at least one.")
    _check_parts(split)  # now, not after all images were computed
    with blind_images(split) as placed:
        prepared: dict[str, float] = {}
        peaks: dict[str, int] = {}
        unusable: dict[str, str] = {}
        by_name = np.array(sorted(placed, key=placed.__getitem__))
        everything = images_of(split, placed, by_name)
        for name, contender in contenders.items():
            log.info("%s: preparing %d images", name, len(everything))
            started = time.perf_counter()
            with PeakMemory() as memory:
                unusable.update(contender.prepare(everything, progress))
            prepared[name] = time.perf_counter() - started
            peaks[name] = memory.peak
        usable = split.without(set(unusable))
        _check_parts(usable)
        order = np.random.default_rng(random_state)
        train, test = order.permutation(usable.train), order.permutation(usable.test)
        train_images, test_images = (images_of(split, placed, rows) for rows in (train, test))
        codes = usable.codes(train)
        # Results are told in the data set's order, whatever order the images were handed out in.
        in_order = np.argsort(test)
        positions = test[in_order]
        truth = usable.codes(positions)
        curves = few_shot_curves(
            contenders if few_shot else {},
            (train_images, codes),
            (test_images, usable.codes(test)),
            len(split.classes),
            counts=few_shot,
            random_state=random_state,
            progress=progress,
        )
        results = []
        for name, contender in contenders.items():
            log.info("%s: training on %d images", name, len(train))
            started = time.perf_counter()
            with PeakMemory() as memory:
                contender.fit(
                    train_images,
                    codes,
                    len(split.classes),
                    random_state=random_state,
                    progress=progress,
                )
                fitted = time.perf_counter()
                proba = np.asarray(contender.predict_proba(test_images), np.float64)
                predicted = time.perf_counter()
            _check(name, proba, len(test), len(split.classes))
            facts = contender.facts()
            cost = Cost(
                extract_seconds=facts.extract_seconds,
                prepare_seconds=prepared[name],
                fit_seconds=fitted - started if facts.fit_seconds is None else facts.fit_seconds,
                predict_seconds=predicted - fitted,
                images=len(train) + len(test),
                test_images=len(test),
                trainable_parameters=facts.trainable_parameters,
                total_parameters=facts.total_parameters,
                disk_bytes=facts.disk_bytes,
                peak_memory_bytes=max(peaks[name], memory.peak),
            )
            results.append(Result(name, truth, proba[in_order], positions, cost, facts))
            log.info("%s: top-1 %.4f", name, results[-1].metrics["top1"])
    return Results(results, usable, random_state, unusable, curves)


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
    sound = proba.shape == (rows, classes) and np.isfinite(proba).all() and (proba >= 0).all()
    if not sound or not np.allclose(proba.sum(axis=1), 1, atol=1e-3):
        raise InvalidRequest(
            f"The contender {name!r} gave an array of shape {proba.shape} that does not hold "
            f"probabilities; expected {rows} rows of {classes} values from 0 that sum to 1.",
            received=proba.shape,
        )
