"""Verification and repair of a store in an object store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bucket_stores import push, reopen
from featcache.errors import StoreCorrupt, StoreError, StoreWriteError
from featcache.hdf5.shard_file import encode_shard
from featcache.store.bucket import log_repair, manifests, verification
from featcache.store.bucket.collection import collect_objects
from featcache.store.bucket.compaction import compact_bucket
from featcache.store.bucket.fields import encode_fields
from featcache.store.bucket.leases import bucket_lease
from featcache.store.bucket.log_names import MAX_NUMBER
from featcache.store.bucket.manifests import change_key, change_shards, store_prefix
from featcache.store.bucket.objects import Bucket
from featcache.store.bucket.shard_writer import ShardWriter
from featcache.store.bucket.verification import repair_bucket, verify_bucket
from featcache.store.row_index import pack_ids
from stores import BOTH, SPEC, WIDTH, as_stored, ids_of, rows_of

pytest.importorskip("fsspec", reason="fsspec is not installed")

NAME = SPEC.folder


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket"


def place(url: str, tmp_path: Path) -> tuple[Bucket, str, Path]:
    return Bucket(url), NAME, tmp_path / "local" / NAME


def flip_row(path: Path) -> None:
    """Change the last row: rows are at the end of a shard."""
    data = bytearray(path.read_bytes())
    position = bytes(data).rindex(rows_of(2).tobytes()[:8])
    data[position] ^= 1
    path.write_bytes(data)


def flip_end(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def enlarge(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(2**23))


@pytest.mark.parametrize("spec", BOTH)
def test_an_intact_store(spec: Any, url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1, 2), (3,), spec=spec)
    mirror = tmp_path / "local" / spec.folder
    before = sorted((tmp_path / "bucket").rglob("*"))
    assert verify_bucket(Bucket(url), spec.folder, mirror) == []
    assert sorted((tmp_path / "bucket").rglob("*")) == before
    assert repair_bucket(Bucket(url), spec.folder, mirror) == []
    assert list(mirror.parent.iterdir()) == []
    store = reopen(url, tmp_path / "b", spec)
    assert np.array_equal(store.read(ids_of(3, 2)), as_stored(rows_of(3, 2), spec))
    with pytest.raises(StoreError, match="has no store"):
        verify_bucket(Bucket(url), "other-0123", mirror)


@pytest.mark.parametrize(
    ("damage", "reason", "lost"),
    [
        (flip_row, "SHA-256", [2]),
        (Path.unlink, "it is missing", [1, 2]),
        (enlarge, "larger", [1, 2]),
        (lambda path: path.write_bytes(b""), "SHA-256", [1, 2]),
    ],
)
def test_damaged_shards_are_found_and_replaced(
    damage: Callable[[Path], None], reason: str, lost: list[int], url: str, tmp_path: Path
) -> None:
    push(url, tmp_path / "a", (1, 2), (3,))
    folder = tmp_path / "bucket" / store_prefix(NAME)
    (bad,) = [path for path in folder.glob("*.h5") if "-2-" in path.name]
    damage(bad)
    (found,) = verify_bucket(*place(url, tmp_path))
    assert (found.name, found.rows) == (bad.name, len(lost))
    assert reason in found.reason
    assert repair_bucket(*place(url, tmp_path)) == [found]
    assert verify_bucket(*place(url, tmp_path)) == []
    store = reopen(url, tmp_path / "b")
    intact = [n for n in (1, 2, 3) if n not in lost]
    assert sorted(store.ids()) == sorted(ids_of(*intact))
    assert np.array_equal(store.read(ids_of(*intact)), rows_of(*intact))
    kept = sorted(path.name for path in folder.glob("damaged-*"))
    if bad.exists() and damage is not enlarge:
        assert kept == [f"damaged-{bad.name}.bad", f"damaged-{bad.name}.head.bad"]
    push(url, tmp_path / "a")
    assert len(reopen(url, tmp_path / "b")) == 3


@pytest.mark.parametrize(
    "damage", [flip_end, Path.unlink, enlarge, lambda path: path.write_bytes(b"x")]
)
def test_damaged_sidecars_are_replaced(damage: Any, url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1, 2), (3,))
    folder = tmp_path / "bucket" / store_prefix(NAME)
    (bad,) = [path for path in folder.glob("*.head") if "-2-" in path.name]
    damage(bad)
    (found,) = verify_bucket(*place(url, tmp_path))
    assert (found.name, found.rows) == (bad.name, 0)
    assert repair_bucket(*place(url, tmp_path)) == [found]
    store = reopen(url, tmp_path / "b")
    assert np.array_equal(store.read(ids_of(1, 2, 3)), rows_of(1, 2, 3))
    assert verify_bucket(*place(url, tmp_path)) == []


def test_rows_that_another_shard_holds_are_not_lost(url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1, 2))
    store = reopen(url, tmp_path / "b")
    found = store.read_shard(store.shard_names[0])
    assert found is not None
    data = (store.folder / store.shard_names[0]).read_bytes()
    twice = ShardWriter(store.bucket, NAME).create(data, *found)
    change_shards(store.bucket, NAME, store.folder, store.manifest, add={twice: 2})
    flip_row(tmp_path / "bucket" / store_prefix(NAME) / twice)
    (damage,) = repair_bucket(*place(url, tmp_path))
    assert (damage.name, damage.rows) == (twice, 0)
    assert len(reopen(url, tmp_path / "c")) == 2


@pytest.mark.parametrize("wrong", ["width", "value"])
def test_rows_that_cannot_be_right_are_found(wrong: str, url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1,))
    store = reopen(url, tmp_path / "b")
    rows = rows_of(2, 3) if wrong == "value" else np.ones((2, WIDTH + 1), np.float32)
    if wrong == "value":
        rows[1, 2] = np.inf
    data, metadata = encode_shard(
        rows, pack_ids(ids_of(2, 3)), np.zeros(2, np.int32), SPEC.components(), {}
    )
    shard = ShardWriter(store.bucket, NAME).create(data, rows, metadata)
    change_shards(store.bucket, NAME, store.folder, store.manifest, add={shard: 2})
    (found,) = repair_bucket(*place(url, tmp_path))
    assert found.name == shard
    assert found.rows == (1 if wrong == "value" else 2)
    expected = (1, 2) if wrong == "value" else (1,)
    assert sorted(reopen(url, tmp_path / "c").ids()) == sorted(ids_of(*expected))


def test_answers_that_were_cut_off_are_no_damage(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(url, tmp_path / "a", (1, 2), (3,))
    read, seen = Bucket.read, set[str]()

    def cut(self: Bucket, name: str, limit: int) -> bytes | None:
        found = read(self, name, limit)
        if found is not None and name not in seen:
            seen.add(name)
            return found[: len(found) // 2]
        return found

    monkeypatch.setattr(Bucket, "read", cut)
    assert verify_bucket(*place(url, tmp_path)) == []
    assert len(seen) >= 5


@pytest.fixture
def five(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bucket whose list has five changes, and a snapshot after the third."""
    monkeypatch.setattr(manifests, "SNAPSHOT_EVERY", 3)
    for n in range(5):
        push(url, tmp_path / f"{n}", (n,))
    return tmp_path / "bucket"


