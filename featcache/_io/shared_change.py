"""A change of the whole process that several threads may need at the same time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any


class SharedChange:
    """A change of the process that lasts while at least one thread needs it.

    Saving the old state at the start of a block and restoring it at the end works in one thread
    only. If the blocks of two threads overlap, the second saves the state that the first has set,
    and restores that one last. Here the first block makes the change and the last one undoes it.

    Parameters
    ----------
    change : callable
        Returns a context manager that makes the change and undoes it. It receives the arguments
        of the first block; those of blocks that begin later, while it runs, are ignored.

    Examples
    --------
    >>> quiet = SharedChange(lambda: contextlib.redirect_stdout(None))
    >>> with quiet():
    ...     print("not shown")
    """

    def __init__(self, change: Callable[..., contextlib.AbstractContextManager[object]]) -> None:
        self._change = change
        self._undo = contextlib.ExitStack()
        self._users = 0
        self._renew_lock()
        if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
            # Another thread may hold it at that moment, and is not there to release it.
            os.register_at_fork(after_in_child=self._renew_lock)

    @contextlib.contextmanager
    def __call__(self, *arguments: Any) -> Iterator[None]:
        """Keep the change for as long as the block runs."""
        with self._lock:
            if not self._users:
                self._undo.enter_context(self._change(*arguments))
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._undo.close()

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()
