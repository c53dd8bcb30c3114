"""Requests to an object store that fail for a while, or whose answers are lost."""

from __future__ import annotations

import contextlib
import errno
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from featcache.errors import StoreError, StoreWriteError
from featcache.store.bucket import retry
from featcache.store.bucket.objects import Bucket, TooLarge

pytest.importorskip("fsspec", reason="fsspec is not installed")


class Throttled(Exception):
    """As botocore raises it."""

    def __init__(self) -> None:
        self.response = {"ResponseMetadata": {"HTTPStatusCode": 503}}


class ClientPayloadError(Exception):
    """As aiohttp raises it."""


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


TEMPORARY = [
    OSError(errno.EBUSY, "Please reduce your request rate"),
    OSError(errno.EREMOTEIO, "We encountered an internal error"),
    TimeoutError("timed out"),
    ConnectionResetError("reset by peer"),
    ClientPayloadError("cut off"),
    caused(OSError(errno.EIO, "unknown"), Throttled()),
]
LASTING = [
    PermissionError("denied"),
    OSError(errno.EINVAL, "bad request"),
    caused(OSError("no status"), ValueError()),
    ValueError("no such option"),
]


class Flaky:
    """A file system that fails some requests before or after it has carried them out."""

    def __init__(self, system: Any, errors: list[Exception], *, after: bool = False) -> None:
        self._system, self._errors, self._after = system, errors, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._system, name)

        def request(*arguments: Any, **options: Any) -> Any:
            result = method(*arguments, **options) if self._after else None
            if self._errors and name != "makedirs":
                raise self._errors.pop()
            return result if self._after else method(*arguments, **options)

        return request


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


def flaky(errors: list[Exception], *, after: bool = False) -> Bucket:
    bucket = Bucket(f"memory://{uuid.uuid4().hex}/cache")
    bucket.create("stores/x/there", b"1")
    bucket._system = Flaky(bucket._system, errors, after=after)
    return bucket


REQUESTS: list[Callable[[Bucket], Any]] = [
    lambda bucket: bucket.objects("stores/x") == {"there": 1},
    lambda bucket: bucket.folders("stores") == ["x"],
    lambda bucket: bucket.read("stores/x/there", 9) == b"1",
    lambda bucket: bucket.create("stores/x/new", b"2"),
    lambda bucket: bucket.remove("stores/x/there") is None,
]


@pytest.mark.parametrize("error", TEMPORARY)
def test_a_request_that_fails_for_a_while_is_repeated(error: Exception, waits: list[float]) -> None:
    for request in REQUESTS:
        assert request(flaky([error, error]))
    assert len(waits) == 2 * len(REQUESTS)
    assert all(0 < wait <= retry._MAX_WAIT for wait in waits)


@pytest.mark.parametrize("error", LASTING)
def test_a_request_that_is_refused_is_not_repeated(error: Exception, waits: list[float]) -> None:
    for request in REQUESTS:
        with pytest.raises((StoreError, StoreWriteError)):
            request(flaky([error]))
    assert waits == []


def test_an_empty_object_can_be_read() -> None:
    """S3 refuses to give the first bytes of one."""
    refused = OSError(errno.EINVAL, "The requested range is not satisfiable")
    errors: list[Exception] = []
    bucket = flaky(errors)
    bucket.create("empty", b"")
    errors.append(refused)
    assert bucket.read("empty", 10) == b""
    for name in ("stores/x/there", "missing"):
        errors.append(refused)
        with pytest.raises(StoreError, match="cannot be read"):
            bucket.read(name, 10)


def test_attempts_end(waits: list[float], caplog: pytest.LogCaptureFixture) -> None:
    for request in REQUESTS:
        with pytest.raises((StoreError, StoreWriteError), match="memory://"):
            request(flaky([TimeoutError("slow") for _ in range(retry._ATTEMPTS)]))
    assert len(waits) == (retry._ATTEMPTS - 1) * len(REQUESTS)
    said = [one for one in caplog.messages if "did not answer 5 requests (TimeoutError)" in one]
    assert len(said) == len(REQUESTS)


def test_attempts_that_take_long_end_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    asked = []

    def never_answered() -> None:
        asked.append(clock[0])
        clock[0] += 20.0
        raise TimeoutError("slow")

    with pytest.raises(TimeoutError):
        retry.retried(never_answered)
    assert asked[-1] <= retry._PATIENCE
    assert len(asked) == 3


def test_the_libraries_of_s3_do_not_repeat_requests_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec
    from fsspec.config import conf

    monkeypatch.setitem(conf, "s3", {"config_kwargs": {"read_timeout": 3}})
    system: Any = fsspec.AbstractFileSystem()
    given: dict[str, Any] = {}

    def open_url(url: str, **options: Any) -> tuple[Any, str]:
        given.update(options)
        return system, url

    monkeypatch.setattr(fsspec.core, "url_to_fs", open_url)
    Bucket("s3://photos/cache")
    assert system.retries == 1
    assert given["config_kwargs"] == {"retries": {"max_attempts": 0}, "read_timeout": 3}


def test_an_object_whose_creation_was_not_answered_is_created(waits: list[float]) -> None:
    bucket = flaky([TimeoutError("slow")], after=True)
    assert bucket.create("stores/x/new", b"2")
    assert bucket.read("stores/x/new", 9) == b"2"
    bucket = flaky([OSError("PreconditionFailed")], after=True)  # as other versions of s3fs say it
    assert bucket.create("stores/x/new", b"2")


def test_one_of_several_threads_creates_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(f"memory://{uuid.uuid4().hex}/cache")
    exists, barrier = bucket._system.exists, threading.Barrier(2)

    def together(path: str) -> bool:
        found = exists(path)
        with contextlib.suppress(threading.BrokenBarrierError):
            barrier.wait(0.1)  # both have looked before one writes, unless one waits for the other
        return bool(found)

    monkeypatch.setattr(bucket._system, "exists", together)
    with ThreadPoolExecutor(2) as pool:
        created = list(pool.map(lambda n: bucket.create("stores/x/race", b"%d" % n), range(2)))
    assert created.count(True) == 1


def test_other_content_is_never_replaced(waits: list[float]) -> None:
    for content in (b"2", b"12", b""):
        bucket = flaky([])
        assert not bucket.create("stores/x/there", content)
        assert bucket.read("stores/x/there", 9) == b"1"
    with pytest.raises(TooLarge, match="more than the 0 bytes"):
        bucket.read("stores/x/there", 0)


def test_a_bucket_that_does_not_exist_is_not_an_empty_cache(waits: list[float]) -> None:
    missing = type("NoSuchBucket", (Exception,), {})()
    for list_names in (Bucket.objects, Bucket.folders):
        bucket = flaky([caused(FileNotFoundError("The specified bucket does not exist"), missing)])
        with pytest.raises(StoreError, match=r"bucket does not exist\. Check the address"):
            list_names(bucket, "stores")
    assert not waits
