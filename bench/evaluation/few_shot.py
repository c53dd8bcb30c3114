"""Few-shot curves: accuracy by the number of training images per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.errors import InvalidRequest
from featcache.toolkit import progress_bar

from ..contenders.base import Contender
from ..splits import Images

COUNTS = (1, 2, 5, 10, 30)
DRAWS = 3


@dataclass(frozen=True)
class FewShot:
    """One training on few images: a point of a few-shot curve.

    Attributes
    ----------
    contender : str
    per_class : int
        Number of training images per class.
    draw : int
        Number of the random draw; for one draw, smaller training sets are subsets of larger
        ones.
    top1 : float
        Accuracy on the whole test part, 0 to 1.
    """

    contender: str
    per_class: int
    draw: int
    top1: float


def counts_for(codes: NDArray[np.int64], counts: Sequence[int] = COUNTS) -> list[int]:
    """Return the counts for which every class has enough images.

    Examples
    --------
    >>> counts_for(np.repeat([0, 1], [7, 12]))
    [1, 2, 5]
    """
    if any(count < 1 for count in counts):
        raise InvalidRequest(f"Few-shot counts start at 1, not {min(counts)}.", received=counts)
    least = int(np.bincount(codes)[np.unique(codes)].min())
    return sorted({count for count in counts if count <= least})


def draw_rows(
    codes: NDArray[np.int64], per_class: int, draw: int, random_state: int
) -> NDArray[np.int64]:
    """Draw `per_class` rows of each class; for one draw, smaller sets are subsets of larger ones.

    Examples
    --------
    >>> codes = np.array([0, 0, 0, 1, 1, 1])
    >>> two, three = (set(draw_rows(codes, n, 0, 0).tolist()) for n in (2, 3))
    >>> len(two), two < three
    (4, True)
    """
    generator = np.random.default_rng([random_state, draw])
    order = generator.permutation(len(codes))
    chosen = [order[codes[order] == code][:per_class] for code in np.unique(codes)]
    return np.sort(np.concatenate(chosen))


def few_shot_curves(
    contenders: Mapping[str, Contender],
    train: tuple[Images, NDArray[np.int64]],
    test: tuple[Images, NDArray[np.int64]],
    n_classes: int,
    *,
    counts: Sequence[int] = COUNTS,
    random_state: int = 0,
    progress: bool | None = None,
) -> list[FewShot]:
    """Train contenders on few images per class, and score them on all test images.

    Parameters
    ----------
    contenders : mapping of str to Contender
        Prepared contenders. Slow ones (`Contender.quick` is false) are left out.
    train, test : (Images, ndarray)
        Images and their class codes. Test codes are used for scoring alone.
    n_classes : int
    counts : sequence of int
        Numbers of images per class; those that exceed the smallest class are left out.
    random_state : int
        Seed of the draws and of the contenders.
    progress : bool, optional
        Show a progress bar. Default: if standard error is a terminal.

    Returns
    -------
    list of FewShot
        `DRAWS` points per contender and count.
    """
    quick = {name: contender for name, contender in contenders.items() if contender.quick}
    images, codes = train
    points: list[FewShot] = []
    wanted = counts_for(codes, counts)
    with progress_bar(len(quick) * len(wanted) * DRAWS, "Few-shot", "fits", progress) as bar:
        for name, contender in quick.items():
            for per_class in wanted:
                for draw in range(DRAWS):
                    rows = draw_rows(codes, per_class, draw, random_state)
                    contender.fit(
                        images.take(rows),
                        codes[rows],
                        n_classes,
                        random_state=random_state,
                        progress=False,
                    )
                    prediction = contender.predict_proba(test[0]).argmax(axis=1)
                    points.append(
                        FewShot(name, per_class, draw, float(np.mean(prediction == test[1])))
                    )
                    bar.update()
    return points
