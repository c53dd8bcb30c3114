"""What a fine-tune cost: its inputs, the head that it started from, its epochs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .initial_head import TrainedHead
from .inputs import Inputs


@dataclass(frozen=True)
class Cost:
    """Costs of a run, also of what an earlier process did; see `ContenderInfo`.

    Attributes
    ----------
    extract_seconds, fit_seconds : float
    computed_now, disk_bytes : int
    """

    extract_seconds: float
    fit_seconds: float
    computed_now: int
    disk_bytes: int


def run_cost(inputs: Inputs, head: TrainedHead | None, folder: Path, seconds: float) -> Cost:
    """Add up what a run cost.

    Parameters
    ----------
    inputs : Inputs
    head : TrainedHead or None
        The head that the run started from.
    folder : Path
        Folder of the run.
    seconds : float
        Wall time of its epochs and of the calibration.
    """
    extract_seconds, computed_now = inputs.seconds, inputs.computed_now
    disk_bytes = sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) + inputs.disk_bytes
    if head is not None:
        seconds += head.fit_seconds
    # The outputs of the boundary may be the features themselves: then they are counted once.
    if head is not None and head.frozen.features.spec.key != inputs.key:
        extract_seconds += head.frozen.extract_seconds()
        computed_now += head.frozen.computed_now()
        disk_bytes += head.frozen.features.stored_bytes
    return Cost(extract_seconds, seconds, computed_now, disk_bytes)
