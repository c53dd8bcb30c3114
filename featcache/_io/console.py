"""What every command does around its work: logging, and errors in one paragraph."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from ..errors import FeatcacheError
from ..printable import printable

_LAYOUT = "\n\t"


def run_command(program: str, action: Callable[[], int], *, quiet: bool) -> int:
    """Run a command's work and return its exit status.

    Parameters
    ----------
    program : str
        Begins every line on standard error.
    action : callable
        Returns the status.
    quiet : bool
        Only warnings and errors.

    Returns
    -------
    int
        That of `action`; 2 on an error, which is told in one paragraph; 130 on Ctrl-C.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    if hasattr(sys.stdin, "reconfigure"):  # a list of paths may hold names that are no UTF-8
        sys.stdin.reconfigure(errors="surrogateescape")
    logging.getLogger("featcache").setLevel(logging.WARNING if quiet else logging.INFO)
    warnings.showwarning = lambda message, *_, **__: _tell(program, message)
    try:
        with contextlib.redirect_stdout(_PrintableStream(sys.stdout)):
            return action()
    except BrokenPipeError:  # `featcache ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (FeatcacheError, OSError) as error:
        _tell(program, error)
        return 2
    except MemoryError:
        _tell(
            program,
            "the memory is insufficient. What was committed stays. Close other programs, or take "
            "fewer --workers; then run the same command again.",
        )
        return 2
    except KeyboardInterrupt:
        _tell(program, "interrupted; the same command goes on from here")
        return 130


def in_notebook() -> bool:
    """Return whether this runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def show_log_in_notebook() -> None:
    """Show the library's log lines in a notebook, unless the user has set logging up.

    Python shows warnings alone by default, so that a cell would run for minutes without a
    word. Elsewhere a library leaves logging to the program.
    """
    logger = logging.getLogger("featcache")
    if not in_notebook() or logger.hasHandlers() or logger.level != logging.NOTSET:
        return
    handler = logging.StreamHandler(sys.stdout)  # not in the red of standard error
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


class PrintableLog(logging.Filter):
    """Escapes what a terminal would obey in the messages of a logger."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the message by its text, escaped; every record passes."""
        with contextlib.suppress(TypeError, ValueError, KeyError):  # logging reports it itself
            text = record.getMessage()
            safe = printable(text, keep=_LAYOUT)
            if safe != text:
                record.msg, record.args = safe, ()
        return True


class _PrintableStream:
    """Standard output for text that holds names from data.

    A name may hold what steers a terminal, and what UTF-8 cannot encode: a strict output would
    end the command there, after all its work.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text with such characters escaped; return the length of the text."""
        safe = printable(text, keep=_LAYOUT)
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(safe.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _tell(program: str, message: object) -> None:
    print(f"{program}: {printable(message, keep=_LAYOUT)}", file=sys.stderr)
