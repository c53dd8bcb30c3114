"""Collection beside extraction, by each store's own crop, and on a full disk."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featcache
from conftest import make_tiny_model, photo
from featcache import extract, verify
from featcache._io.cache_dirs import cache_folder, stores_folder
from featcache.cli import main
from featcache.errors import InvalidRequest, StoreError
from featcache.gc.collect import collect
from featcache.store.store import Store


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Four photos, two of them listed with a box, and one of these twice."""
    rows = ["path,left,top,right,bottom"]
    for number in range(4):
        photo(tmp_path / f"{number}.png", number)
        rows.append(f"{number}.png,2,2,12,14")
    rows.append("3.png,4,4,20,20")
    path = tmp_path / "boxes.csv"
    path.write_text("\n".join(rows))
    return path


def test_rows_are_named_by_each_stores_own_crop(table: Path, tiny_model: Any) -> None:
    whole = extract(tiny_model, table)
    boxes = extract(tiny_model, table, crop="box")
    wide = extract(tiny_model, table, crop="box", margin=0.1)
    before = [np.asarray(f.X) for f in (whole, boxes, wide)]
    found = collect(cache_folder(), keep_data=[table])
    assert (found, found.kept) == ([], [])
    assert [len(Store(f.summary.folder)) for f in (whole, boxes, wide)] == [4, 5, 5]
    for features, rows in zip((whole, boxes, wide), before, strict=True):
        assert np.array_equal(features.X, rows)
    # Only the photos that are left stay, in all of them.
    some = table.with_name("some.csv")
    some.write_text("\n".join(table.read_text().splitlines()[:3]))
    assert sorted(r.rows for r in collect(cache_folder(), keep_data=[some])) == [2, 3, 3]


def test_a_store_of_boxes_that_the_data_do_not_give_is_left_alone(
    table: Path, tiny_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = extract(tiny_model, table, crop="box").summary.folder
    paths = [str(table.with_name(f"{i}.png")) for i in range(2)]
    found = collect(cache_folder(), keep_data=[paths])
    assert found == []
    assert [kept.name for kept in found.kept] == [boxes.name]
    assert main(["gc", "--only", paths[0]]) == 0
    assert f"kept: {boxes.name}: it has rows of boxes" in capsys.readouterr().out
    assert len(Store(boxes)) == 5


def test_an_unreadable_file_removes_nothing(table: Path, tiny_model: Any) -> None:
    folder = extract(tiny_model, table).summary.folder
    (table.parent / "1.png").unlink()
    with pytest.raises(InvalidRequest, match="cannot be read"):
        collect(cache_folder(), keep_data=[table], unused_days=0)
    assert len(Store(folder)) == 4


class Waiting:
    """A model whose forward pass waits, so that an extraction is under way for a while."""

    def __init__(self) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()

    def __call__(self, images: Any) -> Any:
        self.began.set()
        self.go_on.wait(60)
        return images


@pytest.fixture
def under_way(photos: Path) -> Iterator[tuple[Waiting, threading.Thread, list[Any]]]:
    rule, done = Waiting(), []

    def run() -> None:
        done.append(extract("mobilenet", photos, weights="random", image_size=32))

    from featcache.extraction import runner as computing

    real = computing.Computation._forward

    def slow(self: Any, batch: Any) -> Any:
        rule(None)
        return real(self, batch)

    computing.Computation._forward = slow  # type: ignore[method-assign]
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert rule.began.wait(120)
        yield rule, thread, done
    finally:
        rule.go_on.set()
        thread.join()
        computing.Computation._forward = real  # type: ignore[method-assign]


def test_a_store_that_an_extraction_is_about_to_fill_is_left_alone(
    under_way: tuple[Waiting, threading.Thread, list[Any]],
) -> None:
    rule, thread, done = under_way
    (folder,) = stores_folder(cache_folder()).iterdir()
    assert not list(folder.glob("*.h5"))  # nothing is committed yet
    found = collect(cache_folder(), unused_days=0)
    assert found == []
    assert [(k.name, k.reason) for k in found.kept] == [(folder.name, "it is in use")]
    assert main(["rm", folder.name, "--yes"]) == 2
    rule.go_on.set()
    thread.join()
    assert np.asarray(done[0].X).shape == (12, 1024)
    assert [r.name for r in collect(cache_folder(), unused_days=0)] == [folder.name]


def test_features_of_a_store_that_is_gone_say_so(photos: Path, tiny_model: Any) -> None:
    features = extract(tiny_model, photos)
    collect(cache_folder(), unused_days=0)
    with pytest.raises(StoreError, match=r"not a store|cannot be"):
        np.asarray(features.X)


def test_a_failed_extraction_leaves_no_empty_store(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("featcache.extraction.runner.Computation._forward", fails)
    with pytest.raises(MemoryError):
        extract("mobilenet", photos, weights="random", image_size=32)
    assert list(stores_folder(cache_folder()).iterdir()) == []


ON_A_FULL_DISK = """
import json, os, sys
from pathlib import Path
from featcache.cli import main
room = Path(sys.argv[1]) / "filler"
with open(room, "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system of its own can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def on_full_disk(disk: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ON_A_FULL_DISK, str(disk), *words, "--cache-dir", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_full_disk_is_no_hindrance_to_removing_a_store(small_disk: Path, photos: Path) -> None:
    folder = extract(make_tiny_model(1), photos, cache_dir=small_disk).summary.folder
    done = on_full_disk(small_disk, "gc", "--unused-days", "0")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "1 removal, " in done.stdout
    assert not folder.exists()


def test_rows_are_removed_on_a_full_disk_or_it_is_said(small_disk: Path, photos: Path) -> None:
    features = extract(make_tiny_model(1), photos, cache_dir=small_disk, batch_size=6)
    folder = features.summary.folder
    done = on_full_disk(small_disk, "gc", "--only", str(photos / "cat"), "--json")
    assert "Traceback" not in done.stderr
    record = json.loads(done.stdout)
    (small_disk / "filler").unlink()
    if done.returncode:
        assert record["kept"][0]["failed"]
    else:
        assert record["removed"][0]["rows"] == 6
    kept = [i for i, label in zip(features.ids, features.labels, strict=True) if label == "cat"]
    assert Store(folder).contains(kept).all()
    assert not (folder / ".lease").exists()
    assert done.returncode or verify(folder) == []
    assert featcache.open_store(folder).read(kept).shape[0] == 6
