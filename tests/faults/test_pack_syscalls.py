"""Death and errors of the system at every call that packing and unpacking make, by strace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scale import FULL, times

from featcache import verify
from featcache.store.pack import pack, unpack
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of

NUMBERS = tuple(range(1, 6))
MORE = tuple(range(1, 9))
CALLS = ("write", "fsync", "rename", "unlink", "mkdir")
FAULTS = ("signal=KILL", "error=ENOSPC", "error=EIO")
CHILD = """
import os, sys
from pathlib import Path
from featcache.errors import FeatcacheError
from featcache.store.pack import pack, unpack
from featcache.store.store import Store
cache = Path({cache!r})
try:
    pack(Store(cache / "store"), cache / "p.h5")
    unpack(cache / "given.h5", cache / "c")
except FeatcacheError as error:
    os.writev(2, [str(error).encode()])
    os._exit(4)
except BaseException:
    import traceback
    os.writev(2, [traceback.format_exc().encode()])
    os._exit(5)
os._exit(0)
"""


@pytest.fixture(scope="module")
def strace() -> list[str]:
    path = shutil.which("strace")
    if path is None:
        pytest.skip("strace is not installed")
    if subprocess.run([path, "-qq", "true"], capture_output=True).returncode:
        pytest.skip("this user may not trace processes")
    return [path, "-f", "-qq", "-o", "/dev/null"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an older pack of it, and a pack of further rows to take in."""
    home = tmp_path_factory.mktemp("home")
    store = Store.create(home / "store", SPEC, WIDTH)
    store.append(rows_of(*NUMBERS[:2]), ids_of(*NUMBERS[:2]))
    pack(Store(store.folder), home / "p.h5")
    store.append(rows_of(*NUMBERS[2:]), ids_of(*NUMBERS[2:]))
    store.write_manifest()
    other = Store.create(home / "other", SPEC, WIDTH)
    other.append(rows_of(*MORE), ids_of(*MORE))
    pack(Store(other.folder), home / "given.h5")
    return home


def run(strace: list[str], cache: Path, inject: str) -> tuple[int, str]:
    command = [*strace, "-e", f"inject={inject}", sys.executable, "-c"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "FEATCACHE_CACHE": str(cache)}
    done = subprocess.run(
        [*command, CHILD.format(cache=str(cache))],
        capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stderr


def check(cache: Path) -> None:
    """Every pack is whole, old or new; every row that was there is there, and is the right one."""
    packed = unpack(cache / "p.h5", cache / "checked")
    assert len(packed) in (2, len(NUMBERS))
    store = Store(cache / "store")
    assert np.array_equal(store.read(ids_of(*NUMBERS)), rows_of(*NUMBERS))
    assert verify(store.folder) == []
    taken = unpack(cache / "given.h5", cache / "c")  # the same command again completes it
    assert np.array_equal(taken.read(ids_of(*MORE)), rows_of(*MORE))
    assert verify(taken.folder) == []


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("call", "fault"),
    [(call, fault) for call in CALLS for fault in FAULTS]
    if FULL
    else [("write", "error=ENOSPC"), ("rename", "signal=KILL")],
)
def test_a_fault_at_every_call(
    strace: list[str], home: Path, tmp_path: Path, call: str, fault: str
) -> None:
    faults, when, whole = 0, 1, False
    while not whole:
        cache = tmp_path / f"{when}"
        shutil.copytree(home, cache)
        status, err = run(strace, cache, f"{call}:{fault}:when={when}")
        assert status in ((0, -9, 137) if "KILL" in fault else (0, 4)), err
        whole = status == 0 and ("KILL" in fault or when > 12)
        faults += status != 0
        if status == 4:
            assert "No space left" in err or "Input/output error" in err, err
        if status == 4 and call != "unlink":
            assert not list(cache.rglob(".tmp-*"))
        check(cache)
        shutil.rmtree(cache)
        when += times(4, 1)
    assert faults > 0 or call == "unlink"
    print(f"{call} {fault}: {faults} faults")
