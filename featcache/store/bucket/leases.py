"""Claims on a store in an object store: an exclusive lease, and marks of processes that use it.

A claim is an object with a number. Its holder renews it by creating the object of the next number,
only if there is none, and then removes the one before. Whoever takes over an expired lease does the
same, so that of several processes one succeeds, and the former holder finds the next number taken.

Ages are differences of times that the server gave: clocks of clients do not count. Nothing depends
on claims alone, since a listing may lag behind: rows are removed by a change of the manifest, which
another change makes fail, and objects only if no manifest needs them.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping

from ..._io.logs import get_logger
from ...errors import LeaseLost, StoreError, StoreWriteError
from ..renewal import renewed
from .objects import Bucket, ObjectState

log = get_logger(__name__)

LIFETIME = 300.0
_RENEWALS = 5  # per lifetime: each is three requests
_CLAIM = re.compile(r"(exclusive|use-[0-9a-f]{32})-([0-9]{10,})\.json")
_ENDED = re.compile(r"used-[0-9a-f]{32}\.json")
_CLOCK = re.compile(r"clock-[0-9a-f]{32}")
_EXCLUSIVE = "exclusive"
_HELD, _FREE = "held", "free"
_MAX_BYTES = 4096
_WAIT_SECONDS = 1.0


class BucketLease:
    """A claim on a store; false if it was not acquired.

    Parameters
    ----------
    bucket : Bucket
    folder : str
        Folder of the claims on the store.
    kind : str
        Beginning of the names of its objects.

    Attributes
    ----------
    kind : str
    refused : StoreError or None
        The error if the object could not be created; None if it was acquired or another process
        holds it.
    """

    def __init__(self, bucket: Bucket, folder: str, kind: str) -> None:
        self._bucket, self._folder, self.kind = bucket, folder, kind
        self._holder = uuid.uuid4().hex
        self._number = 0  # of the object that shows the claim; 0 without one
        self._lock = threading.Lock()
        self.refused: StoreError | None = None

    def __bool__(self) -> bool:
        return self._number > 0

    def acquire(self) -> bool:
        """Acquire the claim unless another process holds it, and has renewed it in time."""
        found = claims(self._bucket.states(self._folder), self.kind)
        newest = max(found, default=0)
        while self._exists(newest + 1):  # the listing may lag behind
            newest += 1
        if newest and self._state(newest)[1] != _FREE and not self._is_expired(newest):
            return False
        if not self._follow(newest, _HELD):
            return False
        self._number = newest + 1
        for number in sorted(found):  # in this order: see `_follow`
            self._bucket.remove(self._key(number))
        return True

    def may_be_held(self) -> bool:
        """Return whether some process has acquired the claim, and not released it."""
        found = claims(self._bucket.states(self._folder), self.kind)
        return bool(found) and self._state(max(found))[1] != _FREE

    def still_held(self) -> bool:
        """Return whether no other process has taken the claim over, as after a suspension."""
        with self._lock:
            number = self._number
            return bool(number) and self._exists(number) and not self._exists(number + 1)

    def check(self) -> None:
        """Raise `LeaseLost` unless the lease is still held; call it before removing objects."""
        if not self.still_held():
            raise LeaseLost(
                f"The lease of {self._bucket.url}/{self._folder} was taken over by another process "
                "while this one was suspended. No further objects were removed; run the command "
                "again.",
                path=self._bucket.url,
            )

    def renew(self) -> None:
        """Create the next object of the claim, which shows other processes that it is in use."""
        with self._lock, contextlib.suppress(StoreError):  # the next renewal may succeed
            if self._number and self._follow(self._number, _HELD):
                self._number += 1
                self._bucket.remove(self._key(self._number - 1))

    def release(self) -> None:
        """Release the claim. Can be called several times."""
        with self._lock, contextlib.suppress(StoreError):  # else it expires
            number, self._number = self._number, 0
            if number and self._follow(number, _FREE):
                self._bucket.remove(self._key(number))

    def _follow(self, number: int, state: str) -> bool:
        """Create the object after one; return False if another process was first.

        Objects are removed in the order of their numbers. If the one before is gone, the number
        had been used and removed while this process was suspended, and means nothing now.
        """
        key = self._key(number + 1)
        body = {"holder": self._holder, "state": state}
        created = self._bucket.create(key, json.dumps(body).encode())
        if not created and self._state(number + 1) != (self._holder, state):
            return False
        if number and not self._exists(number):
            self._bucket.remove(key)
            return False
        return True

    def _is_expired(self, number: int) -> bool:
        now, states = server_time(self._bucket, self._folder)
        found = states.get(self._key(number).rpartition("/")[2])
        return found is not None and now - found.modified > LIFETIME

    def _state(self, number: int) -> tuple[str, str]:
        """Return holder and state in an object; of a damaged one, its age alone counts."""
        data = self._bucket.read(self._key(number), _MAX_BYTES) or b""
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            body = json.loads(data)
            return str(body["holder"]), str(body["state"])
        return "", ""

    def _exists(self, number: int) -> bool:
        return self._bucket.read(self._key(number), _MAX_BYTES) is not None

    def _key(self, number: int) -> str:
        return f"{self._folder}/{self.kind}-{number:010d}.json"


class _UseMark(BucketLease):
    """A mark of a process that uses a store; its end stays as the time of last use."""

    def release(self) -> None:
        """Remove the mark, and leave an object with the time of last use."""
        number, self._number = self._number, 0
        name = f"used-{self._holder}.json"
        with contextlib.suppress(StoreError):
            self._bucket.create(f"{self._folder}/{name}", b"{}")
            for other in self._bucket.states(self._folder):
                if _ENDED.fullmatch(other) and other != name:
                    self._bucket.remove(f"{self._folder}/{other}")
            self._bucket.remove(self._key(number))


@contextlib.contextmanager
def bucket_lease(bucket: Bucket, name: str, wait: float = 0.0) -> Iterator[BucketLease]:
    """Context manager that holds the exclusive lease of a store in an object store.

    Parameters
    ----------
    bucket : Bucket
    name : str
        Name of the store.
    wait : float
        Seconds to wait for the lease.

    Yields
    ------
    BucketLease
        False if another process holds it.

    Raises
    ------
    StoreError, StoreWriteError
        If the server cannot be reached, or refuses.
    """
    held = BucketLease(bucket, claims_folder(name), _EXCLUSIVE)
    deadline = time.monotonic() + wait
    while not held.acquire() and time.monotonic() < deadline:
        time.sleep(_WAIT_SECONDS)
    with renewed(held, LIFETIME / _RENEWALS):
        yield held


@contextlib.contextmanager
def mark_bucket_in_use(bucket: Bucket, name: str) -> Iterator[BucketLease]:
    """Context manager that marks a store as in use, so that no process removes its rows.

    A mark that cannot be created is not an error: the bucket may be read-only.

    Yields
    ------
    BucketLease
        False if there is no mark; its `refused` says why.
    """
    mark = _UseMark(bucket, claims_folder(name), f"use-{uuid.uuid4().hex}")
    try:
        mark.acquire()
    except StoreError as error:
        mark.refused = error
    with renewed(mark, LIFETIME / _RENEWALS):
        yield mark


def is_bucket_in_use(bucket: Bucket, name: str) -> bool:
    """Return whether a process uses a store: one that renewed its mark within the lifetime."""
    now, states = server_time(bucket, claims_folder(name))
    marks = [states[one] for one in states if one.startswith("use-") and _CLAIM.fullmatch(one)]
    return any(now - mark.modified <= LIFETIME for mark in marks)


def wait_for_lease(bucket: Bucket, name: str) -> None:
    """Wait until no process holds the exclusive lease: it may not have seen a new mark.

    Raises
    ------
    StoreError
        If the server cannot be reached, or refuses.
    """
    lease = BucketLease(bucket, claims_folder(name), _EXCLUSIVE)
    while lease.may_be_held():
        with bucket_lease(bucket, name) as held:  # also if its holder has ended
            if held:
                return
        log.info("%s: waiting for a process that merges or removes its shards", name)
        time.sleep(_WAIT_SECONDS)


def expired_claims(bucket: Bucket, name: str) -> list[str]:
    """Return the keys of marks that were not renewed, and of times that killed processes left."""
    folder = claims_folder(name)
    now, states = server_time(bucket, folder)
    return [
        f"{folder}/{one}" for one, state in sorted(states.items())
        if now - state.modified > LIFETIME
        and (_CLOCK.fullmatch(one) or (one.startswith("use-") and _CLAIM.fullmatch(one)))
    ]  # fmt: skip


def server_time(bucket: Bucket, folder: str) -> tuple[float, dict[str, ObjectState]]:
    """Return the time of the server in seconds, and the objects of a folder at that time.

    Raises
    ------
    StoreWriteError
        If the server refuses the object whose time it is, or does not list it.
    """
    name = f"clock-{uuid.uuid4().hex}"
    bucket.create(f"{folder}/{name}", b"{}")
    try:
        states = bucket.states(folder)
        if name not in states:
            raise StoreWriteError(
                f"{bucket.url} does not list an object that was just created, so that ages are "
                "unknown. Run the same command again later.",
                path=bucket.url,
            )
        return states.pop(name).modified, states
    finally:
        bucket.remove(f"{folder}/{name}")


def claims(states: Mapping[str, ObjectState], kind: str) -> list[int]:
    """Return the numbers of the objects of a claim."""
    found = [_CLAIM.fullmatch(name) for name in states]
    return [int(match[2]) for match in found if match and match[1] == kind]


def claims_folder(name: str) -> str:
    """Return the folder of the claims on a store."""
    return f"leases/{name}"
