"""Death and errors of the system at every call in turn, by strace."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scale import FULL, times

from featcache import verify
from featcache.store.store import Store
from stores import SPEC, ids_of, rows_of

CHILD = """
import os, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from stores import SPEC, WIDTH, ids_of, rows_of
from featcache.gc.collect import collect
from featcache.errors import FeatcacheError
from featcache.store.maintenance import compact
from featcache.store.pack import pack, unpack
from featcache.store.store import Store

cache = Path({cache!r})

def acknowledge(number):
    os.writev(1, [b"%d\\n" % number])  # not write: that one is what fails

def work():
    store = Store.create(cache / "stores" / SPEC.folder, SPEC, WIDTH)
    kept = []
    for number in range(0, 8, 2):
        store.append(rows_of(number), ids_of(number))
        acknowledge(number)
        kept.append(number)
        store.append(rows_of(number + 1), ids_of(number + 1))
    store.add_to_quarantine({{ids_of(99)[0]: "is damaged"}})
    store.write_manifest()
    compact(store, many=3)
    collect(cache, keep_ids=ids_of(*kept))
    store.refresh()
    pack(store, cache / "p.h5")

try:
    work()
except FeatcacheError as error:
    os.writev(2, [str(error).encode()])
    os._exit(4)
except BaseException as error:
    import traceback
    os.writev(2, [traceback.format_exc().encode()])
    os._exit(5)
os.writev(1, [b"done\\n"])
os._exit(0)
"""
CALLS = ("write", "fsync", "rename", "unlink")


@pytest.fixture(scope="module")
def strace() -> list[str]:
    path = shutil.which("strace")
    if path is None:
        pytest.skip("strace is not installed")
    done = subprocess.run([path, "-qq", "true"], capture_output=True)
    if done.returncode:
        pytest.skip("this user may not trace processes")
    return [path, "-f", "-qq", "-o", "/dev/null"]


def run(strace: list[str], cache: Path, inject: str) -> tuple[int, list[int], bool, str]:
    """Return the exit status, what was acknowledged, whether all was done, and the error."""
    code = CHILD.format(tests=str(Path(__file__).parents[1]), cache=str(cache))
    command = [*strace, "-e", f"inject={inject}", sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "FEATCACHE_CACHE": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    lines = done.stdout.split()
    return done.returncode, [int(n) for n in lines if n != "done"], "done" in lines, done.stderr


def check(cache: Path, acknowledged: list[int]) -> None:
    home = cache / "stores" / SPEC.folder
    if not acknowledged and not (home / "MANIFEST.json").exists():
        return
    store = Store(home)
    if acknowledged:
        assert np.array_equal(store.read(ids_of(*acknowledged)), rows_of(*acknowledged))
    store.close()
    assert verify(home) == []


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("call", CALLS)
def test_death_at_every_call(strace: list[str], tmp_path: Path, call: str) -> None:
    step, when, deaths = times(15, 1), 1, 0
    while True:
        cache = tmp_path / f"{when}"
        status, acknowledged, done, err = run(strace, cache, f"{call}:signal=KILL:when={when}")
        assert status in (0, -9, 137), err
        check(cache, acknowledged)
        if done:
            break
        deaths += 1
        when += step
    assert deaths > 0
    print(f"{call}: {deaths} deaths")


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("error", ["ENOSPC", *(["EIO", "EDQUOT"] if FULL else [])])
@pytest.mark.parametrize("lasting", ["", "+"], ids=["once", "lasting"])
@pytest.mark.parametrize("call", CALLS)
def test_errors_at_every_call(
    strace: list[str], tmp_path: Path, call: str, error: str, lasting: str
) -> None:
    told = 0
    for when in range(2, _calls(strace, tmp_path, call)) if FULL else (2, 15):
        cache = tmp_path / f"{when}"
        inject = f"{call}:error={error}:when={when}{lasting}"
        status, acknowledged, _, err = run(strace, cache, inject)
        assert status in (0, 4), err  # nothing but our own errors
        if status == 4:
            told += 1
            assert "run the same command again" in err, err
            assert os.strerror(getattr(errno, error)) in err
        check(cache, acknowledged)
        if not (call == "unlink" and lasting):
            assert not list(cache.rglob(".tmp-*"))
        shutil.rmtree(cache, ignore_errors=True)
    assert told > 0 or call == "unlink"


_COUNTS: dict[str, int] = {}


def _calls(strace: list[str], tmp_path: Path, call: str) -> int:
    """Return a number of calls that the child does not reach; counted once for each call."""
    while call not in _COUNTS:
        number = 4
        done = False
        while not done:
            number += 4
            cache = tmp_path / "count"
            _, _, done, _ = run(strace, cache, f"{call}:signal=KILL:when={number}")
            shutil.rmtree(cache, ignore_errors=True)
        _COUNTS[call] = number
    return _COUNTS[call]
