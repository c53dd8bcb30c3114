"""Progress bars: on a terminal, in a notebook, on request; and where the time went.

The only module that imports tqdm.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import Any

from .console import in_notebook


def progress_bar(total: int, what: str, unit: str, show: bool | None) -> Any:
    """Return a bar with `update`, `set_postfix_str` and `close`; also a context manager.

    Parameters
    ----------
    total : int
        Number of units; no bar is shown for none.
    what, unit : str
        ``"B"`` counts bytes, with prefixes.
    show : bool or None
        None: on a terminal and in a notebook.
    """
    visible = (_has_terminal() or in_notebook()) if show is None else show
    in_bytes = unit == "B"
    return _bar_class()(
        total=total,
        desc=what,
        unit=unit if in_bytes else f" {unit}",
        unit_scale=in_bytes,
        unit_divisor=1024 if in_bytes else 1000,
        disable=not visible or total == 0,
        leave=True,
    )


def _has_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _bar_class() -> Any:
    """Return tqdm's bar for this place: a widget in a notebook, else a line of text."""
    if not in_notebook():  # tqdm.auto loads asyncio, which takes longer than all of tqdm
        from tqdm import tqdm

        return tqdm
    with warnings.catch_warnings():
        # Without ipywidgets tqdm asks for it, and then prints a line of text, which is enough.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm as bar

    return bar


@dataclass
class StageTimings:
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
