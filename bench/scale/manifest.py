"""The list of shards of a store in an object store: its bytes, its requests, its writers."""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass

from .constants import Constants
from .scenario import Design

NAMES_PER_LISTING = 1000
_MAX_WAIT, _FIRST_WAIT = 2.0, 0.01  # the pauses of the code after a lost race


@dataclass(frozen=True)
class ManifestCost:
    """What the list of shards cost in a whole extraction.

    Attributes
    ----------
    changes, requests : int
    written : float
        Bytes of all objects of the list.
    seconds : float
        Time of all changes, one after the other.
    largest : float
        Bytes of the whole list in the end.
    """

    changes: int
    requests: int
    written: float
    seconds: float
    largest: float


def manifest_cost(
    shards: int, design: Design, constants: Constants, seconds: float = 0.0
) -> ManifestCost:
    """Return the cost of listing shards that are created in the course of some seconds.

    A change lists the objects there, reads the newest, asks for the next number, and creates an
    object; each `design.snapshot_every`-th change creates the whole list.
    """
    changes = math.ceil(shards / design.shards_per_change)
    if design.change_seconds:
        changes = max(1, min(changes, math.ceil(seconds / design.change_seconds)))
    per_change = shards / changes
    snapshots = changes // design.snapshot_every
    # The k-th snapshot lists the shards of k * snapshot_every changes.
    listed = design.snapshot_every * per_change * snapshots * (snapshots + 1) / 2
    if design.snapshot_every > 1:
        listed += shards  # the changes themselves
    written = listed * constants.manifest_shard_bytes
    objects = changes + (snapshots if design.snapshot_every > 1 else 0)
    # Before the k-th change there are k objects, and those of all shards where these lie there too.
    names = (1 + 2 * per_change * design.lists_shards) * changes * (changes + 1) / 2
    listings = changes + math.floor(names / NAMES_PER_LISTING)
    gets = 2 * changes
    spent = (
        listings * constants.list_seconds
        + gets * constants.get_seconds
        + objects * constants.put_seconds
        + listed * constants.manifest_core_seconds
        + written / constants.bandwidth
    )
    largest = shards * constants.manifest_shard_bytes
    return ManifestCost(changes, listings + gets + objects, written, spent, largest)


@dataclass(frozen=True)
class Race:
    """Writers that extend one list by compare-and-swap.

    Attributes
    ----------
    attempts : float
        Mean number of attempts per change.
    seconds : float
        Mean time of a change, from its first attempt to its success.
    per_second : float
        Changes per second that succeeded.
    """

    attempts: float
    seconds: float
    per_second: float


def race(
    writers: int, interval: float, window: float, changes: int = 2000, random_state: int = 0
) -> Race:
    """Simulate writers that each make a change every `interval` seconds, event by event.

    An attempt reads the list and creates the next object `window` seconds later; it fails if
    another one succeeded in between, and is made again after the pause of the code.

    Parameters
    ----------
    writers : int
    interval : float
        Seconds between the changes of a writer, if none fails.
    window : float
        Seconds from reading the list to the answer of the server.
    changes : int
        Number of successful changes to simulate.
    random_state : int
    """
    generator = random.Random(random_state)
    # (time of the answer, writer, when its first attempt began, number of the attempt)
    events = [
        (at + window, writer, at, 0)
        for writer, at in enumerate(generator.uniform(0, interval) for _ in range(writers))
    ]
    heapq.heapify(events)
    # Times of successes, to know what a read at some time has seen.
    done: list[float] = []
    attempts, waited, now = 0, 0.0, 0.0
    while len(done) < changes:
        now, writer, began, number = heapq.heappop(events)
        attempts += 1
        if not done or done[-1] <= now - window:
            done.append(now)
            waited += now - began
            start = max(now, began + interval)
            heapq.heappush(events, (start + window, writer, start, 0))
        else:
            pause = generator.uniform(0, min(_MAX_WAIT, _FIRST_WAIT * 2**number))
            heapq.heappush(events, (now + pause + window, writer, began, number + 1))
    return Race(attempts / changes, waited / changes, changes / now)
