"""Conversion of `OSError` to `StoreError` while a store is listed or read."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from ..errors import FeatcacheError, StoreError


@contextlib.contextmanager
def system_errors(folder: Path) -> Iterator[None]:
    """Context manager that raises `StoreError` for an `OSError` in its block.

    An error that is a `FeatcacheError` already passes unchanged.

    Parameters
    ----------
    folder : Path
        The store that the message names.
    """
    try:
        yield
    except FeatcacheError:
        raise
    except OSError as error:
        raise StoreError(
            f"The store {folder} could not be read or changed: {error.strerror or error}"
            + (f" ({error.filename})" if error.filename else "")
            + f". Committed rows are intact. What to do: {_advice(error)}run the same "
            "command again.",
            path=folder,
            system_errno=error.errno,
        ) from error


def _advice(error: OSError) -> str:
    if error.errno == errno.EIO:
        return "check the disk; move a file that stays unreadable out of the folder; then "
    if error.errno == errno.EMFILE:
        return (
            "allow this process more open files (ulimit -n), or extract fewer views, since each "
            "store takes one; then "
        )
    return "resolve the reason above, then "
