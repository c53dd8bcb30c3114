"""The frame of every command: logging, printable output, error messages and exit status."""

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

_KEPT_CHARACTERS = "\n\t"


def run_command(program: str, action: Callable[[], int], *, quiet: bool) -> int:
    """Run a command and return its exit status.

    Sets up logging to standard error, and escapes control characters in everything that is
    printed. A `FeatcacheError` or `OSError` is printed as a message, without a traceback.

    Parameters
    ----------
    program : str
        Prefix of warnings and errors on standard error.
    action : callable
        Does the work and returns the exit status.
    quiet : bool
        Show warnings and errors only.

    Returns
    -------
    int
        The status of `action`; 2 after an error; 130 after Ctrl-C; 0 if the reader of standard
        output has closed it.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    if hasattr(sys.stdin, "reconfigure"):  # a list of paths may hold names that are not UTF-8
        sys.stdin.reconfigure(errors="surrogateescape")
    logging.getLogger("featcache").setLevel(logging.WARNING if quiet else logging.INFO)
    warnings.showwarning = lambda message, *_, **__: _print_message(program, message)
    try:
        with contextlib.redirect_stdout(_PrintableStream(sys.stdout)):
            return action()
    except BrokenPipeError:  # `featcache ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (FeatcacheError, OSError) as error:
        _print_message(program, error)
        return 2
    except MemoryError:
        _print_message(
            program,
            "out of memory. Committed rows are kept. Close other programs or use fewer --workers, "
            "then run the same command again.",
        )
        return 2
    except KeyboardInterrupt:
        _print_message(program, "interrupted; run the same command again to resume")
        return 130


def in_notebook() -> bool:
    """Return whether this runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def show_log_in_notebook() -> None:
    """Show the library's log messages in a notebook, unless the user has configured logging.

    By default Python shows warnings only, so that a cell would run for minutes without any
    output. Outside notebooks logging is left to the program.
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
    """Logging filter that escapes control characters in messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape the record's message in place; return True, so that every record passes."""
        with contextlib.suppress(TypeError, ValueError, KeyError):  # logging reports these itself
            text = record.getMessage()
            safe = printable(text, keep=_KEPT_CHARACTERS)
            if safe != text:
                record.msg, record.args = safe, ()
        return True


class _PrintableStream:
    """Text stream that escapes control characters and characters that cannot be encoded.

    File names and labels may contain both. A strict stream would raise at the first one, after
    all the work of the command.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text with these characters escaped; return the length of the given text."""
        safe = printable(text, keep=_KEPT_CHARACTERS)
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(safe.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _print_message(program: str, message: object) -> None:
    print(f"{program}: {printable(message, keep=_KEPT_CHARACTERS)}", file=sys.stderr)
