"""A store is listed whole, whatever other processes merge at the same time."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.errors import StoreCorrupt, StoreError, StoreFormatError, StoreMismatch
from featcache.hdf5.shard_metadata import metadata_path
from featcache.store import reading as store_module
from featcache.store import survey as survey_module
from featcache.store.maintenance import compact, repair, verify
from featcache.store.manifest import find_stores, read_manifest
from featcache.store.pack import pack
from featcache.store.shard_lookup import ShardLookup
from featcache.store.store import Store
from stores import SPEC, WIDTH, filled, ids_of, rows_of, shards, signed

NUMBERS = tuple(range(12))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "stores" / SPEC.folder, SPEC, WIDTH)
    return filled(store, *[(n,) for n in NUMBERS])


def merging(original: Any, folder: Path, before: bool) -> Any:
    """Return a function that merges all shards once, before or after `original` is called."""
    done = []

    def call(*arguments: Any, **options: Any) -> Any:
        if before and not done:
            done.append(compact(Store(folder), many=2))
        found = original(*arguments, **options)
        if not before and not done:
            done.append(1)
            compact(Store(folder), many=2)
        return found

    return call


@pytest.mark.parametrize("sidecars", [True, False])
@pytest.mark.parametrize(
    "look", ["os.listdir", "ShardLookup._read_sidecar", "ShardLookup._inspect_metadata"]
)
def test_a_merge_between_listing_and_looking_hides_no_row(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: str, sidecars: bool
) -> None:
    if not sidecars:
        for path in store.folder.glob("*.head"):
            path.unlink()
    elif look == "ShardLookup._inspect_metadata":
        pytest.skip("no shard is opened where all have sidecars")
    owner, name = (
        {"os": os, "ShardLookup": ShardLookup}[look.partition(".")[0]],
        look.partition(".")[2],
    )
    original = getattr(owner, name)
    merge = merging(original, store.folder, before=owner is ShardLookup)
    calls: list[int] = []

    def interposed(*arguments: Any) -> Any:
        if owner is os and Path(str(arguments[0])) != store.folder:
            return original(*arguments)
        calls.append(1)
        monkeypatch.setattr(owner, name, original)  # the merge itself looks as well
        return merge(*arguments)

    monkeypatch.setattr(owner, name, interposed)
    opened = Store(store.folder)
    assert calls
    assert len(shards(store)) == 1
    assert opened.contains(ids_of(*NUMBERS)).all()
    assert len(opened) == len(opened.ids()) == len(NUMBERS)
    assert opened.damaged == []
    assert pack(opened, tmp_path / "p.h5") == len(NUMBERS)


def test_a_listing_that_misses_the_merged_shard_and_those_it_replaced_is_repeated(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a folder may be read: what comes too late and what goes too early are not in it."""
    listdir = os.listdir
    seen: list[int] = []

    def torn(folder: Any) -> list[str]:
        if Path(folder) != store.folder:
            return listdir(folder)
        monkeypatch.setattr(os, "listdir", listdir)
        before = set(listdir(folder))
        compact(Store(folder), many=2)
        seen.append(1)
        return sorted(before & set(listdir(folder)))

    monkeypatch.setattr(os, "listdir", torn)
    opened = Store(store.folder)
    assert seen
    assert opened.contains(ids_of(*NUMBERS)).all()
    assert opened.damaged == []


def test_a_refresh_after_a_merge_by_others_reports_nothing_missing(store: Store) -> None:
    other = Store(store.folder)
    compact(store, many=2)
    other.refresh()
    assert other.damaged == []
    assert len(other) == len(NUMBERS)


@pytest.mark.parametrize(
    "step", ["find_damage", "_check_shard", "metadata_is_malformed", "metadata_differs"]
)
def test_verify_beside_a_merge_finds_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    original = getattr(survey_module, step)

    def interposed(*arguments: Any) -> Any:
        monkeypatch.setattr(survey_module, step, original)
        compact(Store(store.folder), many=2)
        return original(*arguments)

    monkeypatch.setattr(survey_module, step, interposed)
    assert verify(store.folder) == []
    assert len(shards(store)) == 1


def test_a_store_that_never_stands_still_is_a_clear_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "parse_manifest", lambda *_: read_manifest(store.folder))
    answers = iter(range(10**6))
    monkeypatch.setattr(
        "featcache.store.recovery.manifest_of_store", lambda _: b"%d" % next(answers)
    )
    with pytest.raises(StoreError, match="merged its shards during each of 50 attempts"):
        Store(store.folder)


def test_links_to_nothing_are_damage_and_stop_nothing(store: Store) -> None:
    name = shards(store)[0].name.replace("-1-", "-2-")
    (store.folder / name).symlink_to("/nowhere/at/all")
    opened = Store(store.folder)
    assert len(opened) == len(NUMBERS)
    assert [damage.reason for damage in opened.damaged] == ["it is a link to nothing"]
    assert [damage.name for damage in verify(store.folder)] == [name]
    repair(store.folder)
    assert verify(store.folder) == []


def test_a_pipe_among_the_shards_is_damage_and_not_read_for_ever(store: Store) -> None:
    name = shards(store)[0].name.replace("-1-", "-2-")
    os.mkfifo(store.folder / name)
    assert [damage.name for damage in Store(store.folder).damaged] == [name]
    assert [damage.name for damage in verify(store.folder)] == [name]


# Sidecars


