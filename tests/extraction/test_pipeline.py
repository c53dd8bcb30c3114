"""Batches of decoded images: in order, whole, and never waiting for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache.extraction.pipeline import batches
from featcache.images.image_file import BadImage


def pixels(number: int) -> Any:
    if number % 7 == 3:
        raise BadImage(f"bad {number}")
    return np.full((2, 2, 3), number, np.uint8)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 4))
def test_each_item_comes_once_in_order_with_its_pixels(count: int, size: int, workers: int) -> None:
    found = list(batches(range(count), pixels, size, workers))
    items = [item for batch in found for item in batch.items]
    assert items == [n for n in range(count) if n % 7 != 3]
    assert [int(p[0, 0, 0]) for batch in found for p in batch.pixels if batch.items] == items
    failed = [(item, bad.reason) for batch in found for item, bad in batch.failures]
    assert failed == [(n, f"bad {n}") for n in range(count) if n % 7 == 3]
    assert all(len(batch.items) == size for batch in found[:-1])


def test_the_size_of_a_batch_may_change_from_one_to_the_next() -> None:
    sizes = iter([2, 2, 4, 1, 1])
    found = list(batches(range(20, 29), lambda n: pixels(0), lambda: next(sizes), 2))
    assert [batch.items for batch in found] == [[20, 21], [22, 23], [24, 25, 26, 27], [28]]


def test_one_that_never_comes_back_costs_itself_alone() -> None:
    released = threading.Event()

    def load(number: int) -> Any:
        if number in (2, 5):
            released.wait()
        return pixels(number % 2)

    found = list(batches(range(12), load, 4, 2, timeout=0.2))
    released.set()
    assert [item for batch in found for item in batch.items] == [0, 1, 3, 4, 6, 7, 8, 9, 10, 11]
    failed = {item: bad for batch in found for item, bad in batch.failures}
    assert set(failed) == {2, 5}
    assert all("within 0.2 seconds" in bad.reason and not bad.lasting for bad in failed.values())


def test_one_that_never_comes_back_does_not_keep_the_process(tmp_path: Any) -> None:
    code = (
        "import threading, numpy\n"
        "from featcache.extraction.pipeline import batches\n"
        "def load(n):\n"
        "    threading.Event().wait() if n == 1 else None\n"
        "    return numpy.zeros((1, 1, 3), 'u1')\n"
        "print(sum(len(b.items) for b in batches(range(5), load, 2, 2, timeout=0.3)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "4"), done.stderr


def test_an_error_that_is_no_bad_image_comes_out_as_it_is() -> None:
    for error in (ValueError("odd"), TimeoutError("of its own")):

        def load(number: int, error: Exception = error) -> Any:
            raise error

        with pytest.raises(type(error), match=str(error)):
            list(batches(range(3), load, 2, 2))


def test_leaving_early_begins_no_further_image() -> None:
    begun = []

    def load(number: int) -> Any:
        begun.append(number)
        time.sleep(0.01)
        return pixels(0)

    stream = batches(range(1000), load, 4, 2)
    next(stream)
    stream.close()
    before = len(begun)
    time.sleep(0.1)
    assert len(begun) == before < 20
    assert not [t for t in threading.enumerate() if t.name.startswith("featcache-decode")]
