"""A minimiser for smooth convex functions of a few hundred thousand float32 numbers.

L-BFGS (Nocedal & Wright 2006, algorithm 7.4) with a backtracking line search. SciPy's
minimiser keeps bounds, and its vectors in float64 on one core: for 120 classes x 2,048
columns that takes as long as the function itself, which is two large matrix products.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from .base import Floats

# Steps, how the gradient changed over each, and the inverse product of the two.
Memory = deque[tuple[Floats, Floats, float]]
_MEMORY = 6
_SUFFICIENT = 1e-4  # fraction of the decrease that the slope promises
_HALVINGS = 30


def minimise(
    function: Callable[[Floats], tuple[float, Floats]],
    start: Floats,
    max_iter: int,
    tol: float,
    memory: Memory | None = None,
) -> tuple[Floats, int]:
    """Go downhill until a step gains next to nothing.

    Parameters
    ----------
    function : callable
        From a vector to its value and a new array with the gradient.
    start : ndarray (m,)
    max_iter : int
    tol : float
        Decrease of the value, relative to it, below which a step ends the search.
    memory : Memory, optional
        What a search on a similar function found out; this one adds to it.

    Returns
    -------
    (ndarray (m,), int)
        The best vector and the number of steps.

    Examples
    --------
    >>> bowl = lambda x: (float(((x - 3) ** 2).sum()), 2 * (x - 3))
    >>> minimise(bowl, np.zeros(2, np.float32), 50, 1e-9)[0].round(3).tolist()
    [3.0, 3.0]
    """
    x = start
    value, gradient = function(x)
    pairs: Memory = new_memory() if memory is None else memory
    # The first steps know little of the curvature, and a small gain means little then.
    learning = 0 if pairs else _MEMORY // 2
    idle = 0
    for step in range(1, max_iter + 1):
        direction = _direction(gradient, pairs)
        slope = float(gradient @ direction)
        if not slope < 0:  # converged to the last bit, or a memory that misleads
            if not pairs:
                return x, step - 1
            pairs.clear()
            continue
        if step > learning and -0.5 * slope <= tol * abs(value):
            return x + direction, step  # so little is to be gained that it need not be seen
        length = 1.0 if pairs else min(1.0, 1 / float(np.sqrt(-slope)))
        for _ in range(_HALVINGS):
            moved = x + np.float32(length) * direction
            new_value, new_gradient = function(moved)
            if new_value <= value + _SUFFICIENT * length * slope:
                break
            # The lowest point of the parabola through what is known, within bounds.
            excess = new_value - value - length * slope
            length *= min(0.5, max(0.05, -length * slope / (2 * excess)))
        else:
            return x, step - 1  # no lower point that float32 could tell
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


def new_memory() -> Memory:
    """Return a memory that knows nothing yet."""
    return deque(maxlen=_MEMORY)


def _direction(gradient: Floats, pairs: Memory) -> Floats:
    """Apply the inverse curvature that the last steps have shown to the gradient."""
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
