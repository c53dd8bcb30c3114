"""Reading ahead: in order, bounded, and without waiting for each other for ever."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from featcache.data import read_ahead
from featcache.data.read_ahead import ReadAhead, wait_for
from featcache.images.image_file import BadImage


def test_reads_start_in_order_and_at_most_so_many(monkeypatch):
    monkeypatch.setattr(read_ahead, "MAX_REQUESTS", 4)
    started = []

    def start(position, gate):
        started.append(position)
        future = Future()
        future.set_result(position * 10)
        return future

    ahead = ReadAhead(range(10), start)
    assert ahead.get(0) == 0
    assert started == [0, 1, 2, 3, 4]
    assert ahead.get(7) == 70  # out of order
    assert [ahead.get(i) for i in (1, 2, 3, 4, 5, 6, 8, 9)] == [10, 20, 30, 40, 50, 60, 80, 90]
    assert sorted(started) == list(range(10))
    assert ahead.get(3) == 30  # again
    ahead.close()


def test_memory_is_bounded_and_never_a_deadlock(monkeypatch):
    monkeypatch.setattr(read_ahead, "MAX_BYTES_AHEAD", 100)
    held, most = set(), []
    lock = threading.Lock()
    with ThreadPoolExecutor(8) as pool:

        def read(position, gate):
            time.sleep(0.001 * (position % 3))
            wait_for(gate, 60)
            with lock:
                held.add(position)
                most.append(len(held))
            return position

        ahead = ReadAhead(range(40), lambda i, gate: pool.submit(read, i, gate))

        def consume(position):
            result = ahead.get(position)
            with lock:
                held.discard(position)
            return result

        with ThreadPoolExecutor(3) as consumers:
            assert list(consumers.map(consume, range(40))) == list(range(40))
        ahead.close()
    assert max(most) <= 1 + 3 + 1  # one within the limit, one for each consumer, one in transit


def test_failures_and_reads_that_never_return(monkeypatch):
    monkeypatch.setattr(read_ahead, "TIMEOUT_SECONDS", 0.05)
    futures = [Future(), Future(), Future()]
    futures[1].set_exception(BadImage("is bad"))
    futures[2].set_result(2)
    ahead = ReadAhead(range(3), lambda i, gate: futures[i])
    with pytest.raises(BadImage, match="within"):
        ahead.get(0)
    with pytest.raises(BadImage, match="is bad"):
        ahead.get(1)
    assert ahead.get(2) == 2
    ahead.close()


def test_closing_cancels_what_nobody_asked_for():
    futures = {}

    def start(position, gate):
        futures[position] = Future()
        if position == 0:
            futures[0].set_result(0)
        return futures[position]

    ahead = ReadAhead(range(100), start)
    ahead.get(0)
    ahead.close()
    assert all(future.cancelled() for i, future in futures.items() if i)
    assert len(futures) < 100
