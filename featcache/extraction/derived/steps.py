"""Steps that transform rows: L2 normalization, standardization, PCA, each as plain arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidRequest

Floats: TypeAlias = NDArray[np.float32]
StepName: TypeAlias = Literal["l2", "standardize", "pca"]

# The arrays of each kind of step, with their dimensions.
ARRAYS: dict[StepName, dict[str, int]] = {
    "l2": {},
    "standardize": {"mean": 1, "scale": 1},
    "pca": {"mean": 1, "components": 2},
}


@dataclass(frozen=True, eq=False)
class RowStep:
    """A fitted step that replaces some columns of each row by others.

    Attributes
    ----------
    name : {"l2", "standardize", "pca"}
        ``"l2"`` divides by the Euclidean length, and leaves 0 as it is; ``"standardize"`` is
        ``(x - mean) / scale``, ``"pca"`` is ``(x - mean) @ components.T``.
    start, width : int
        The columns that it takes: `width` of them from `start` on. Those before and after stay
        as they are.
    arrays : mapping of str to ndarray
        Those that `ARRAYS` lists, float32.

    Raises
    ------
    InvalidRequest
        If the arrays are not those of the step, of another shape or dtype, or not finite.
    """

    name: StepName
    start: int
    width: int
    arrays: Mapping[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        reason = _wrong(self)
        if reason:
            raise InvalidRequest(
                f"The step {self.name!r} is not valid: {reason}.", received=self.name
            )

    @property
    def new_width(self) -> int:
        """Number of columns that take the place of those of the step."""
        return len(self.arrays["components"]) if self.name == "pca" else self.width

    def shifted(self, columns: int) -> RowStep:
        """Return the same step on columns further to the right."""
        return replace(self, start=self.start + columns)

    def apply(self, rows: Floats) -> Floats:
        """Return transformed rows (n, d'), float32, of rows (n, d)."""
        stop = self.start + self.width
        new = self._transformed(rows[:, self.start : stop].astype(np.float64))
        if self.width == rows.shape[1]:
            return new
        return np.concatenate([rows[:, : self.start], new, rows[:, stop:]], axis=1)

    def _transformed(self, values: NDArray[np.float64]) -> Floats:
        # In float64, so that a row does not depend on the rows that are read with it.
        if self.name == "l2":
            length = np.linalg.norm(values, axis=1, keepdims=True)
            values /= np.where(length == 0, 1, length)
            return values.astype(np.float32)
        values -= self.arrays["mean"]
        if self.name == "pca":
            values = np.asarray(values @ self.arrays["components"].T.astype(np.float64))
            return values.astype(np.float32)
        return (values / self.arrays["scale"]).astype(np.float32)

    def components(self) -> dict[str, Any]:
        """Return what tells this step from others, as JSON types; arrays by their digests."""
        return {
            "name": self.name,
            "start": self.start,
            "width": self.width,
            "arrays": {name: _digest(self.arrays[name]) for name in ARRAYS[self.name]},
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowStep) and self.components() == other.components()

    def __hash__(self) -> int:
        return hash((self.name, self.start, self.width))

    def __str__(self) -> str:
        return f"pca({self.new_width})" if self.name == "pca" else self.name


def apply_steps(steps: Sequence[RowStep], rows: Floats) -> Floats:
    """Return rows after all steps, in their order."""
    for step in steps:
        rows = step.apply(rows)
    return rows


def width_after(steps: Sequence[RowStep], width: int) -> int:
    """Return the number of columns of rows of `width` columns after all steps.

    Raises
    ------
    InvalidRequest
        If a step takes columns that do not exist.

    Examples
    --------
    >>> width_after([RowStep("l2", 2, 3)], 5)
    5
    """
    for number, step in enumerate(steps):
        if step.start + step.width > width:
            raise InvalidRequest(
                f"Step {number + 1} ({step}) takes the columns {step.start} to "
                f"{step.start + step.width - 1}, but rows have {width} there.",
                received=step.start + step.width,
            )
        width += step.new_width - step.width
    return width


def _wrong(step: RowStep) -> str | None:
    """Return what is wrong with a step; None if it is valid."""
    expected = ARRAYS.get(step.name)
    if expected is None:
        return f"its name is none of {', '.join(ARRAYS)}"
    if type(step.start) is not int or type(step.width) is not int:
        return "its columns are not whole numbers"
    if step.start < 0 or step.width < 1:
        return f"it takes {step.width} columns from {step.start} on"
    if set(step.arrays) != set(expected):
        return f"it has the arrays {sorted(step.arrays)}, not {sorted(expected)}"
    for name, dimensions in expected.items():
        array = step.arrays[name]
        if array.dtype.name != "float32" or array.ndim != dimensions or not array.size:
            return f"{name} is {array.dtype} of shape {array.shape}"
        if array.shape[-1] != step.width:
            return f"{name} is of width {array.shape[-1]}, not {step.width}"
        if not np.isfinite(array).all():
            return f"{name} holds values that are not finite"
    if step.name == "standardize" and not (step.arrays["scale"] > 0).all():
        return "a scale is not positive"
    return None


def _digest(array: Floats) -> str:
    little = np.ascontiguousarray(array, "<f4")
    return hashlib.sha256(f"{array.shape}".encode() + little.tobytes()).hexdigest()
