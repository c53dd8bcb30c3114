"""Stores in an object store: objects that are created and never replaced, verified when read.

On file systems of fsspec here; on a real server of S3 in `test_s3_store.py`.
"""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bucket_stores import reopen
from featcache import extract
from featcache._io.cache_dirs import cache_folder, stores_folder
from featcache.cli import main
from featcache.errors import (
    InvalidRequest,
    MissingExtra,
    StoreCorrupt,
    StoreError,
    StoreMismatch,
    StoreWriteError,
    UnknownStore,
)
from featcache.hdf5.shard_metadata import (
    METADATA_SUFFIX,
    encode_metadata,
    metadata_bytes,
    metadata_path,
    read_metadata,
)
from featcache.store.bucket import fetching, manifests, push
from featcache.store.bucket.objects import Bucket
from featcache.store.bucket.push import push_rows
from featcache.store.bucket.shard_writer import ShardWriter
from featcache.store.bucket.store import (
    BucketStore,
    bucket_stores,
    find_bucket_store,
    mirror_folder,
)
from featcache.store.shard_reader import ShardReader
from featcache.store.store import Store
from featcache.store.transfer import copy_rows
from stores import BOTH, SPEC, WIDTH, as_stored, filled, ids_of, rows_of, shards

pytest.importorskip("fsspec", reason="fsspec is not installed")


def make(cache: Path, *batches: tuple[int, ...], spec: Any = SPEC, width: int = WIDTH) -> Store:
    store = Store.create(stores_folder(cache) / spec.folder, spec, width, {"backbone": "tiny"})
    return filled(store, *batches) if batches else store


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path}/bucket"
        return
    import fsspec

    yield "memory://bucket/prefix"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket"


@pytest.mark.parametrize("spec", BOTH)
def test_missing_rows_alone_are_pushed_and_read_back(spec: Any, url: str, tmp_path: Path) -> None:
    source = make(tmp_path / "a", (1, 2, 3), (4, 5), spec=spec)
    found = push_rows(source, url, tmp_path / "a")
    assert (found.rows, found.present, found.damaged) == (5, 0, ())
    other = make(tmp_path / "b", (2, 6), (7,), spec=spec)
    assert push_rows(other, url, tmp_path / "b").rows == 2
    store = reopen(url, tmp_path / "c", spec)
    assert len(store) == 7
    numbers = (7, 1, 6, 3, 2, 4, 5, 1)
    assert np.array_equal(store.read(ids_of(*numbers)), as_stored(rows_of(*numbers), spec))
    assert store.damaged == []
    assert store.metadata["backbone"] == "tiny"
    names = set(store.shard_names)
    assert push_rows(source, url, tmp_path / "a").rows == 0
    assert set(reopen(url, tmp_path / "d", spec).shard_names) == names


def test_rows_are_pulled_where_they_are_missing(url: str, tmp_path: Path) -> None:
    push_rows(make(tmp_path / "a", (1, 2), (3, 4)), url, tmp_path / "a")
    make(tmp_path / "b", (2,))
    found = copy_rows(reopen(url, tmp_path / "b"), tmp_path / "b")
    assert (found.rows, found.present) == (3, 1)
    assert np.array_equal(Store(found.store.folder).read(ids_of(4, 1)), rows_of(4, 1))


def test_the_cost_of_rows_goes_with_them(url: str, tmp_path: Path) -> None:
    source = make(tmp_path / "a")
    source.append(rows_of(1, 2), ids_of(1, 2), {"seconds": "6.0"})
    source.write_manifest()
    push_rows(source, url, tmp_path / "a")
    assert reopen(url, tmp_path / "b").seconds_per_image() == 3.0


def test_two_writers_lose_no_row(url: str, tmp_path: Path) -> None:
    sources = [
        make(tmp_path / str(n), *[(100 * n + i, 100 * n + 50 + i) for i in range(4)])
        for n in range(1, 5)
    ]
    with ThreadPoolExecutor(4) as pool:
        done = list(
            pool.map(lambda s: push_rows(s, url, s.folder.parent.parent, progress=False), sources)
        )
    assert [one.rows for one in done] == [8] * 4
    store = reopen(url, tmp_path / "z")
    assert len(store) == 32
    numbers = [100 * n + i for n in range(1, 5) for i in range(4)]
    assert np.array_equal(store.read(ids_of(*numbers)), rows_of(*numbers))