@pytest.mark.parametrize("kind", [change_key, manifests.snapshot_key])
@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_a_damaged_list_is_made_again(
    kind: Any, number: int, url: str, five: Path, tmp_path: Path
) -> None:
    path = five / kind(NAME, number)
    if not path.exists():
        return
    flip_end(path)
    (found,) = verify_bucket(*place(url, tmp_path))
    assert found.name == path.name
    assert repair_bucket(*place(url, tmp_path)) == [found]
    assert verify_bucket(*place(url, tmp_path)) == []
    store = reopen(url, tmp_path / "b")
    assert np.array_equal(store.read(ids_of(*range(5))), rows_of(*range(5)))
    push(url, tmp_path / "c", (9,))
    store.refresh()
    assert len(store) == 6
    assert collect_objects(store.bucket, NAME, store.folder, grace=0).kept == []
    assert len(reopen(url, tmp_path / "d")) == 6


def test_shards_that_were_replaced_do_not_come_back(url: str, five: Path, tmp_path: Path) -> None:
    store = reopen(url, tmp_path / "b")
    gone = store.shard_names[0]
    change_shards(store.bucket, NAME, store.folder, store.manifest, remove=[gone])
    for key in (change_key(NAME, 5), manifests.snapshot_key(NAME, 6)):
        flip_end(five / key)
    folder = five / store_prefix(NAME)
    (folder / f"{'0' * 8}-000001-1-{'0' * 64}.h5").write_bytes(b"without a sidecar")
    other = folder / f"{'1' * 8}-000001-1-{'0' * 64}.h5"
    other.write_bytes(b"with a damaged one")
    other.with_name(other.name + ".head").write_bytes(b"x")
    assert len(repair_bucket(*place(url, tmp_path))) == 2
    names = reopen(url, tmp_path / "c").shard_names
    assert len(names) == 4
    assert gone not in names


