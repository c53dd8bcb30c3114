"""Progress bars: on a terminal, on request, and never elsewhere; and where the time went.

The only door to tqdm.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm


def progress_bar(total: int, what: str, unit: str, show: bool | None) -> Any:
    """Return a bar with `update`, `set_postfix_str` and `close`; also a context manager.

    Parameters
    ----------
    total : int
        Number of units; no bar is shown for none.
    what, unit : str
        ``"B"`` counts bytes, with prefixes.
    show : bool or None
        None: if standard error is a terminal.
    """
    visible = sys.stderr.isatty() if show is None else show
    in_bytes = unit == "B"
    return tqdm(
        total=total,
        desc=what,
        unit=unit if in_bytes else f" {unit}",
        unit_scale=in_bytes,
        unit_divisor=1024 if in_bytes else 1000,
        disable=not visible or total == 0,
        leave=True,
    )


@dataclass
class StageSeconds:
    """How long the stages of an extraction worked, each measured for itself.

    They run beside each other, so that their sum is more than the time that passed.

    Attributes
    ----------
    read, decode : float
        Of all decoding threads together.
    forward, write : float
        Of the backbone and of the commits.
    """

    read: float = 0.0
    decode: float = 0.0
    forward: float = 0.0
    write: float = 0.0

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in vars(self).items())
