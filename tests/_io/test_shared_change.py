"""Changes of the process that threads make at the same time."""

from __future__ import annotations

import os
import random
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from featcache._io.held_warnings import held_warnings, ignored_warnings
from featcache.backbones.keras_backend import preserve_random_state, quiet_stderr


def state() -> dict[str, Any]:
    status = os.fstat(2)
    return {
        "descriptor": (status.st_dev, status.st_ino),
        "filters": list(warnings.filters),
    }


@pytest.mark.parametrize("change", [quiet_stderr, ignored_warnings])
def test_blocks_of_two_threads_that_overlap_leave_nothing_behind(
    change: Callable[[], AbstractContextManager[None]],
) -> None:
    before = state()
    entered, left = threading.Event(), threading.Event()

    def second() -> None:
        with change():
            entered.set()
            left.wait(10)

    thread = threading.Thread(target=second)
    with change():
        thread.start()
        entered.wait(10)
    left.set()  # the one that began first has ended first
    thread.join()
    assert state() == before


@pytest.mark.parametrize("change", [quiet_stderr, ignored_warnings, held_warnings])
def test_an_error_in_a_block_leaves_nothing_behind(
    change: Callable[[], AbstractContextManager[None]],
) -> None:
    before = state()
    with pytest.raises(ZeroDivisionError), change():
        raise ZeroDivisionError
    assert state() == before


def test_random_numbers_go_on_where_they_were() -> None:
    before = random.getstate()
    with preserve_random_state(), preserve_random_state():
        random.random()
    assert random.getstate() == before


def test_a_change_lasts_until_the_last_thread_has_ended_its_block() -> None:
    entered, go_on, seen = threading.Event(), threading.Event(), []

    def second() -> None:
        with quiet_stderr():
            entered.set()
            go_on.wait(10)
            seen.append(os.fstat(2).st_ino)

    thread = threading.Thread(target=second)
    with quiet_stderr():
        nowhere = os.fstat(2).st_ino
        thread.start()
        entered.wait(10)
    go_on.set()
    thread.join()
    assert seen == [nowhere]


def test_a_block_of_the_caller_around_the_end_of_ours_brings_no_filter_back() -> None:
    before = list(warnings.filters)
    ours = ignored_warnings()
    ours.__enter__()
    with warnings.catch_warnings():
        ours.__exit__(None, None, None)
    assert warnings.filters == before


def test_only_the_named_warnings_are_ignored() -> None:
    with ignored_warnings("The groups (a)"):
        warnings.warn("The groups (a) are ignored", stacklevel=1)
        with pytest.warns(UserWarning, match="Another"):
            warnings.warn("Another", stacklevel=1)


def test_held_warnings_are_shown_after_a_block_that_succeeds_and_else_dropped() -> None:
    with pytest.warns(UserWarning, match="kept") as shown, held_warnings():  # noqa: PT031
        warnings.warn("kept", stacklevel=1)
        assert not shown.list
    assert len(shown.list) == 1

    def drop() -> None:
        warnings.warn("dropped", stacklevel=1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), held_warnings():
        drop()
