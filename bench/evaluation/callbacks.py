"""`Callback`: what `bench.evaluate` calls while it runs, for experiment trackers and the like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from featcache.errors import InvalidRequest
from featcache.toolkit import first_line, get_logger

from ..splits import Split
from .results import Result, Results

log = get_logger(__name__)


class Callback:
    """Base class: each method does nothing. Overwrite those that you need.

    An exception that a method raises is logged as a warning, and the evaluation goes on: a tracker
    that cannot be reached does not cost hours of training. Ctrl-C goes through.

    Examples
    --------
    >>> class Printer(Callback):
    ...     def on_result(self, result):
    ...         print(result.name, "is done")
    """

    def on_begin(self, split: Split, contenders: Sequence[str], random_state: int) -> None:
        """Before anything is computed: the split, the names of the contenders and the seed."""

    def on_result(self, result: Result) -> None:
        """After each contender: its predictions, metrics and costs."""

    def on_end(self, results: Results | None) -> None:
        """At the end: all results; None if the evaluation failed or was interrupted."""


class CallbackList:
    """Calls several callbacks in their order, and survives their errors.

    Raises
    ------
    InvalidRequest
        If one of them lacks a method of `Callback`.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        methods = ("on_begin", "on_result", "on_end")
        if not isinstance(callbacks, Iterable):
            raise InvalidRequest(
                f"callbacks={callbacks!r} must be a list of callbacks: [callback].",
                received=callbacks,
            )
        for one in callbacks:
            missing = [name for name in methods if not callable(getattr(one, name, None))]
            if missing or isinstance(one, type):
                what = "is a class; pass an instance" if isinstance(one, type) else "is no callback"
                raise InvalidRequest(
                    f"callbacks: {one!r} {what}. A callback is an instance of a subclass of "
                    f"bench.Callback, with the methods {', '.join(methods)}.",
                    received=one,
                )
        self._callbacks = list(callbacks)

    def begin(self, split: Split, contenders: Sequence[str], random_state: int) -> None:
        """Call `Callback.on_begin` of all."""
        self._each(lambda one: one.on_begin(split, contenders, random_state))

    def result(self, result: Result) -> None:
        """Call `Callback.on_result` of all."""
        self._each(lambda one: one.on_result(result))

    def end(self, results: Results | None) -> None:
        """Call `Callback.on_end` of all."""
        self._each(lambda one: one.on_end(results))

    def _each(self, call: Callable[[Callback], None]) -> None:
        for one in self._callbacks:
            try:
                call(one)
            except Exception as error:
                name = type(one).__name__
                log.warning("The callback %s failed: %s", name, first_line(error))
