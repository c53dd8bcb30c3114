"""Progress bars and the time that each stage of an extraction took.

The only module that imports tqdm.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Protocol

from .held_warnings import ignored_warnings
from .logs import in_notebook


class ProgressBar(Protocol):
    """The part of a tqdm progress bar that is used.

    Attributes
    ----------
    n : float
        Number of units so far.
    """

    n: float

    def update(self, n: float = 1, /) -> object:
        """Add a number of units."""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Set the text after the bar."""

    def close(self) -> None:
        """End the bar."""

    def __enter__(self) -> ProgressBar: ...

    def __exit__(self, *details: object) -> None: ...


def progress_bar(total: int, description: str, unit: str, show: bool | None) -> ProgressBar:
    """Return a tqdm progress bar, which is also a context manager.

    Parameters
    ----------
    total : int
        Number of units; no bar is shown if it is 0.
    description : str
        Text before the bar.
    unit : str
        Name of a unit. ``"B"`` counts bytes, shown with binary prefixes.
    show : bool or None
        None shows the bar in a terminal and in a notebook only.

    Returns
    -------
    tqdm.tqdm
        A widget in a notebook, else a line of text; has `update`, `set_postfix_str`, `close`.
    """
    visible = (_has_terminal() or in_notebook()) if show is None else show
    in_bytes = unit == "B"
    bar: ProgressBar = _bar_class()(
        total=total,
        desc=description,
        unit=unit if in_bytes else f" {unit}",
        unit_scale=in_bytes,
        unit_divisor=1024 if in_bytes else 1000,
        disable=not visible or total == 0,
        leave=True,
    )
    return bar


def _has_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _bar_class() -> Any:
    """Return tqdm's class of bars: widgets in a notebook, else lines of text."""
    if not in_notebook():  # tqdm.auto loads asyncio, which takes longer than all of tqdm
        from tqdm import tqdm

        return tqdm
    # Without ipywidgets tqdm warns and falls back to a line of text, which is enough.
    with ignored_warnings():
        from tqdm.auto import tqdm as bar

    return bar


@dataclass
class StageTimings:
    """Seconds that each stage of an extraction took.

    The stages run concurrently, so that their total exceeds the elapsed time.

    Attributes
    ----------
    read, decode : float
        Seconds in all decoding threads together.
    forward, write : float
        Seconds in the backbone, and in commits to the store.
    """

    read: float = 0.0
    decode: float = 0.0
    forward: float = 0.0
    write: float = 0.0

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in vars(self).items())
