"""L-BFGS for smooth convex functions of a few hundred thousand float32 variables.

Nocedal & Wright 2006, "Numerical Optimization", algorithm 7.4, with a backtracking line search.
SciPy's L-BFGS-B handles bounds, with vectors in float64 on one core: for 120 classes x 2,048
columns that takes as long as the function itself, which is two large matrix products.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from .base import Floats

# Per iteration: the step, the change of the gradient, and the inverse of their inner product.
Memory = deque[tuple[Floats, Floats, float]]
_MEMORY_SIZE = 6
_SUFFICIENT_DECREASE = 1e-4  # constant of the Armijo condition
_MAX_BACKTRACKS = 30


def minimise(
    function: Callable[[Floats], tuple[float, Floats]],
    start: Floats,
    max_iter: int,
    tol: float,
    memory: Memory | None = None,
) -> tuple[Floats, int]:
    """Minimise a smooth convex function by L-BFGS.

    Parameters
    ----------
    function : callable
        Returns the value at a vector, and the gradient as a new array.
    start : ndarray (m,), float32
    max_iter : int
        Maximum number of iterations.
    tol : float
        Relative decrease of the value below which the iteration stops.
    memory : Memory, optional
        The memory of a search on a similar function; it is updated.

    Returns
    -------
    (ndarray (m,), int)
        The best vector and the number of iterations.

    Examples
    --------
    >>> bowl = lambda x: (float(((x - 3) ** 2).sum()), 2 * (x - 3))
    >>> minimise(bowl, np.zeros(2, np.float32), 50, 1e-9)[0].round(3).tolist()
    [3.0, 3.0]
    """
    x = start
    value, gradient = function(x)
    pairs: Memory = new_memory() if memory is None else memory
    # The first iterations have little information on the curvature; a small decrease does not
    # mean convergence there.
    learning = 0 if pairs else _MEMORY_SIZE // 2
    idle = 0
    for step in range(1, max_iter + 1):
        direction = _direction(gradient, pairs)
        slope = float(gradient @ direction)
        if not slope < 0:  # converged to the resolution of float32, or the memory does not fit
            if not pairs:
                return x, step - 1
            pairs.clear()
            continue
        if step > learning and -0.5 * slope <= tol * abs(value):
            return x + direction, step  # the expected decrease is too small to evaluate it
        length = 1.0 if pairs else min(1.0, 1 / float(np.sqrt(-slope)))
        found = _search_line(function, x, value, direction, slope, length)
        if found is None:
            return x, step - 1  # no lower value at the resolution of float32
        moved, new_value, new_gradient = found
        change, bend = moved - x, new_gradient - gradient
        curvature = float(change @ bend)
        if curvature > 0:
            pairs.append((change, bend, 1 / curvature))
        gained = value - new_value
        x, value, gradient = moved, new_value, new_gradient
        idle = idle + 1 if gained <= tol * max(abs(value), 1e-12) else 0
        if idle == 2 or (idle and step > learning):
            return x, step
    return x, max_iter


def _search_line(
    function: Callable[[Floats], tuple[float, Floats]],
    x: Floats,
    value: float,
    direction: Floats,
    slope: float,
    length: float,
) -> tuple[Floats, float, Floats] | None:
    """Backtrack from a step length until the value decreases enough (Armijo's condition).

    Returns
    -------
    (ndarray (m,), float, ndarray (m,)) or None
        The vector, its value and its gradient; None if no step decreases the value.
    """
    for _ in range(_MAX_BACKTRACKS):
        moved = x + np.float32(length) * direction
        new_value, new_gradient = function(moved)
        if new_value <= value + _SUFFICIENT_DECREASE * length * slope:
            return moved, new_value, new_gradient
        # The minimum of the parabola through both values and the slope, within bounds.
        excess = new_value - value - length * slope
        length *= min(0.5, max(0.05, -length * slope / (2 * excess)))
    return None


def new_memory() -> Memory:
    """Return an empty memory."""
    return deque(maxlen=_MEMORY_SIZE)


def _direction(gradient: Floats, pairs: Memory) -> Floats:
    """Return the search direction: the gradient times the negative approximate inverse Hessian."""
    result = -gradient
    weights = []
    for change, bend, scale in reversed(pairs):
        weight = np.float32(scale * float(change @ result))
        result -= weight * bend
        weights.append(weight)
    if pairs:
        _, bend, scale = pairs[-1]
        result *= np.float32(1 / (scale * float(bend @ bend)))
    for (change, bend, scale), weight in zip(pairs, reversed(weights), strict=True):
        result += (weight - np.float32(scale * float(bend @ result))) * change
    return result
