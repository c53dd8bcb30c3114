"""Kill forked children at random moments and look at what they left; prints what was found.

A process of its own without TensorFlow, since a fork of one with it may hang. Run by
test_forked_kills.py: ``python forked_kills.py {store,extract} KILLS SEED FOLDER``.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import featcache.backbones.request
import featcache.extraction.extract
from conftest import photo
from featcache import extract, verify
from featcache._io.cache_dirs import stores_folder
from featcache.gc.collect import collect
from featcache.store.maintenance import compact
from featcache.store.pack import pack, unpack
from featcache.store.store import Store
from stores import SPEC, WIDTH, ids_of, rows_of

ROUNDS_A_STORE = 50


def forked(work: Callable[[int], None], generator: random.Random, most: float) -> list[int]:
    """Run `work` in a child that is killed after a while; return the numbers it acknowledged.

    Most kills fall after the first acknowledgement, however slow the machine is.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            work(writer)
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(3)
    os.close(writer)
    if generator.random() < 0.8:
        select.select([reader], [], [], 5)
    time.sleep(generator.uniform(0, most))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    data = b""
    while block := os.read(reader, 65536):
        data += block
    os.close(reader)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 3 and data[-1:] != b"!":
        raise AssertionError("the child failed on its own")
    data = data.rstrip(b"!")
    return [n for (n,) in struct.iter_unpack("<q", data[: len(data) // 8 * 8])]


def acknowledge(pipe: int, *numbers: int) -> None:
    os.write(pipe, b"".join(struct.pack("<q", n) for n in numbers))


def store_work(folder: Path, first: int, permanent: list[int]) -> Callable[[int], None]:
    """Append, merge, collect, pack and unpack for ever; acknowledge what is committed."""

    def work(pipe: int) -> None:
        store = Store.create(folder / "stores" / SPEC.folder, SPEC, WIDTH)
        mine: list[int] = []
        for number in range(first, first + 10**6, 2):
            store.append(rows_of(number), ids_of(number))
            acknowledge(pipe, number)
            mine.append(number)
            store.append(rows_of(number + 1), ids_of(number + 1))  # for collect to remove
            if number % 8 == 0:
                store.write_manifest()
                compact(store, many=3)
            if number % 12 == 0:
                collect(folder, keep_ids=set(ids_of(*permanent, *mine)))
                store.refresh()
            if number % 20 == 0:
                pack(store, folder / "pack.h5")
                unpack(folder / "pack.h5", folder)

    return work


def kill_stores(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    generator = random.Random(seed)
    found = {"kills": 0, "acknowledged": 0, "lost": 0, "unopened": 0, "damaged": 0}
    permanent: list[int] = []
    place = folder / "0"
    for round_ in range(kills):
        if round_ % ROUNDS_A_STORE == 0:
            shutil.rmtree(place, ignore_errors=True)
            place, permanent = folder / str(round_), []
        work = store_work(place, 10_000 * (round_ % ROUNDS_A_STORE), permanent)
        acked = forked(work, generator, 0.12)
        permanent += acked
        found["kills"] += 1
        found["acknowledged"] += len(acked)
        home = place / "stores" / SPEC.folder
        if not permanent and not (home / "MANIFEST.json").exists():
            continue  # killed before there was a store
        try:
            store = Store(home)
            there = store.contains(ids_of(*permanent)) if permanent else np.ones(0, bool)
            found["lost"] += int((~there).sum())
            kept = [n for n, ok in zip(permanent, there, strict=True) if ok]
            if kept and not np.array_equal(store.read(ids_of(*kept)), rows_of(*kept)):
                found["lost"] += 1
            store.close()
            found["damaged"] += len(verify(home))
        except Exception as error:
            found["unopened"] += 1
            sys.stderr.write(f"round {round_}: {type(error).__name__}: {error}\n")
    return found


class FakeBackbone:
    """Block means of the pixels: a backbone that needs no library."""

    name, layer, pooling, width, weights_hash = "pocket", "embedding", "none", 12, "ab" * 32
    backend, on_accelerator, library = "none", False, "none"

    def __init__(self, request: Any) -> None:
        pass

    def provenance(self) -> dict[str, str]:
        return {}

    def export(self, folder: Any) -> Any:
        raise RuntimeError("this backbone runs as it is")

    def embed(self, pixels: Any) -> Any:
        time.sleep(0.002)
        return (
            pixels.reshape(len(pixels), 2, 16, 2, 16, 3)
            .mean(axis=(2, 4))
            .reshape(-1, 12)
            .astype("f4")
        )


def extract_work(photos: Path, cache: Path) -> Callable[[int], None]:
    def work(pipe: int) -> None:
        append = Store.append

        def acknowledged(self: Store, rows: Any, ids: Any, *more: Any) -> str:
            name = append(self, rows, ids, *more)
            acknowledge(pipe, *(int(image_id[:15], 16) for image_id in ids))
            return name

        Store.append = acknowledged  # type: ignore[method-assign]
        run(photos, cache)
        os.write(pipe, b"!")
        os._exit(3)

    return work


def run(photos: Path, cache: Path) -> Any:
    return extract(
        "pocket", photos, weights="random", image_size=32, batch_size=4, cache_dir=cache,
        workers=2, progress=False,
    )  # fmt: skip


def kill_extractions(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    featcache.backbones.resolve.Backbone = FakeBackbone  # type: ignore[misc, assignment]
    featcache.store.maintenance.MANY_SMALL_SHARDS = 5
    photos = folder / "photos"
    for i in range(120):
        photo(photos / f"{i % 3}" / f"{i:03d}.png", i)
    whole = run(photos, folder / "whole")
    expected = {int(i[:15], 16): row for i, row in zip(whole.ids, np.asarray(whole.X), strict=True)}
    full = {int(i[:15], 16): i for i in whole.ids}
    generator = random.Random(seed)
    found = {"kills": 0, "acknowledged": 0, "lost": 0, "unopened": 0, "damaged": 0, "finished": 0}
    acked: set[int] = set()
    cache = folder / "c0"
    for round_ in range(kills):
        acked |= set(forked(extract_work(photos, cache), generator, 0.06))
        found["kills"] += 1
        stores = stores_folder(cache)
        homes = (
            [h for h in stores.iterdir() if (h / "MANIFEST.json").exists()]
            if stores.is_dir()
            else []
        )
        stored = 0
        try:
            if homes:
                store = Store(homes[0])
                stored = len(store)
                numbers = sorted(acked)
                ids = [full[n] for n in numbers]
                if numbers:
                    there = store.contains(ids)
                    found["lost"] += int((~there).sum())
                    wanted = np.stack([expected[n] for n in numbers])
                    found["lost"] += int(not np.array_equal(store.read(ids), wanted))
                store.close()
                found["damaged"] += len(verify(homes[0]))
            elif acked:
                found["unopened"] += 1
        except Exception as error:
            found["unopened"] += 1
            sys.stderr.write(f"round {round_}: {type(error).__name__}: {error}\n")
        if stored == len(expected):  # a kill may fall between a commit and its acknowledgement
            # All is committed: the resumed store is that of the uninterrupted run.
            resumed = run(photos, cache)
            found["lost"] += int(not np.array_equal(np.asarray(resumed.X), np.asarray(whole.X)))
            found["lost"] += resumed.summary.computed
            found["finished"] += 1
            found["acknowledged"] += len(acked)
            shutil.rmtree(cache)
            cache, acked = folder / f"c{round_ + 1}", set()
    found["acknowledged"] += len(acked)
    return found


def main() -> None:
    options = SimpleNamespace(what=sys.argv[1], kills=int(sys.argv[2]), seed=int(sys.argv[3]))
    kill = {"store": kill_stores, "extract": kill_extractions}[options.what]
    print(json.dumps(kill(options.kills, options.seed, Path(sys.argv[4]))))


if __name__ == "__main__":
    main()
