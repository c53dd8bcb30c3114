"""Loggers of the packages, whose messages steer no terminal, and who shows them.

A library leaves logging to the program. Only a command, and a notebook in which nobody has
configured logging, show the messages by themselves.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from ..printable import printable

PACKAGES = ("featcache", "heads", "bench")
KEPT_CHARACTERS = "\n\t"


class PrintableLog(logging.Filter):
    """Logging filter that escapes control characters in messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape the record's message in place; return True, so that every record passes."""
        with contextlib.suppress(TypeError, ValueError, KeyError):  # logging reports these itself
            text = record.getMessage()
            safe = printable(text, keep=KEPT_CHARACTERS)
            if safe != text:
                record.msg, record.args = safe, ()
        return True


_PRINTABLE = PrintableLog()


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module, which escapes control characters in its messages.

    Parameters
    ----------
    name : str
        The module's ``__name__``. A filter applies to the messages of its own logger only, and
        not to those of the loggers below it, so that each module's logger needs one.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_PRINTABLE)
    return logger


def show_log_in_notebook() -> None:
    """Show the packages' log messages in a notebook, unless the user has configured logging.

    By default Python shows warnings only, so that a cell would run for minutes without any
    output. Outside notebooks logging is left to the program.
    """
    if not in_notebook():
        return
    for logger in map(logging.getLogger, PACKAGES):
        if logger.hasHandlers() or logger.level != logging.NOTSET:
            continue
        handler = logging.StreamHandler(sys.stdout)  # not in the red of standard error
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def in_notebook() -> bool:
    """Return whether this runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


@contextlib.contextmanager
def log_to_stderr(level: int) -> Iterator[None]:
    """Show the packages' messages from a level on, while the block runs.

    Where the program has handlers of its own, these show them.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [logger.level for logger in loggers]
    own = not logging.root.hasHandlers()
    if own:
        logging.root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, found in zip(loggers, before, strict=True):
            logger.setLevel(found)
        if own:
            logging.root.removeHandler(handler)
