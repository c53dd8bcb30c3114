"""Checks of the arguments of a fine-tune."""

from __future__ import annotations

from collections.abc import Container, Mapping

from featcache.errors import InvalidRequest
from featcache.toolkit import ROW_DTYPES, check_choice
from heads.parameters import Integers, Interval
from heads.schedule import RATE_SCHEDULES, Schedule

from .network import Top, first_free_layer

_DECAY = Interval(0, 1, closed_low=True, closed_high=True)
_SMOOTHING = Interval(0, 1, closed_low=True)
_NUMBERS: Mapping[str, Integers | Interval] = {
    "epochs": Integers(1),
    "batch_size": Integers(1),
    "learning_rate": Interval(0),
    "patience": Integers(1),
    "lr_patience": Integers(1),
    "factor": Interval(0, 1, closed_high=True),
    "warmup": Interval(0, closed_low=True),
    "dropout": Interval(0, 1, closed_low=True),
    "validation_fraction": Interval(0, 1, closed_low=True),
    "max_cache": Integers(0),
}


def check_options(
    unfreeze: float | int | str,
    class_weight: str | None,
    lr_schedule: str,
    layer_decay: float,
    label_smoothing: float,
) -> None:
    """Raise `InvalidRequest` unless these are accepted; names of layers are not looked up."""
    if class_weight is not None:
        check_choice("class_weight", class_weight, ("balanced",), ", or leave it out")
    first_free_layer([("", 1)], unfreeze if not isinstance(unfreeze, str) else 0)
    check_choice("lr_schedule", lr_schedule, RATE_SCHEDULES)
    for name, value, allowed in (
        ("layer_decay", layer_decay, _DECAY),
        ("label_smoothing", label_smoothing, _SMOOTHING),
    ):
        if value not in allowed:
            raise InvalidRequest(f"{name}={value!r} must be {allowed}.", received=value)


def check_training(
    schedule: Schedule, top: Top, validation_fraction: float, max_cache: int
) -> None:
    """Raise `InvalidRequest` unless these numbers are in their ranges.

    With a learning rate of NaN or zero epochs, a network would keep its initial weights; with a
    validation fraction above 1 it would be validated on its training images.
    """
    values = {**vars(schedule), "dropout": top.dropout, "max_cache": max_cache}
    values["validation_fraction"] = validation_fraction
    for name, allowed in _NUMBERS.items():
        if values[name] not in allowed:
            raise InvalidRequest(
                f"{name}={values[name]!r} must be {allowed}.", received=values[name]
            )
    for width in top.units:
        if width not in Integers(1):
            raise InvalidRequest(
                f"units={top.units!r} must be whole numbers from 1.", received=width
            )


def check_boundary_dtype(boundary_dtype: str, options: Container[str]) -> None:
    """Raise `InvalidRequest` unless it is a dtype of rows, and the only one that is given."""
    check_choice("boundary_dtype", boundary_dtype, ROW_DTYPES)
    if "row_dtype" in options:
        raise InvalidRequest(
            "row_dtype= is that of features; a fine-tune stores the outputs of its boundary: "
            "pass boundary_dtype= instead."
        )
