"""Pull the plug, fill the disk: nothing that was committed is lost or computed again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import featcache
from conftest import make_tiny_model, photo
from featcache.store.store import Store

BATCH = 4
IMAGES = 120
CHILD = """
import os, sys, time
sys.path.insert(0, {tests!r})
from conftest import make_tiny_model
import featcache
from featcache.backbones.model import Backbone

embed = Backbone.embed
log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def counting(self, pixels):
    time.sleep(0.02)  # as slow as a real backbone, so that kills fall between and within batches
    rows = embed(self, pixels)
    os.write(log, b"%d\\n" % len(pixels))
    return rows

Backbone.embed = counting
{setup}
features = featcache.extract(make_tiny_model(), {photos!r}, batch_size={batch}, progress=False)
print("done", features.summary.computed)
"""


@pytest.fixture
def many_photos(tmp_path: Path) -> Path:
    for i in range(IMAGES):
        photo(tmp_path / "many" / f"{i % 3}" / f"{i:03d}.png", i)
    return tmp_path / "many"


def child(photos: Path, log: Path, setup: str = "") -> subprocess.Popen[str]:
    code = CHILD.format(
        tests=str(Path(__file__).parents[1]),
        log=str(log),
        photos=str(photos),
        batch=BATCH,
        setup=setup,
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def computed(log: Path) -> int:
    return sum(map(int, log.read_text().split())) if log.exists() else 0


@pytest.mark.slow
def test_killed_five_times_the_store_equals_that_of_an_uninterrupted_run(
    many_photos: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    generator = random.Random(0)
    for _ in range(5):
        process = child(many_photos, log)
        before = computed(log)
        while computed(log) < before + BATCH * 2 and process.poll() is None:
            time.sleep(0.005)
        time.sleep(generator.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout and process.stderr:
            process.stdout.close()
            process.stderr.close()
    assert computed(log) < IMAGES  # else no kill fell into the work
    out, err = child(many_photos, log).communicate()
    assert "done" in out, err
    assert computed(log) - IMAGES < 5 * BATCH
    resumed = featcache.extract(make_tiny_model(), many_photos)
    assert resumed.summary.computed == 0
    whole = featcache.extract(
        make_tiny_model(), many_photos, cache_dir=tmp_path / "other", batch_size=BATCH
    )
    assert np.array_equal(np.asarray(resumed.X), np.asarray(whole.X))
    assert featcache.verify(resumed.summary.folder) == []
    assert not list(resumed.summary.folder.glob("*.bad"))


def test_a_full_disk_is_a_clear_error_and_committed_rows_stay(
    many_photos: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # The system itself refuses every file beyond a size: the manifest still fits, and the
    # shards do until the limit falls in the middle of the run.
    setup = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from featcache.store.store import Store\n"
        "append, calls = Store.append, []\n"
        "def limited(self, *a):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 5: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "    return append(self, *a)\n"
        "Store.append = limited\n"
    )
    process = child(many_photos, log, setup)
    out, err = process.communicate()
    assert process.returncode != 0
    assert "done" not in out
    assert "StoreWriteError: Could not write 4 rows" in err
    assert "Everything committed before is intact" in err
    (folder,) = (tmp_path / "cache" / "stores").iterdir()
    assert len(Store(folder)) == 4 * BATCH
    assert not list(folder.glob(".tmp-*"))
    features = featcache.extract(make_tiny_model(), many_photos)
    assert features.summary.stored == 4 * BATCH


@pytest.fixture
def small_disk(tmp_path: Path) -> object:
    """A file system of 300 kB, where the machine lets us mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    # Lazily: a process that was forked meanwhile, for other tests, may still hold a file open.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_really_full_disk(many_photos: Path, small_disk: Path) -> None:
    model = make_tiny_model(width=64)
    with pytest.raises(featcache.errors.StoreWriteError, match="disk is full"):
        featcache.extract(model, many_photos, batch_size=BATCH, cache_dir=small_disk)
    (folder,) = (small_disk / "stores").iterdir()
    stored = len(Store(folder))
    assert stored > 0
    assert featcache.verify(folder) == []
    assert not list(folder.glob(".tmp-*"))


def test_ctrl_c_on_the_command_line_says_how_to_go_on(many_photos: Path) -> None:
    command = [sys.executable, "-m", "featcache", "extract", "mobilenet", str(many_photos)]
    command += ["--weights", "random", "--image-size", "64", "--batch-size", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stores = Path(os.environ["FEATCACHE_CACHE"]) / "stores"
    deadline = time.time() + 120
    while (
        len(list(stores.glob("*/*.h5"))) < 3 and time.time() < deadline and process.poll() is None
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "run the same command again to resume" in err
    assert "Traceback" not in err
    (folder,) = stores.iterdir()
    assert len(Store(folder)) >= 12


def test_two_processes_on_one_store_at_once_are_both_right(
    many_photos: Path, tmp_path: Path
) -> None:
    both = [child(many_photos, tmp_path / "log") for _ in range(2)]
    for process in both:
        out, err = process.communicate()
        assert "done" in out, err
    features = featcache.extract(make_tiny_model(), many_photos)
    assert features.summary.computed == 0
    assert len(Store(features.summary.folder)) == IMAGES
    assert featcache.verify(features.summary.folder) == []
    alone = featcache.extract(make_tiny_model(), many_photos, cache_dir=tmp_path / "alone")
    # Another batch size may differ in the last bit, by the machine's vector width.
    assert np.allclose(np.asarray(features.X), np.asarray(alone.X), rtol=1e-6, atol=1e-6)


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from stores import SPEC, WIDTH, ids_of, rows_of
from featcache.store import maintenance
from featcache.store.store import Store

store = Store.create(Path({folder!r}), SPEC, WIDTH)
first = {first}
while True:
    for number in range(first, first + 6):
        store.append(rows_of(number), ids_of(number))
        print(number, flush=True)  # only now may the reader count on it
    store.write_manifest()
    maintenance.compact(store, many=4)
    first += 6
"""


def test_killed_while_it_appends_and_merges_no_acknowledged_row_is_lost(tmp_path: Path) -> None:
    from stores import ids_of, rows_of

    generator = random.Random(1)
    folder, acknowledged = tmp_path / "store", set()
    for round_ in range(8):
        code = WRITER.format(
            tests=str(Path(__file__).parents[1]), folder=str(folder), first=1000 * round_
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged.add(int(process.stdout.readline()))
        time.sleep(generator.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate()
        # The last line may be cut off by the kill: then it acknowledges nothing.
        whole = [line for line in out.splitlines(keepends=True) if line.endswith("\n")]
        acknowledged |= {int(line) for line in whole}
        numbers = sorted(acknowledged)
        assert np.array_equal(Store(folder).read(ids_of(*numbers)), rows_of(*numbers))
    assert len(acknowledged) > 50