@pytest.mark.parametrize(
    "fields", [{"removed": 5}, {"removed": None}, {}, {"removed": [], "collected": 10**400}]
)
def test_a_field_that_somebody_has_written_is_repaired(
    fields: dict[str, Any], url: str, tmp_path: Path
) -> None:
    push(url, tmp_path / "a", (1,))
    manifest = reopen(url, tmp_path / "b").manifest
    number, bucket = manifest.generation + 1, Bucket(url)
    written = {"previous": manifest.digest, "collected": 0.0, **fields}
    data = encode_fields(replace(manifest, generation=number, shards={}), **written)
    bucket.create(change_key(NAME, number), data)
    with pytest.raises(StoreCorrupt, match="a field is wrong"):
        reopen(url, tmp_path / "c")
    (found,) = verify_bucket(*place(url, tmp_path))
    assert repair_bucket(*place(url, tmp_path)) == [found]
    assert reopen(url, tmp_path / "d").ids() == ids_of(1)


@pytest.mark.parametrize("time", [float("inf"), float("nan"), -1.0, "inf"])
def test_an_impossible_time_does_not_forbid_changes(time: Any, url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1,))
    manifest = reopen(url, tmp_path / "b").manifest
    number = manifest.generation + 1
    change = replace(manifest, generation=number, shards={})
    fields = {"previous": manifest.digest, "removed": [], "collected": time}
    Bucket(url).create(change_key(NAME, number), encode_fields(change, **fields))
    with pytest.raises(StoreCorrupt, match="is not a time"):
        reopen(url, tmp_path / "c")


def test_a_time_in_the_future_is_found_and_set_back(url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1,))
    store = reopen(url, tmp_path / "b")
    known = store.manifest
    far = change_shards(store.bucket, NAME, store.folder, known, known=known, collected=9e11)
    with pytest.raises(StoreWriteError, match="may have removed it"):
        push(url, tmp_path / "c", (2,))
    (found,) = verify_bucket(*place(url, tmp_path))
    assert (found.name, found.rows) == ("change-0000000002.json", 0)
    assert "in the future" in found.reason
    assert repair_bucket(*place(url, tmp_path)) == [found]
    assert verify_bucket(*place(url, tmp_path)) == []
    again = manifests.latest_manifest(store.bucket, NAME, store.folder, far)
    assert again is not None
    assert again.collected < 9e11
    push(url, tmp_path / "d", (3,))
    store.refresh()
    assert sorted(store.ids()) == sorted(ids_of(1, 3))
    assert verify_bucket(*place(url, tmp_path)) == []


@pytest.mark.parametrize(
    "name",
    ["change-" + "9" * 18, "snapshot-" + "9" * 18, "change-" + "9" * 16, "snapshot-00000000003"],
)
def test_numbers_that_leave_no_room_are_not_used(name: str, url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1,))
    Bucket(url).create(f"{manifests.manifest_folder(NAME)}/{name}.json", b"{}")
    (found,) = verify_bucket(*place(url, tmp_path))
    assert (found.name, found.rows) == (f"{name}.json", 0)
    assert repair_bucket(*place(url, tmp_path)) == []
    push(url, tmp_path / "b", (2,))
    assert sorted(reopen(url, tmp_path / "c").ids()) == sorted(ids_of(1, 2))


@pytest.mark.parametrize("left", [1, 2])
def test_a_repair_needs_two_numbers(left: int, url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1,))
    key = change_key(NAME, MAX_NUMBER - left)
    Bucket(url).create(key, b"{}")
    if left == 1:
        with pytest.raises(StoreError, match=r"of the number 999999999999999, .*Remove that"):
            repair_bucket(*place(url, tmp_path))
        Bucket(url).remove(key)
    else:
        repair_bucket(*place(url, tmp_path))
    assert verify_bucket(*place(url, tmp_path)) == []
    assert reopen(url, tmp_path / "b").ids() == ids_of(1)