def test_what_another_writer_lists_meanwhile_stays(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make(tmp_path / "a", (1,)), make(tmp_path / "b", (2,))
    create, calls = Bucket.create, []

    def interrupted(self: Bucket, name: str, data: bytes) -> bool:
        if "/change-" in name:
            calls.append(name)
            if len(calls) == 1:
                push_rows(second, folder, tmp_path / "b")
        return create(self, name, data)

    monkeypatch.setattr(Bucket, "create", interrupted)
    assert push_rows(first, folder, tmp_path / "a").rows == 1
    assert len(calls) == 3  # first's lost attempt, second's, first's again
    assert len(reopen(folder, tmp_path / "c")) == 2


def test_an_answer_that_was_lost_is_no_second_write(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Bucket.create

    def forgetful(self: Bucket, name: str, data: bytes) -> bool:
        return create(self, name, data) and "/change-" not in name  # as if another were first

    monkeypatch.setattr(Bucket, "create", forgetful)
    assert push_rows(make(tmp_path / "a", (1, 2)), folder, tmp_path / "a").rows == 2
    assert reopen(folder, tmp_path / "b")._manifest.generation == 1


def test_a_listing_that_lags_behind_is_not_trusted(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in (1, 2, 3):
        push_rows(make(tmp_path / f"{n}", (n,)), folder, tmp_path / f"{n}")
    monkeypatch.setattr(Bucket, "objects", lambda self, name: {})
    assert len(reopen(folder, tmp_path / "c")) == 3


def test_an_interrupted_push_lists_what_it_created_and_goes_on(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "a", (1, 2), (3, 4), (5, 6))
    create = Bucket.create
    data_objects: list[str] = []

    def stopped(self: Bucket, name: str, data: bytes) -> bool:
        if name.endswith(".h5"):
            data_objects.append(name)
            if len(data_objects) == 2:
                raise KeyboardInterrupt
        return create(self, name, data)

    with monkeypatch.context() as inner:
        inner.setattr(Bucket, "create", stopped)
        inner.setattr(push, "_SHARDS_AT_A_TIME", 1)  # which are created depends on the time else
        with pytest.raises(KeyboardInterrupt):
            push_rows(source, folder, tmp_path / "a")
    assert len(reopen(folder, tmp_path / "b")) == 2
    found = push_rows(source, folder, tmp_path / "a")
    assert (found.rows, found.present) == (4, 2)


def test_metadata_are_fetched_several_at_a_time(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_rows(make(tmp_path / "a", *[(i,) for i in range(6)]), folder, tmp_path / "a")
    together = threading.Barrier(6)
    read = Bucket.read

    def reads(self: Bucket, name: str, limit: int) -> bytes | None:
        if name.endswith(METADATA_SUFFIX):
            together.wait(10)  # fails unless six requests are under way
        return read(self, name, limit)

    monkeypatch.setattr(Bucket, "read", reads)
    store = reopen(folder, tmp_path / "b")
    assert np.array_equal(store.read(ids_of(*range(6))), rows_of(*range(6)))


def test_shards_are_pushed_several_at_a_time(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(6)
    create = Bucket.create

    def creates(self: Bucket, name: str, data: bytes) -> bool:
        if name.endswith(METADATA_SUFFIX):
            together.wait(10)  # fails unless six requests are under way
        return create(self, name, data)

    monkeypatch.setattr(Bucket, "create", creates)
    push_rows(make(tmp_path / "a", *[(i,) for i in range(6)]), folder, tmp_path / "a")
    store = reopen(folder, tmp_path / "b")
    assert np.array_equal(store.read(ids_of(*range(6))), rows_of(*range(6)))


def test_shards_that_are_pushed_at_once_fit_in_memory(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "_BYTES_AT_A_TIME", 1)
    under_way, most = [0], [0]
    create = ShardWriter.create

    def creates(self: ShardWriter, *arguments: Any) -> str:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        try:
            return create(self, *arguments)
        finally:
            under_way[0] -= 1

    monkeypatch.setattr(ShardWriter, "create", creates)
    push_rows(make(tmp_path / "a", *[(i,) for i in range(12)]), folder, tmp_path / "a")
    assert most == [1]


def test_few_shards_are_here_at_once(folder: str, tmp_path: Path) -> None:
    push_rows(make(tmp_path / "a", *[(i,) for i in range(12)]), folder, tmp_path / "a")
    mirror = tmp_path / "mirror" / SPEC.folder
    size = shards(Store(stores_folder(tmp_path / "a") / SPEC.folder))[0].stat().st_size
    store = BucketStore(folder, SPEC.folder, mirror, max_bytes=3 * size)
    assert not list(mirror.glob("*.h5"))
    for _ in range(2):
        assert np.array_equal(store.read(ids_of(*range(12))), rows_of(*range(12)))
        assert len(list(mirror.glob("*.h5"))) <= 3
    one = BucketStore(folder, SPEC.folder, mirror, max_bytes=1)
    assert np.array_equal(one.read(ids_of(3, 8)), rows_of(3, 8))
    assert len(list(mirror.glob("*.h5"))) == 1


def test_what_was_read_last_stays_here(folder: str, tmp_path: Path) -> None:
    push_rows(make(tmp_path / "a", *[(i,) for i in range(6)]), folder, tmp_path / "a")
    store = reopen(folder, tmp_path / "b")
    store.read(ids_of(*range(6)))
    reads: list[str] = []
    read = Bucket.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bucket, "read", lambda *a: reads.append(a[1]) or read(*a))
        again = reopen(folder, tmp_path / "b")
        assert np.array_equal(again.read(ids_of(5, 0)), rows_of(5, 0))
    assert not [name for name in reads if not name.rpartition("/")[2].startswith("change-")]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_object_gives_an_error_and_no_row(
    damage: Any, folder: str, tmp_path: Path
) -> None:
    push_rows(make(tmp_path / "a", (1, 2), (3,)), folder, tmp_path / "a")
    bucket = tmp_path / "bucket" / "stores" / SPEC.folder
    (bad,) = [path for path in bucket.glob("*.h5") if "-2-" in path.name]
    damage(bad)
    store = reopen(folder, tmp_path / "b")
    with pytest.raises(StoreCorrupt):
        store.read(ids_of(1))
    assert np.array_equal(store.read(ids_of(3)), rows_of(3))
    found = copy_rows(store, tmp_path / "b")
    assert (found.rows, found.damaged) == (1, (bad.name,))


def test_a_larger_object_than_its_metadata_say_is_not_read(folder: str, tmp_path: Path) -> None:
    push_rows(make(tmp_path / "a", (1,)), folder, tmp_path / "a")
    (bad,) = (tmp_path / "bucket" / "stores" / SPEC.folder).glob("*.h5")
    bad.write_bytes(bad.read_bytes() + bytes(1000))
    with pytest.raises(StoreError, match="more than"):
        reopen(folder, tmp_path / "b").read(ids_of(1))


def test_a_size_that_metadata_declare_is_not_read_into_memory(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_rows(make(tmp_path / "a", (1,)), folder, tmp_path / "a")
    (shard,) = (tmp_path / "bucket" / "stores" / SPEC.folder).glob("*.h5")
    found = read_metadata(shard)
    assert found is not None
    metadata_path(shard).write_bytes(encode_metadata(shard.name, 2**50, *found[:2]))
    store = reopen(folder, tmp_path / "b")
    read, limits = Bucket.read, list[int]()

    def noted(self: Bucket, name: str, limit: int) -> bytes | None:
        limits.append(limit)
        return read(self, name, limit)

    monkeypatch.setattr(Bucket, "read", noted)
    with pytest.raises(StoreCorrupt, match="those of other rows"):
        store.read(ids_of(1))
    assert max(limits) < 2**23


def too_large(path: Path) -> None:
    path.write_bytes(bytes(2**23))


@pytest.mark.parametrize("damage", [flip, Path.unlink, too_large])
def test_rows_without_metadata_count_as_missing(damage: Any, folder: str, tmp_path: Path) -> None:
    source = make(tmp_path / "a", (1, 2), (3,))
    push_rows(source, folder, tmp_path / "a")
    bucket = tmp_path / "bucket" / "stores" / SPEC.folder
    (bad,) = [path for path in bucket.glob("*.head") if "-2-" in path.name]
    damage(bad)
    store = reopen(folder, tmp_path / "b")
    assert store.contains(ids_of(1, 3)).tolist() == [False, True]
    assert [one.rows for one in store.damaged] == [2]


def test_a_damaged_manifest_is_an_error(folder: str, tmp_path: Path) -> None:
    push_rows(make(tmp_path / "a", (1,)), folder, tmp_path / "a")
    (manifest,) = (tmp_path / "bucket" / "stores" / SPEC.folder).glob("manifest/change-*")
    intact = manifest.read_bytes()
    for damaged in (intact[: len(intact) // 2], b"", intact.replace(b"tiny", b"tinx")):
        manifest.write_bytes(damaged)
        with pytest.raises(StoreCorrupt, match=rf"{folder}/stores/.*{manifest.name}"):
            reopen(folder, tmp_path / "b")
    manifest.write_bytes(intact)
    (manifest.parent / manifest.name.replace("1", "\N{ARABIC-INDIC DIGIT NINE}")).write_bytes(b"x")
    assert len(reopen(folder, tmp_path / "b")) == 1


@pytest.mark.parametrize("ending", [".h5", ".head"])
def test_an_object_with_other_content_is_not_listed(
    ending: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "a", (1,))
    create = Bucket.create

    def occupied(self: Bucket, name: str, data: bytes) -> bool:
        return create(self, name, b"something else" if name.endswith(ending) else data) and (
            not name.endswith(ending)
        )

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "create", occupied)
        with pytest.raises(StoreWriteError, match="does not hold what its name says"):
            push_rows(source, folder, tmp_path / "a")
    assert find_bucket_store(folder, SPEC.folder, tmp_path / "b") is None
    assert push_rows(source, folder, tmp_path / "a").rows == 1
    assert len(reopen(folder, tmp_path / "b")) == 1


def test_a_name_is_used_once(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "a", (1,))

    def killed(*arguments: Any, **options: Any) -> None:
        raise StoreWriteError("killed before it is listed")

    with monkeypatch.context() as patch:
        patch.setattr(push, "change_shards", killed)
        with pytest.raises(StoreWriteError, match="killed"):
            push_rows(source, folder, tmp_path / "a")
    left = {path.name for path in (tmp_path / "bucket" / "stores" / SPEC.folder).glob("*.h5")}
    push_rows(source, folder, tmp_path / "a")
    listed = reopen(folder, tmp_path / "b").shard_names
    assert len(left) == len(listed) == 1
    assert left.isdisjoint(listed)


def test_rows_of_another_width_are_refused(folder: str, tmp_path: Path) -> None:
    push_rows(make(tmp_path / "a", (1,)), folder, tmp_path / "a")
    other = make(tmp_path / "b", width=WIDTH + 1)
    other.append(np.zeros((1, WIDTH + 1), np.float32), ids_of(9))
    with pytest.raises(StoreMismatch, match="another spec or width"):
        push_rows(other, folder, tmp_path / "b")


def test_writers_without_end_are_told(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "_ATTEMPTS", 2)
    create = Bucket.create
    monkeypatch.setattr(
        Bucket, "create", lambda self, n, d: "/change-" not in n and create(self, n, d)
    )
    with pytest.raises(StoreError, match="other writers"):
        push_rows(make(tmp_path / "a", (1,)), folder, tmp_path / "a")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://example.org/cache", "not the URL of a cache"),
        ("gs://bucket/cache", "not the URL of a cache"),
        ("zip://a::s3://bucket/x.zip", "not the URL of a cache"),
        ("s3://key:secret@bucket/x", "with credentials"),
        ("bucket/x", "not the URL of a cache"),
        ("s3://", "not the URL of a cache"),
        ("memory:///", "not the URL of a cache"),
        ("s3://bucket/a//b", "empty part"),
        ("memory:///a/x", "empty part"),
        ("memory://a/./x", "empty part"),
        ("file:///a/../x", "empty part"),
        ("file:////a/x", "empty part"),
    ],
)
def test_other_urls_are_refused(url: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        Bucket(url)
    assert "secret" not in str(caught.value).split("(")[0]


def test_nothing_is_written_by_a_reader(folder: str, tmp_path: Path) -> None:
    push_rows(make(tmp_path / "a", (1,)), folder, tmp_path / "a")
    store = reopen(folder, tmp_path / "b")
    with pytest.raises(StoreError, match="only read"):
        store.append(rows_of(2), ids_of(2))
    with pytest.raises(StoreError, match="only read"):
        store.add_to_quarantine({"a": "b"})
    with pytest.raises(StoreError, match="only read"):
        store.write_manifest()
    again = pickle.loads(pickle.dumps(store))
    assert np.array_equal(again.read(ids_of(1)), rows_of(1))
    assert "rows>" in repr(store)
    assert store.size_on_disk() > 0


def test_a_store_that_is_not_there(folder: str, tmp_path: Path) -> None:
    assert find_bucket_store(folder, SPEC.folder, tmp_path) is None
    assert bucket_stores(folder, [], tmp_path) == []
    with pytest.raises(UnknownStore, match="no store 'tiny'"):
        bucket_stores(folder, ["tiny"], tmp_path)
    with pytest.raises(StoreError, match="has no store"):
        BucketStore(folder, SPEC.folder, tmp_path / SPEC.folder)


def test_an_extraction_uses_the_rows_of_a_bucket(
    photos: Path, tiny_model: Any, folder: str, tmp_path: Path
) -> None:
    cats = extract(tiny_model, photos / "cat", cache_dir=tmp_path / "a")
    push_rows(Store(cats.summary.folder), folder, tmp_path / "a")
    features = extract(tiny_model, photos, shared_dir=folder)
    assert features.summary.stored == len(cats)
    assert features.summary.computed == len(features) - len(cats)
    whole = extract(tiny_model, photos, cache_dir=tmp_path / "whole")
    assert np.allclose(features.X, whole.X, atol=1e-5)
    only = extract(tiny_model, photos / "cat", cache_dir=tmp_path / "new", shared_dir=folder)
    assert only.summary.computed == 0
    assert np.array_equal(only.X, cats.X)
    assert not list((tmp_path / "new").glob("stores/*"))
    threads = [t for t in threading.enumerate() if t.name.startswith("featcache")]
    assert not threads


def test_the_commands_take_urls(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEATCACHE_CACHE", str(tmp_path / "here"))
    make(cache_folder(), (1, 2, 3))
    assert main(["push", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["copied"] == 3
    monkeypatch.setenv("FEATCACHE_CACHE", str(tmp_path / "there"))
    assert main(["pull", folder, "tiny"]) == 0
    assert "3 rows copied, 0 there" in capsys.readouterr().out
    assert main(["pull", folder, "other"]) == 2
    assert "no store 'other'" in capsys.readouterr().err
    assert main(["pull", str(tmp_path / "nowhere")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert mirror_folder(cache_folder(), folder, "x").parent.parent.name == "shared"


def test_a_killed_write_leaves_no_part_of_an_object(folder: str, tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", """
import io, os, signal, sys
from featcache.store.bucket.objects import Bucket
sys.setprofile(lambda frame, event, arg: event == "c_call" and arg.__name__ == "write"
               and isinstance(arg.__self__, io.BufferedWriter) and (
                   arg.__self__.raw.write(b"{"), os.kill(os.getpid(), signal.SIGKILL)))
Bucket(sys.argv[1]).create("stores/x/manifest/change-0000000001.json", b"{}")
""", folder], check=False)  # fmt: skip
    assert run.returncode == -signal.SIGKILL
    bucket = Bucket(folder)
    assert bucket.read("stores/x/manifest/change-0000000001.json", 9) is None
    assert bucket.create("stores/x/manifest/change-0000000001.json", b"{}")
    assert not bucket.create("stores/x/manifest/change-0000000001.json", b"[]")
    assert bucket.read("stores/x/manifest/change-0000000001.json", 9) == b"{}"


def test_metadata_of_other_rows_are_not_believed(folder: str, tmp_path: Path) -> None:
    source = make(tmp_path / "a", (1, 2))
    push_rows(source, folder, tmp_path / "a")
    (name,) = source.shard_names
    found = source.read_shard(name)
    assert found is not None
    rows, metadata = found
    (sidecar,) = (tmp_path / "bucket" / "stores" / SPEC.folder).glob("*.head")
    swapped = replace(metadata, image_ids=metadata.image_ids[::-1].copy())
    size = (source.folder / name).stat().st_size
    name = sidecar.name.removesuffix(".head")
    sidecar.write_bytes(metadata_bytes(name, size, swapped, rows))
    store = reopen(folder, tmp_path / "b")
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match="those of other rows"):
            store.read(ids_of(1))
    assert copy_rows(store, tmp_path / "b").damaged == (name,)
    assert not [path for path in store.folder.iterdir() if path.suffix not in (".json", ".head")]


def test_metadata_are_compared_with_a_copy_that_is_there(folder: str, tmp_path: Path) -> None:
    push_rows(make(tmp_path / "a", (1, 2)), folder, tmp_path / "a")
    store = reopen(folder, tmp_path / "b")
    store.read(ids_of(1))
    (shard,) = (tmp_path / "bucket" / "stores" / SPEC.folder).glob("*.h5")
    found = read_metadata(shard)
    assert found is not None
    swapped = replace(found[0], image_ids=found[0].image_ids[::-1].copy(), seconds=-1.0)
    metadata_path(shard).write_bytes(encode_metadata(shard.name, found[2], swapped, found[1]))
    metadata_path(store.folder / shard.name).unlink()
    again = reopen(folder, tmp_path / "b")
    assert again.seconds_per_image() == 0
    with pytest.raises(StoreCorrupt, match="those of other rows"):
        again.read(ids_of(1))


@pytest.mark.parametrize("copied", [False, True])
def test_metadata_from_when_a_store_was_opened_are_compared(
    copied: bool, folder: str, tmp_path: Path
) -> None:
    push_rows(make(tmp_path / "a", (1, 2)), folder, tmp_path / "a")
    (shard,) = (tmp_path / "bucket" / "stores" / SPEC.folder).glob("*.h5")
    found, intact = read_metadata(shard), metadata_path(shard).read_bytes()
    assert found is not None
    swapped = replace(found[0], image_ids=found[0].image_ids[::-1].copy())
    metadata_path(shard).write_bytes(encode_metadata(shard.name, found[2], swapped, found[1]))
    store = reopen(folder, tmp_path / "b")
    metadata_path(shard).write_bytes(intact)
    shutil.rmtree(store.folder)  # as a garbage collection does
    if copied:  # by another process
        assert np.array_equal(reopen(folder, tmp_path / "b").read(ids_of(1)), rows_of(1))
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match="those of other rows"):
            store.read(ids_of(1))
    assert store.read_shard(shard.name) is None
    assert np.array_equal(reopen(folder, tmp_path / "b").read(ids_of(1)), rows_of(1))


@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(b"")])
def test_a_damaged_local_copy_is_fetched_again(damage: Any, folder: str, tmp_path: Path) -> None:
    push_rows(make(tmp_path / "a", (1, 2)), folder, tmp_path / "a")
    store = reopen(folder, tmp_path / "b")
    store.read(ids_of(1))
    (copy,) = store.folder.glob("*.h5")
    damage(copy)
    assert np.array_equal(store.read(ids_of(2)), rows_of(2))
    damage(copy)
    assert copy_rows(reopen(folder, tmp_path / "b"), tmp_path / "b").rows == 2


def test_a_copy_that_another_process_removes_is_fetched_again(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_rows(make(tmp_path / "a", (1, 2), (3,)), folder, tmp_path / "a")
    store = reopen(folder, tmp_path / "b")
    read, removed = ShardReader._read_rows, list[str]()

    def removing(self: ShardReader, name: str, *arguments: Any) -> None:
        if len(removed) < 4 and not name.startswith("."):
            removed.append(name)
            (store.folder / name).unlink()
        read(self, name, *arguments)

    monkeypatch.setattr(ShardReader, "_read_rows", removing)
    assert np.array_equal(store.read(ids_of(3, 1)), rows_of(3, 1))
    removed.clear()
    found = copy_rows(store, tmp_path / "b")
    assert (found.rows, found.damaged) == (3, ())
    monkeypatch.setattr(fetching, "_ATTEMPTS", 2)
    removed.clear()
    with pytest.raises(StoreError, match="removed by other processes"):
        store.read(ids_of(1))


def test_a_copy_is_hashed_once_however_often_it_is_read(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_rows(make(tmp_path / "a", (1, 2)), folder, tmp_path / "a")
    store = reopen(folder, tmp_path / "b")
    store.read(ids_of(1))
    hashed: list[str] = []
    monkeypatch.setattr(ShardReader, "_check_one", lambda self, name: hashed.append(name))
    store.read(ids_of(2))
    monkeypatch.setattr(fetching, "_TOUCH_SECONDS", -1.0)
    (copy,) = store.folder.glob("*.h5")
    before = copy.stat().st_mtime_ns
    store.read(ids_of(2))
    assert copy.stat().st_mtime_ns > before
    assert hashed == []
    assert np.array_equal(reopen(folder, tmp_path / "b").read(ids_of(2)), rows_of(2))
    shutil.rmtree(store.folder)  # as `featcache gc` may do
    assert np.array_equal(store.read(ids_of(1)), rows_of(1))
    shutil.rmtree(store.folder)
    (tmp_path / "bucket" / "stores" / SPEC.folder / f"{copy.name}.head").unlink()
    with pytest.raises(StoreCorrupt, match="metadata are missing"):
        store.read(ids_of(1))


def test_a_shard_that_is_merged_while_it_is_pushed_is_pushed(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "a", (1, 2), (3,))
    read_shard = Store.read_shard

    def merged(self: Store, name: str) -> Any:
        found = read_shard(self, name)
        (self.folder / name).unlink()
        return found

    monkeypatch.setattr(Store, "read_shard", merged)
    assert push_rows(source, folder, tmp_path / "a").rows == 3
    monkeypatch.undo()
    store = reopen(folder, tmp_path / "b")
    assert np.array_equal(store.read(ids_of(3, 1, 2)), rows_of(3, 1, 2))


def test_shards_whose_rows_are_there_are_not_read(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "a", (1, 2), (3,))
    push_rows(source, folder, tmp_path / "a")
    make(tmp_path / "b", (1, 2))
    read, names = Store.read_shard, list[str]()
    monkeypatch.setattr(Store, "read_shard", lambda *a: names.append(a[1]) or read(*a))
    assert copy_rows(reopen(folder, tmp_path / "b"), tmp_path / "b").rows == 1
    assert [name for name in names if "-2-" in name] == []
    names.clear()
    assert copy_rows(reopen(folder, tmp_path / "b"), tmp_path / "b").present == 3
    assert push_rows(source, folder, tmp_path / "a").present == 3
    assert names == []


def test_a_push_leaves_out_damaged_shards_and_lists_many_at_once(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "_SHARDS_PER_CHANGE", 1)
    monkeypatch.setattr(push, "_SHARDS_AT_A_TIME", 1)
    source = make(tmp_path / "a", (1, 2), (3,), (4, 5, 6))
    (bad,) = [path for path in shards(source) if "-3-" in path.name]
    flip(bad)
    found = push_rows(source, folder, tmp_path / "a")
    assert (found.rows, found.damaged) == (3, (bad.name,))
    assert np.array_equal(found.store.read(ids_of(3, 2)), rows_of(3, 2))


def test_a_shard_that_changes_while_it_is_pushed_is_not_pushed(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "a", (1, 2))
    read_shard = Store.read_shard

    def changed(self: Store, name: str) -> Any:
        found = read_shard(self, name)
        flip(self.folder / name)
        return found

    monkeypatch.setattr(Store, "read_shard", changed)
    with pytest.raises(StoreWriteError, match="was changed while it was read"):
        push_rows(source, folder, tmp_path / "a")
    assert find_bucket_store(folder, SPEC.folder, tmp_path / "b") is None


class FailingServer:
    """A file system whose every request fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any, **__: Any) -> None:
            raise self.error

        return fail


@pytest.mark.parametrize("error", [OSError("denied at s3://me:hidden@host/x"), ValueError("slow")])
def test_a_server_that_fails_is_named_without_secrets(error: Exception) -> None:
    bucket = Bucket("memory://failing/cache")
    assert repr(bucket) == "<Bucket memory://failing/cache>"
    bucket.url, bucket._system = "s3://failing/cache", FailingServer(error)
    requests: list[Any] = [
        lambda: bucket.objects("stores/x"), lambda: bucket.folders("stores"),
        lambda: bucket.read("stores/x/y", 9), lambda: bucket.create("stores/x/y", b"1"),
    ]  # fmt: skip
    for request in requests:
        with pytest.raises((StoreError, StoreWriteError), match="s3://failing/cache") as caught:
            request()
        assert "hidden" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtra, match="s3"):
        Bucket("s3://bucket/cache")
