"""The frame of every command: logging, printable output, error messages and exit status."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import FeatcacheError
from ..printable import printable
from .logs import KEPT_CHARACTERS, log_to_stderr


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
    level = logging.WARNING if quiet else logging.INFO
    with log_to_stderr(level), _command_streams(program):
        return _status_of(program, action)


def _status_of(program: str, action: Callable[[], int]) -> int:
    """Return the exit status; print an error as a message."""
    try:
        return action()
    except BrokenPipeError:  # `featcache ls | head`
        # The process ends here: as it does, Python flushes what it could not write.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
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


@contextlib.contextmanager
def _command_streams(program: str) -> Iterator[None]:
    """Show warnings as messages, and let no name break standard output or input."""
    showwarning = warnings.showwarning
    errors = getattr(sys.stdin, "errors", None)
    if isinstance(sys.stdin, io.TextIOWrapper):  # a list of paths may hold names that are not UTF-8
        sys.stdin.reconfigure(errors="surrogateescape")
    warnings.showwarning = lambda message, *_, **__: _print_message(program, message)
    try:
        with contextlib.redirect_stdout(_PrintableStream(sys.stdout)):
            yield
    finally:
        warnings.showwarning = showwarning
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors=errors)


class _PrintableStream:
    """Text stream that escapes control characters and characters that cannot be encoded.

    File names and labels may contain both. A strict stream would raise at the first one, after
    all the work of the command.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text with these characters escaped; return the length of the given text."""
        safe = printable(text, keep=KEPT_CHARACTERS)
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(safe.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _print_message(program: str, message: object) -> None:
    print(f"{program}: {printable(message, keep=KEPT_CHARACTERS)}", file=sys.stderr)
