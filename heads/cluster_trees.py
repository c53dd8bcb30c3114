"""Training of LightGBM by the workers of a Dask cluster, which read the rows themselves.

The only module of heads that imports Dask. Rows do not pass through the scheduler: a task has the
ids of some rows and the folder of their store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import dask.array
import lightgbm
import numpy as np
from dask.delayed import delayed
from distributed import wait
from lightgbm.dask import DaskLGBMRegressor

from featcache.errors import ClusterError, FeatcacheError
from featcache.toolkit import LazyRows, first_line, ignored_warnings

from .blocks import Codes, RowBlocks
from .sums import Axes, RowSums
from .weights import Floats, RowWeights

_BLOCK_BYTES = 2**29  # of which a block takes an eighth
_PARTS_PER_WORKER = 2
_MAX_PART_ROWS = 200_000  # 6 MB of ids; Dask warns of tasks of 10 MB
_RUNS = 32  # of rows side by side, in each part


class Part(NamedTuple):
    """Rows that one worker reads.

    Attributes
    ----------
    rows : LazyRows
    codes : ndarray (m,)
    weights : ndarray (m,) or None
        Of the loss.
    """

    rows: LazyRows
    codes: Codes
    weights: Floats | None


def count_parts(client: Any, count: int) -> int:
    """Return into how many parts a number of rows is divided."""
    with _cluster_errors():
        workers = len(client.nthreads())
    return max(1, _PARTS_PER_WORKER * workers, -(-count // _MAX_PART_ROWS))


def deal(rows: Codes, parts: int) -> list[Codes]:
    """Divide rows, which may be sorted by class, into parts that resemble each other.

    Each has runs of rows side by side, which are read at once.

    Examples
    --------
    >>> [part.tolist() for part in deal(np.arange(6), 2)]
    [[0, 2, 4], [1, 3, 5]]
    """
    size = max(1, len(rows) // (_RUNS * parts))
    run = np.arange(len(rows)) // size % parts
    return [rows[run == number] for number in range(min(parts, len(rows)))]


def sums_on_workers(client: Any, parts: Sequence[Part], shift: Floats) -> RowSums:
    """Return the sums over the rows of all parts, about a shift."""
    total = RowSums(len(shift), shift)
    futures = [client.submit(_sums_of, part.rows, part.codes, shift, pure=False) for part in parts]
    with _cluster_errors():
        for future in futures:
            total.merge(future.result())
    return total


def train_on_workers(
    client: Any,
    parts: Sequence[Part],
    axes: Axes,
    params: dict[str, Any],
    n_estimators: int,
) -> lightgbm.Booster:
    """Return trees that LightGBM trained on the rows of all parts, reduced by the workers.

    Each worker keeps the reduced rows that it has read. The trees need no cluster.
    """
    reduced = [client.submit(_reduced, part.rows, part.codes, axes, pure=False) for part in parts]
    # LightGBM asks Dask for the current client in one place, and warns of its own default.
    with _cluster_errors(), client.as_current(), ignored_warnings("Parameter n_jobs"):
        wait(reduced)
        for future in reduced:
            if future.status != "finished":  # LightGBM would hide the reason
                future.result()
        # Not its classifier: that numbers the classes which a worker has rows of, so that a worker
        # without rows of one would mislabel those of others.
        model = DaskLGBMRegressor(client=client, n_estimators=n_estimators, **params)
        width = len(axes.components)
        model.fit(
            _array(reduced, [(len(part.codes), width) for part in parts]),
            _vector([part.codes.astype(np.float32) for part in parts]),
            sample_weight=(
                None if parts[0].weights is None else _vector([_weights(part) for part in parts])
            ),
        )
    return model.booster_


def _sums_of(rows: LazyRows, codes: Codes, shift: Floats) -> RowSums:
    sums = RowSums(len(shift), shift)
    for block in _blocks(rows, codes):
        sums.add(block)
    return sums


def _reduced(rows: LazyRows, codes: Codes, axes: Axes) -> Floats:
    return np.concatenate([axes.reduce(block.rows) for block in _blocks(rows, codes)])


def _blocks(rows: LazyRows, codes: Codes) -> RowBlocks:
    return RowBlocks(rows, codes, RowWeights(), _BLOCK_BYTES)


def _weights(part: Part) -> Floats:
    assert part.weights is not None
    return part.weights


def _array(parts: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> Any:
    arrays = [
        dask.array.from_delayed(delayed(part), shape, np.float32)
        for part, shape in zip(parts, shapes, strict=True)
    ]
    return dask.array.concatenate(arrays)


def _vector(parts: Sequence[Floats]) -> Any:
    return _array(parts, [part.shape for part in parts])


@contextmanager
def _cluster_errors() -> Iterator[None]:
    """Raise `ClusterError` for an error of Dask or LightGBM; pass on those of featcache."""
    try:
        yield
    except FeatcacheError:
        raise
    except Exception as error:  # of a worker, of any type
        reason = first_line(error, 300)
        raise ClusterError(
            f"Training on the cluster failed: {reason}. All workers must see the folder of the "
            "store under the same path, and reach each other by TCP. The same call on a cluster "
            "that is whole trains again.",
            reason=reason,
        ) from error