def test_a_sidecar_that_was_made_to_fit_is_found_and_made_again(store: Store) -> None:
    """Its own digest is right, but its rows are said to be other photos'."""
    from featcache.hdf5.shard_file import ShardFile
    from featcache.hdf5.shard_metadata import write_metadata
    from featcache.store.shard_reader import ShardReader

    compact(store, many=2)
    (shard,) = shards(store)
    with ShardFile(shard) as reader:
        head = reader.metadata
    rows = ShardReader(store.folder).read_all(shard.name, head.layout, len(NUMBERS))
    head.image_ids[:] = np.roll(head.image_ids, 1, axis=0)
    write_metadata(shard, shard.stat().st_size, head, rows)
    assert not np.array_equal(Store(store.folder).read(ids_of(*NUMBERS)), rows_of(*NUMBERS))
    (found,) = verify(store.folder)
    assert (found.name, found.rows) == (metadata_path(shard).name, 0)
    assert "does not describe its shard" in found.reason
    assert repair(store.folder) == [found]
    assert verify(store.folder) == []
    assert np.array_equal(Store(store.folder).read(ids_of(*NUMBERS)), rows_of(*NUMBERS))


# Manifests that are lost, or another store's


def test_a_lost_manifest_is_written_again_when_the_store_is_made(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    (store.folder / "MANIFEST.json").unlink()
    with pytest.raises(StoreError, match="featcache repair"):
        Store(store.folder)
    assert list(find_stores(store.folder.parent)) == []
    assert "`featcache repair" in caplog.text
    caplog.clear()
    # The width is the shards', whatever is asked for.
    with pytest.raises(StoreMismatch, match="width 6"):
        Store.create(store.folder, SPEC, WIDTH + 1, {"weights": "x"})
    assert "had lost its MANIFEST.json" in caplog.text
    again = Store.create(store.folder, SPEC, WIDTH)
    assert len(again) == len(NUMBERS)
    assert dict(again.metadata) == {"weights": "x"}
    assert len(read_manifest(store.folder).shards) == len(NUMBERS)


def test_a_new_store_has_lost_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Store.create(tmp_path / SPEC.folder, SPEC, WIDTH)
    assert caplog.text == ""


def strangers(folder: Path, numbers: tuple[int, ...]) -> Store:
    from dataclasses import replace

    return filled(Store.create(folder, replace(SPEC, weights="cd" * 32), WIDTH), numbers)


@pytest.mark.parametrize("sidecars", [True, False])
def test_repair_adopts_no_strangers_spec(store: Store, tmp_path: Path, sidecars: bool) -> None:
    """One that has more rows, and whose shards come first."""
    other = strangers(tmp_path / "stranger", tuple(range(100, 200)))
    (theirs,) = shards(other)
    os.rename(theirs, store.folder / theirs.name)
    os.rename(metadata_path(theirs), metadata_path(store.folder / theirs.name))
    (store.folder / "MANIFEST.json").unlink()
    if not sidecars:
        for path in store.folder.glob("*.head"):
            path.unlink()
    found = repair(store.folder)
    assert {damage.name for damage in found} == {"MANIFEST.json", theirs.name}
    again = Store(store.folder)
    assert (again.spec, len(again)) == (SPEC, len(NUMBERS))
    assert verify(store.folder) == []
    assert (store.folder / f"damaged-{theirs.name}.bad").exists()


def test_another_stores_manifest_is_damage(store: Store, tmp_path: Path) -> None:
    other = strangers(tmp_path / "stranger", (100,))
    (store.folder / "MANIFEST.json").write_bytes((other.folder / "MANIFEST.json").read_bytes())
    with pytest.raises(StoreCorrupt, match="key is in the folder's name"):
        Store(store.folder)
    assert [damage.name for damage in repair(store.folder)] == ["MANIFEST.json"]
    assert np.array_equal(Store(store.folder).read(ids_of(*NUMBERS)), rows_of(*NUMBERS))


def test_a_width_that_no_shard_has_is_the_manifests_damage(store: Store) -> None:
    signed(store.folder, width=WIDTH - 1)
    assert len(Store(store.folder)) == 0
    (found,) = verify(store.folder)
    assert (found.name, found.rows) == ("MANIFEST.json", 0)
    assert "width is 5, but the rows of its shards have 6" in found.reason
    repair(store.folder)
    assert verify(store.folder) == []
    assert np.array_equal(Store(store.folder).read(ids_of(*NUMBERS)), rows_of(*NUMBERS))


def test_a_store_that_is_being_removed_is_no_store(store: Store) -> None:
    store.folder.rename(store.folder.with_name(".gone-" + "0" * 32))
    assert list(find_stores(store.folder.parent)) == []


def test_a_manifest_of_a_newer_version_is_left_alone(store: Store) -> None:
    signed(store.folder, format_version=99)
    manifest = store.folder / "MANIFEST.json"
    text = manifest.read_text()
    with pytest.raises(StoreFormatError, match="Upgrade featcache"):
        repair(store.folder)
    assert manifest.read_text() == text
    assert len(shards(store)) == len(NUMBERS)


def test_a_damaged_version_number_is_no_newer_version(store: Store) -> None:
    manifest = store.folder / "MANIFEST.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 5'))
    with pytest.raises(StoreCorrupt, match="checksum"):
        Store(store.folder)
    assert [damage.name for damage in repair(store.folder)] == ["MANIFEST.json"]
    assert verify(store.folder) == []
    assert len(Store(store.folder)) == len(NUMBERS)
