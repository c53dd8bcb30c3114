"""What `verify` finds beside other writers, without a manifest, and in shards of other stores."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache.backbones.spec import BackboneSpec
from featcache.errors import StoreError
from featcache.hdf5.shard_file import encode_shard
from featcache.hdf5.shard_metadata import METADATA_SUFFIX, write_metadata
from featcache.hdf5.shard_name import make_shard_name
from featcache.store import survey as survey_module
from featcache.store.maintenance import repair, verify
from featcache.store.row_index import pack_ids
from featcache.store.store import Store
from refusals import refuse
from stores import SPEC, WIDTH, filled, ids_of, rows_of, shards


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    filled(Store.create(folder, SPEC, WIDTH), (1, 2), (3,)).close()
    return folder


def has(folder: Path, *numbers: int) -> bool:
    store = Store(folder)
    same = np.array_equal(store.read(ids_of(*numbers)), rows_of(*numbers))
    return same and sorted(store.ids()) == sorted(ids_of(*numbers))


def from_another_store(store: Path, spec: BackboneSpec, width: int) -> Path:
    """Copy a shard with one row of another store into a store."""
    other = Store.create(store.with_name("other"), spec, width)
    other.append(np.ones((1, width), np.float32), ids_of(9))
    (shard,) = shards(other)
    for path in (shard, shard.with_name(shard.name + METADATA_SUFFIX)):
        shutil.copy(path, store)
    return store / shard.name


# Beside other processes


def test_a_store_that_changes_during_every_attempt_is_no_damage(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, added = survey_module.inspect_with_sidecar, list[int]()

    def beside_a_writer(shard: Path, spec: Any) -> Any:
        found = real(shard, spec)
        added.append(100 + len(added))
        writer = Store(store)
        writer.append(rows_of(added[-1]), ids_of(added[-1]))
        writer.write_manifest()
        return found

    monkeypatch.setattr(survey_module, "MAX_LISTINGS", 3)
    monkeypatch.setattr(survey_module, "inspect_with_sidecar", beside_a_writer)
    with pytest.raises(StoreError, match="during each of 3 attempts"):
        verify(store)
    monkeypatch.undo()
    assert verify(store) == []
    assert has(store, 1, 2, 3, *added)


def test_a_quarantine_list_that_the_disk_cannot_read_is_an_error_and_not_damage(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(store).add_to_quarantine({ids_of(8)[0]: "it is no image"})
    (path,) = store.glob("*.quarantine.json")
    refuse(monkeypatch, os, "open", errno.EIO, concerns=lambda file, *_: file == path)
    for check in (verify, repair):
        with pytest.raises(StoreError, match=f"Input/output error.*{path.name}"):
            check(store)
    monkeypatch.undo()
    assert verify(store) == []
    assert Store(store).quarantined == {ids_of(8)[0]: "it is no image"}


# Shards that are none of this store


def test_a_link_to_nothing_under_the_name_of_a_shard_is_damage(store: Path) -> None:
    shard = next(path for path in shards(Store(store)) if "-2-" in path.name)
    shard.unlink()
    shard.symlink_to("nothing")
    assert [(d.name, d.reason) for d in verify(store)] == [
        (shard.name, "it is a link, which is not followed")
    ]
    repair(store)
    assert verify(store) == []
    assert has(store, 3)


def test_a_shard_of_another_spec_is_found_though_manifest_and_sidecars_are_lost(
    store: Path,
) -> None:
    foreign = from_another_store(store, replace(SPEC, layer="other"), WIDTH)
    for path in [store / "MANIFEST.json", *store.glob(f"*{METADATA_SUFFIX}")]:
        path.unlink()
    assert [(d.name, d.reason) for d in verify(store)] == [
        ("MANIFEST.json", "it is missing"), (foreign.name, "its spec is not the store's"),
    ]  # fmt: skip
    repair(store)
    assert verify(store) == []
    assert has(store, 1, 2, 3)


def test_a_shard_of_another_width_is_damage(store: Path) -> None:
    foreign = from_another_store(store, SPEC, WIDTH + 1)
    assert [(d.name, d.rows, d.reason) for d in verify(store)] == [
        (foreign.name, 1, f"its rows have width {WIDTH + 1}, not {WIDTH}")
    ]
    repair(store)
    assert verify(store) == []
    assert has(store, 1, 2, 3)


def test_a_senseless_spec_of_most_rows_does_not_hide_the_stores_own(store: Path) -> None:
    rows, ids = rows_of(4, 5, 6, 7), pack_ids(ids_of(4, 5, 6, 7))
    data, metadata = encode_shard(rows, ids, np.zeros(4, np.int32), {}, {})
    shard = store / make_shard_name("0" * 8, 1, 4, hashlib.sha256(data).hexdigest())
    shard.write_bytes(data)
    write_metadata(shard, len(data), metadata, rows)
    (store / "MANIFEST.json").unlink()
    assert {d.name for d in verify(store)} == {"MANIFEST.json", shard.name}
    repair(store)
    assert verify(store) == []
    assert has(store, 1, 2, 3)
