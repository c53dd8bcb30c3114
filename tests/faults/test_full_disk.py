"""A disk that is full in fact: packs, unpacking and the pixel cache end with a clear error."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scale import FULL

from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of

ROWS = 3000
TESTS = str(Path(__file__).parents[1])
CHILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from featcache.errors import FeatcacheError
disk, home = Path({disk!r}), Path({home!r})
try:
{work}
except FeatcacheError as error:
    print(error)
    os._exit(4)
os._exit(0)
"""
PACK = """
    from featcache.store.pack import pack
    from featcache.store.store import Store
    pack(Store(home / "store"), disk / "p.h5")
"""
UNPACK = """
    from featcache.store.pack import unpack
    unpack(home / "p.h5", disk)
"""
PIXELS = """
    import numpy as np
    from bench.finetune import pixels
    from bench.splits import Images
    Images.pixels = lambda images, row, size, resize, budget: np.full((*size, 3), 7, np.uint8)
    ids = tuple(f"{number:064x}" for number in range(400))
    pixels.decoded(Images(ids, ids), (20, 30), cache_dir=disk, progress=False)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)],
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from featcache.store.pack import pack

    home = tmp_path_factory.mktemp("home")
    numbers = range(ROWS)
    store = Store.create(home / "store", SPEC, WIDTH)
    store.append(rows_of(*numbers), ids_of(*numbers))
    store.write_manifest()
    pack(store, home / "p.h5")
    return home


def run(disk: Path, home: Path, work: str, before: str = "") -> tuple[int, str]:
    code = before + CHILD.format(tests=TESTS, disk=str(disk), home=str(home), work=work)
    environment = {**os.environ, "FEATCACHE_CACHE": str(home / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


def fill(disk: Path, left: int) -> None:
    """Fill a disk up to some bytes."""
    status = os.statvfs(disk)
    free = status.f_bavail * status.f_frsize
    with contextlib.suppress(OSError):
        (disk / "filler").write_bytes(bytes(max(0, free - left)))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("work", [PACK, UNPACK, PIXELS], ids=["pack", "unpack", "pixels"])
@pytest.mark.parametrize("left", range(0, 180, 4) if FULL else [60])
def test_a_full_disk_is_said_and_leaves_no_file(
    disk: Path, home: Path, work: str, left: int
) -> None:
    (disk / "old").mkdir()
    fill(disk, left * 1024)
    if work == PACK and left * 1024 > (home / "p.h5").stat().st_size:
        pytest.skip("the pack fits")
    status, said = run(disk, home, work)
    assert status == 4, said
    assert "No space left on device" in said
    assert "free some space" in said or "Name one that you may write to" in said
    assert not list(disk.rglob(".tmp-*"))
    assert not list(disk.glob("*.h5"))
    (disk / "filler").unlink(missing_ok=True)
    status, said = run(disk, home, work)
    assert status == 0, said


@pytest.mark.parametrize("work", [PACK, UNPACK, PIXELS], ids=["pack", "unpack", "pixels"])
@pytest.mark.parametrize("limit", [0, 60_000] if FULL else [60_000])
def test_a_limit_on_the_size_of_files_is_said(
    tmp_path: Path, home: Path, work: str, limit: int
) -> None:
    """The same where no file system can be mounted."""
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    status, said = run(tmp_path, home, work, before)
    assert status == 4, said
    assert "File too large" in said
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_pack_on_a_disk_that_has_room_is_whole(disk: Path, home: Path) -> None:
    """The control: the disk above is large enough, and the pack is the same as elsewhere."""
    assert run(disk, home, PACK)[0] == 0
    assert (disk / "p.h5").read_bytes() == (home / "p.h5").read_bytes()
    numbers = range(ROWS)
    rows = Store(home / "store").read(ids_of(*numbers))
    assert np.array_equal(rows, rows_of(*numbers))