@pytest.mark.parametrize("number", [1, 9, 10**12])
def test_a_snapshot_without_its_change_hides_no_list(number: int, url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1,))
    push(url, tmp_path / "b", (2,))
    manifest, bucket = reopen(url, tmp_path / "c").manifest, Bucket(url)
    planted = replace(manifest, generation=number, shards={}, width=WIDTH + 1)
    data = encode_fields(planted, change="0" * 64, collected=0.0)
    bucket.create(manifests.snapshot_key(NAME, number), data)
    with pytest.raises(StoreCorrupt, match="its change is missing, or was replaced"):
        reopen(url, tmp_path / "d")
    (found,) = verify_bucket(*place(url, tmp_path))
    assert repair_bucket(*place(url, tmp_path)) == [found]
    store = reopen(url, tmp_path / "d")
    assert sorted(store.ids()) == sorted(ids_of(1, 2))
    assert verify_bucket(*place(url, tmp_path)) == []
    push(url, tmp_path / "e", (3,))
    assert collect_objects(bucket, NAME, store.folder, grace=0).kept == []
    assert len(reopen(url, tmp_path / "f")) == 3


@pytest.mark.parametrize("number", [2, 9_999_999_999])
def test_a_change_that_is_far_too_large_or_far_ahead_is_repaired(
    number: int, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(url, tmp_path / "a", (1,))
    monkeypatch.setattr(manifests, "MAX_BYTES", 4000)
    Bucket(url).create(change_key(NAME, number), bytes(5000))
    with pytest.raises(StoreCorrupt, match=r"larger than it may be|it is missing"):
        reopen(url, tmp_path / "b")
    found = verify_bucket(*place(url, tmp_path))
    assert "larger" in found[0].reason
    assert repair_bucket(*place(url, tmp_path)) == found
    assert reopen(url, tmp_path / "c").ids() == ids_of(1)


def test_a_list_of_which_nothing_is_left(url: str, tmp_path: Path) -> None:
    push(url, tmp_path / "a", (1,))
    path = tmp_path / "bucket" / change_key(NAME, 1)
    intact = path.read_bytes()
    path.write_bytes(b"damaged")
    with pytest.raises(StoreCorrupt, match="No change and no snapshot"):
        repair_bucket(*place(url, tmp_path))
    path.write_bytes(intact)
    assert len(reopen(url, tmp_path / "b")) == 1


def test_a_change_during_the_repair_of_a_list_is_noticed(
    url: str, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip_end(five / change_key(NAME, 5))
    create = Bucket.create

    def late(self: Bucket, name: str, data: bytes) -> bool:
        return not name.endswith("change-0000000006.json") and create(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "create", late)
        with pytest.raises(StoreError, match="changed by another process"):
            repair_bucket(*place(url, tmp_path))
    repair_bucket(*place(url, tmp_path))
    assert len(reopen(url, tmp_path / "b")) == 5


def test_a_missing_change_is_found(
    url: str, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (five / change_key(NAME, 4)).unlink()
    (found,) = verify_bucket(*place(url, tmp_path))
    assert "it is missing" in found.reason

    def outdated(*arguments: Any) -> tuple[list[int], list[int]]:
        changes, snapshots = manifests.listed_numbers(*arguments)
        return [*changes[:-1], 4], snapshots

    for module in (verification, log_repair):
        monkeypatch.setattr(module, "listed_numbers", outdated)
    assert repair_bucket(*place(url, tmp_path)) == [found]
    assert len(reopen(url, tmp_path / "b")) == 5


def test_others_change_the_store_at_the_same_time(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(url, tmp_path / "a", (1, 2), (3,))
    folder = tmp_path / "bucket" / store_prefix(NAME)
    with bucket_lease(Bucket(url), NAME):
        monkeypatch.setattr(verification, "_LEASE_WAIT", 0.0)
        with pytest.raises(StoreError, match="cannot be repaired now"):
            repair_bucket(*place(url, tmp_path))
    (bad,) = [path for path in folder.glob("*.h5") if "-2-" in path.name]
    flip_row(bad)
    store, change = reopen(url, tmp_path / "b"), verification.change_shards

    def overtaken(*arguments: Any, **options: Any) -> Any:
        change(store.bucket, NAME, store.folder, store.manifest, remove=[bad.name])
        return change(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(verification, "change_shards", overtaken)
        with pytest.raises(StoreError, match="changed by another process"):
            repair_bucket(*place(url, tmp_path))
    push(url, tmp_path / "c", (4,), (5,))
    store, done = reopen(url, tmp_path / "b"), list[int]()
    read = Bucket.read

    def merging(self: Bucket, name: str, limit: int) -> bytes | None:
        if name.endswith(".h5") and not done:
            done.append(0)
            done[0] = compact_bucket(store, many=2)
            for path in folder.glob("*.h5"):
                if path.name not in store.manifest.shards:
                    path.unlink()
        return read(self, name, limit)

    monkeypatch.setattr(Bucket, "read", merging)
    assert verify_bucket(*place(url, tmp_path)) == []
    assert done == [3]
