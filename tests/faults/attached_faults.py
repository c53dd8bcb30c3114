"""Kill forked children, or fail their system calls, at every call in turn; prints what was found.

Each child is traced from the moment at which its work begins, so that every injection falls into
the work and none into the start of Python. A process of its own without TensorFlow, since a fork
of one with it may hang. Run by test_attached_faults.py:
``python attached_faults.py SCENARIO[,SCENARIO] {KILL,ENOSPC,EIO} {once,lasting} MOST FOLDER``.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from featcache import repair, verify
from featcache.errors import FeatcacheError
from featcache.gc.collect import collect
from featcache.hdf5.shard_metadata import metadata_path
from featcache.store import maintenance
from featcache.store.lease import NAME as LEASE
from featcache.store.lease import _abandoned_claim
from featcache.store.maintenance import compact
from featcache.store.pack import pack, unpack
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of

ROWS = 40
PER_SHARD = 5
WRITING = (
    "openat", "write", "writev", "pwrite64", "fsync", "fdatasync", "rename", "renameat2", "unlink",
    "mkdir", "rmdir", "ftruncate", "fallocate", "utimensat", "link", "unlinkat",
)  # fmt: skip
READING = ("read", "pread64", "lseek", "newfstatat", "fstat", "stat", "lstat", "getdents64")
_PTRACER_ANY = (0x59616D61, ctypes.c_ulong(-1))


@dataclass(frozen=True)
class Scenario:
    """What is there before, what the child does, and what has to be true afterwards.

    `check` gets the cache folder and whether the child says that it did all; it runs without
    faults, and may run the work again. Calls are counted in each process by itself, so a call of
    a process that the work starts may be the first that is hit: `follow` leaves those out.
    """

    prepare: Callable[[Path], None]
    work: Callable[[Path], object]
    check: Callable[[Path, bool], None]
    follow: bool = True


def home(cache: Path) -> Path:
    return cache / "stores" / SPEC.folder


def fill(cache: Path) -> None:
    store = Store.create(home(cache), SPEC, WIDTH)
    for start in range(0, ROWS, PER_SHARD):
        numbers = range(start, start + PER_SHARD)
        store.append(rows_of(*numbers), ids_of(*numbers))
    store.add_to_quarantine({ids_of(999)[0]: "is damaged"})
    store.write_manifest()


def holds(cache: Path, numbers: list[int]) -> None:
    """Assert that some rows are there, with their values, and that every byte is valid."""
    assert verify(home(cache)) == [], verify(home(cache))
    store = Store(home(cache))
    assert store.contains(ids_of(*numbers)).all(), "rows are lost"
    assert np.array_equal(store.read(ids_of(*numbers)), rows_of(*numbers)), "rows differ"


# Repair: one row of a shard is spoiled, another shard has lost its end, a third one its sidecar


def spoil(cache: Path) -> None:
    fill(cache)
    shards = sorted(home(cache).glob("*.h5"))
    flip(shards[0], row_place(shards[0], 2))
    os.truncate(shards[1], row_place(shards[1], 3))
    flip(metadata_path(shards[2]), 60)
    flip(next(home(cache).glob("*.quarantine.json")), 5)


def spoil_all(cache: Path) -> None:
    """Without a manifest and a valid shard: only sidecars tell what the store is."""
    fill(cache)
    for shard in home(cache).glob("*.h5"):
        flip(shard, row_place(shard, 1))
    (home(cache) / "MANIFEST.json").unlink()


def row_place(shard: Path, row: int) -> int:
    from featcache.hdf5.shard_metadata import read_metadata

    known = read_metadata(shard)
    assert known is not None
    return int(known[0].layout.offsets[0]) + row * 4 * WIDTH


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def savable(cache: Path) -> list[int]:
    """The rows that an undisturbed repair of the same damage saves, counted independently."""
    contents = [shard.read_bytes() for shard in home(cache).glob("*.h5")]
    rows = {number: rows_of(number).tobytes() for number in range(ROWS)}
    return [number for number, row in rows.items() if any(row in data for data in contents)]


def check_repair(cache: Path, done: bool) -> None:
    numbers = json.loads((cache / "savable").read_text())
    if not done:
        repair(home(cache))
    holds(cache, numbers)
    assert len(Store(home(cache))) == len(numbers)
    # Damaged bytes are kept, and so is what tells of their rows.
    aside = [p.name for p in home(cache).iterdir() if re.fullmatch(r"damaged-.*\.h5\.bad", p.name)]
    assert len(aside) == json.loads((cache / "damaged").read_text())
    for name in aside:
        assert (home(cache) / f"{name.removesuffix('.bad')}.head.bad").exists(), "no sidecar"
    assert repair(home(cache)) == []


def damaged(prepare: Callable[[Path], None]) -> Callable[[Path], None]:
    def call(cache: Path) -> None:
        prepare(cache)
        (cache / "savable").write_text(json.dumps(savable(cache)))
        found = [d.name for d in verify(home(cache)) if d.name.endswith(".h5")]
        (cache / "damaged").write_text(json.dumps(len(found)))

    return call


# Merging, removing, packing


def check_all_rows(cache: Path, done: bool) -> None:
    if not done:
        compact(Store(home(cache)), many=2)
    holds(cache, list(range(ROWS)))


KEPT = [n for n in range(ROWS) if n % 3]


def check_kept(cache: Path, done: bool) -> None:
    holds(cache, KEPT)
    collect(cache, keep_ids=ids_of(*KEPT))
    holds(cache, KEPT)
    assert len(Store(home(cache))) == len(KEPT)


def two_stores(cache: Path) -> None:
    from dataclasses import replace

    fill(cache)
    other = Store.create(cache / "stores" / replace(SPEC, layer="x").folder,
                         replace(SPEC, layer="x"), WIDTH)  # fmt: skip
    other.append(rows_of(1), ids_of(1))
    other.write_manifest()
    for path in other.folder.iterdir():
        os.utime(path, (1, 1))


def check_one_store(cache: Path, done: bool) -> None:
    holds(cache, list(range(ROWS)))
    collect(cache, unused_days=30)
    assert [path.name for path in (cache / "stores").iterdir()] == [SPEC.folder]


def with_pack(cache: Path) -> None:
    fill(cache)
    pack(Store(home(cache)), cache / "p.h5")


def check_pack(cache: Path, done: bool) -> None:
    """A pack was there before: at any moment that one or the new one is, whole."""
    holds(cache, list(range(ROWS)))
    assert len(unpack(cache / "p.h5", cache / "other")) == ROWS


def check_unpack(cache: Path, done: bool) -> None:
    holds(cache, list(range(ROWS)))
    assert len(unpack(cache / "p.h5", cache / "new")) == ROWS
    holds(cache / "new", list(range(ROWS)))


SCENARIOS = {
    "repair": Scenario(damaged(spoil), lambda c: repair(home(c)), check_repair),
    "repair-itself": Scenario(
        damaged(spoil), lambda c: repair(home(c)), check_repair, follow=False
    ),
    "repair-all": Scenario(damaged(spoil_all), lambda c: repair(home(c)), check_repair),
    "compact": Scenario(fill, lambda c: compact(Store(home(c)), many=2), check_all_rows),
    "gc-rows": Scenario(fill, lambda c: collect(c, keep_ids=ids_of(*KEPT)), check_kept),
    "gc-stores": Scenario(two_stores, lambda c: collect(c, unused_days=30), check_one_store),
    "pack": Scenario(with_pack, lambda c: pack(Store(home(c)), c / "p.h5"), check_pack),
    "unpack": Scenario(with_pack, lambda c: unpack(c / "p.h5", c / "new"), check_unpack),
}


def traced(work: Callable[[], object], options: list[str], follow: bool = True) -> tuple[int, str]:
    """Run `work` in a child that strace is attached to; return its status and last words.

    0: done; 4: an error of ours; 5: another exception; negative: the signal that ended it.
    """
    gate, opener = os.pipe()
    words, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        _child(work, gate, mouth)
    os.close(gate)
    os.close(mouth)
    strace = subprocess.Popen(
        ["strace", *(["-f"] if follow else []), "-qq", "-p", str(child), *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        _wait_for_tracer(child, strace)
        os.writev(opener, [b"x"])
        _, status = os.waitpid(child, 0)
    finally:
        os.close(opener)
        strace.wait(30)
    said = b""
    while block := os.read(words, 65536):
        said += block
    os.close(words)
    return os.waitstatus_to_exitcode(status), said.decode()


def _child(work: Callable[[], object], gate: int, mouth: int) -> None:
    status = 5
    try:
        ctypes.CDLL(None).prctl(*_PTRACER_ANY)  # where only a parent may trace, otherwise
        os.readv(gate, [bytearray(1)])
        work()
        status = 0
    except FeatcacheError as error:
        os.writev(mouth, [str(error).encode()])
        status = 4
    except BaseException:
        os.writev(mouth, [traceback.format_exc().encode()])
    os._exit(status)


def _wait_for_tracer(child: int, strace: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while b"TracerPid:\t0" in Path(f"/proc/{child}/status").read_bytes():
        if strace.poll() is not None or time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise RuntimeError("strace could not be attached: this user may not trace processes")
        time.sleep(0.001)


def count_calls(scenario: Scenario, template: Path, folder: Path) -> Counter[str]:
    """Return how often the work of a scenario makes each system call, in its busiest thread."""
    cache = folder / "count"
    shutil.copytree(template, cache, symlinks=True)
    trace = folder / "trace"
    watched = ",".join(f"?{name}" for name in (*WRITING, *READING))
    status, said = traced(
        lambda: scenario.work(cache), ["-o", str(trace), "-e", f"trace={watched}"], scenario.follow
    )
    assert status == 0, said
    each = Counter(re.findall(r"^(\d+ +|)(\w+)\(", trace.read_text(), re.MULTILINE))
    counts: Counter[str] = Counter()
    for (_, name), number in each.items():
        counts[name] = max(counts[name], number)
    shutil.rmtree(cache)
    return counts


def inject(
    scenario: Scenario, template: Path, folder: Path, fault: str, lasting: bool, most: int
) -> dict[str, Any]:
    """Try a fault at every call; at evenly spread ones where there are more than `most` in all."""
    kind = "signal=KILL" if fault == "KILL" else f"error={fault}"
    calls = WRITING if fault in ("ENOSPC",) else (*WRITING, *READING)
    counts = count_calls(scenario, template, folder)
    points = [(name, n) for name in calls for n in range(1, counts[name] + 1)]
    if len(points) > most:
        points = [points[i * len(points) // most] for i in range(most)]
    found: dict[str, Any] = {"points": 0, "ends": Counter(), "leases left": 0, "wrong": []}
    for number, (name, when) in enumerate(points):
        cache = folder / f"{number}"
        shutil.copytree(template, cache, symlinks=True)
        plus = "+" if lasting else ""
        rule = f"inject={name}:{kind}:when={when}{plus}"
        status, said = traced(
            lambda cache=cache: scenario.work(cache),  # type: ignore[misc]
            ["-o", "/dev/null", "-e", f"trace={name}", "-e", rule],
            scenario.follow,
        )
        found["points"] += 1
        found["ends"][str(status)] += 1
        if status not in (0, 4, *([-9] if fault == "KILL" else [])):
            found["wrong"].append([rule, status, said[-2000:]])
        for left in cache.rglob(LEASE):
            if fault != "KILL":
                # A dead owner's is taken over, as where the system lets nobody remove it.
                found["leases left"] += _abandoned_claim(left) is None
                left.unlink()
        try:
            scenario.check(cache, status == 0)
        except BaseException:
            found["wrong"].append([rule, status, traceback.format_exc()[-2000:]])
        shutil.rmtree(cache, ignore_errors=True)
    return found


def main(names: str, fault: str, lasting: str, most: str, folder: str) -> None:
    logging.disable(logging.CRITICAL)
    maintenance._LEASE_WAIT = 0.2
    found = {}
    for name in names.split(","):
        scenario, place = SCENARIOS[name], Path(folder) / name
        template, warm = place / "template", place / "warm"
        scenario.prepare(template)
        # Once without faults: what is imported late is there before a child is forked.
        shutil.copytree(template, warm, symlinks=True)
        scenario.work(warm)
        scenario.check(warm, True)
        found[name] = inject(scenario, template, place, fault, lasting == "lasting", int(most))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
