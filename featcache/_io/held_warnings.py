"""Warnings of libraries that are ignored, or held back until it is known how a step ends.

Everything else of the package leaves `warnings` alone; commands show warnings in their own way.
"""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
from collections.abc import Iterator
from typing import Any, cast

_HOLDING = threading.Lock()


@contextlib.contextmanager
def ignored_warnings(message: str = "") -> Iterator[None]:
    """Ignore the warnings whose text begins with a message while the block runs.

    `warnings.catch_warnings` restores the whole list of filters at the end, also what other
    threads have changed in the meantime. This removes only the filter that it added.

    Parameters
    ----------
    message : str
        The beginning of the text; every text begins with the empty one.
    """
    # A pattern that nobody else has: another filter must not be taken for this one.
    entry = ("ignore", re.compile(re.escape(message) + "(?#featcache)"), Warning, None, 0)
    # Beside the present list, one that a block of the caller's puts back later may hold it.
    found = _filters()
    found.insert(0, entry)
    try:
        yield
    finally:
        for filters in (found, _filters()):
            with contextlib.suppress(ValueError):
                filters.remove(entry)


def _filters() -> list[Any]:
    return cast("list[Any]", warnings.filters)


@contextlib.contextmanager
def held_warnings() -> Iterator[None]:
    """Hold warnings back while the block runs, and drop them if it raises."""
    with _HOLDING, warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        yield
    for one in noted:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
