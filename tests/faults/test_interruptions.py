"""Ctrl-C and MemoryError at every call that the store makes, Python's and the system's."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from scale import FULL

import featcache
from featcache import verify
from featcache.errors import FeatcacheError, StoreWriteError
from featcache.gc.collect import collect
from featcache.store.maintenance import compact
from featcache.store.pack import pack
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of

PACKAGE = str(Path(featcache.__file__).parent)


class Calls:
    """Counts the calls that code of the package makes, and raises at one of them."""

    def __init__(self, at: int, error: type[BaseException]) -> None:
        self.at, self.error, self.count, self.where = at, error, 0, ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event not in ("call", "c_call") or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        self.count += 1
        if self.count == self.at:
            self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            raise self.error


@contextlib.contextmanager
def raising(at: int, error: type[BaseException]) -> Iterator[Calls]:
    calls = Calls(at, error)
    before = sys.getprofile()
    sys.setprofile(calls)
    try:
        yield calls
    finally:
        sys.setprofile(before)


def work(cache: Path, acknowledged: list[int]) -> None:
    store = Store.create(cache / "stores" / SPEC.folder, SPEC, WIDTH)
    for number in range(0, 8, 2):
        store.append(rows_of(number), ids_of(number))
        acknowledged.append(number)
        store.append(rows_of(number + 1), ids_of(number + 1))
    store.add_to_quarantine({ids_of(99)[0]: "is damaged"})
    store.write_manifest()
    compact(store, many=3)
    collect(cache, keep_ids=ids_of(*acknowledged))
    store.refresh()
    pack(store, cache / "p.h5")


# Between a file's opening and its `with`, no code can close it but the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_at_every_call(tmp_path: Path, error: type[BaseException]) -> None:
    with raising(-1, error) as calls:
        work(tmp_path / "whole", [])
    assert calls.count > 500
    left: list[str] = []
    for at in range(1, calls.count, 1 if FULL else 41):
        cache, acknowledged = tmp_path / str(at), list[int]()
        # Of what is raised within its callbacks h5py makes an AttributeError now and then.
        suppressed = contextlib.suppress(error, FeatcacheError, AttributeError)
        with raising(at, error) as here, suppressed:
            work(cache, acknowledged)
        home = cache / "stores" / SPEC.folder
        if (home / "MANIFEST.json").exists():
            store = Store(home)
            if acknowledged:
                assert np.array_equal(store.read(ids_of(*acknowledged)), rows_of(*acknowledged))
            assert verify(home) == [], here.where
        else:
            assert not acknowledged, here.where
        left += [here.where for _ in cache.rglob(".tmp-*")]
    # Only what was interrupted while it cleaned up may have left its file; that goes later.
    print(f"{error.__name__}: {calls.count} calls, temporary files left by {left}")
    assert all(where.startswith(("atomic.py", "lease.py", "pack.py")) for where in left)
    assert len(left) <= calls.count // 50


@pytest.mark.parametrize("days", [-1000, 1000])
def test_a_clock_that_jumps_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    acknowledged: list[int] = []
    now = time.time
    work(tmp_path, acknowledged)
    monkeypatch.setattr(time, "time", lambda: now() + days * 86400)
    work(tmp_path, acknowledged)
    home = tmp_path / "stores" / SPEC.folder
    assert np.array_equal(Store(home).read(ids_of(*acknowledged)), rows_of(*acknowledged))
    assert verify(home) == []


def test_a_folder_that_goes_while_rows_come_is_told(tmp_path: Path) -> None:
    import shutil

    store = Store.create(tmp_path / "stores" / SPEC.folder, SPEC, WIDTH)
    store.append(rows_of(1), ids_of(1))
    shutil.rmtree(tmp_path / "stores")
    with pytest.raises(StoreWriteError, match="the folder was removed while it was in use"):
        store.append(rows_of(2), ids_of(2))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_without_leave_to_write_old_rows_are_read_and_new_ones_told(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", SPEC, WIDTH)
    store.append(rows_of(1), ids_of(1))
    store.write_manifest()
    for path in [tmp_path, *tmp_path.parents]:
        if path.stat().st_uid == os.geteuid() and "pytest" in str(path):
            path.chmod(0o755)
    (tmp_path / "store").chmod(0o555)
    child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            os.seteuid(65534)
            again = Store(tmp_path / "store")
            assert np.array_equal(again.read(ids_of(1)), rows_of(1))
            try:
                again.append(rows_of(2), ids_of(2))
            except StoreWriteError as error:
                status = 0 if "you may not write there" in str(error) else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
