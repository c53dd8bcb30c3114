"""Names of a store's own files; whatever else lies in its folder is the user's."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from featcache.errors import StoreError
from featcache.gc.collect import collect, remove_store
from featcache.store.lease import is_in_use
from featcache.store.own_files import is_own
from featcache.store.store import Store
from stores import SPEC, WIDTH, filled, shards

_LONG_AGO = (1e9, 1e9)
_UUID = "0a" * 16


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "stores" / SPEC.folder
    filled(Store.create(folder, SPEC, WIDTH), (1, 2), (3,)).close()
    return folder


@pytest.mark.parametrize("name", [".use-case.md", ".tmp-notes", "damaged-photos.bad"])
@pytest.mark.parametrize("tool", ["gc", "rm", "is_in_use"])
def test_names_that_only_begin_like_a_stores_are_the_users(
    store: Path, name: str, tool: str
) -> None:
    (store / name).write_text("mine")
    os.utime(store / name, _LONG_AGO)
    with contextlib.suppress(StoreError):
        if tool == "gc":
            collect(store.parents[1], unused_days=0)
        elif tool == "rm":
            remove_store(store)
        else:
            is_in_use(store)
    assert (store / name).read_text() == "mine"


def test_a_users_folder_that_only_begins_like_a_temporary_one_is_kept(store: Path) -> None:
    (store / ".tmp-notes").mkdir()
    (store / ".tmp-notes" / "mine").write_text("mine")
    with pytest.raises(StoreError, match=r"\.tmp-notes"):
        remove_store(store)
    assert (store / ".tmp-notes" / "mine").exists()


def test_all_names_that_a_store_writes_are_its_own(store: Path) -> None:
    shard = shards(Store(store))[0].name
    listed = f"{'0' * 8}-000001-{'0' * 64}.quarantine.json"
    committed = ["MANIFEST.json", shard, f"{shard}.head", listed]
    aside = [f"damaged-{name}{end}" for name in committed for end in (".bad", ".2.bad", ".10.bad")]
    for name in [*committed, *aside, ".lease", f".use-{_UUID}", f".tmp-{_UUID}", ".DS_Store"]:
        assert is_own(name), name


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json", ".lease.txt", f".use-{_UUID}.md", f".use-{_UUID.upper()}", ".use-1",
        f".tmp-{_UUID}0", f".tmp-{_UUID}\n", "damaged-.bad", "damaged-.2.bad",
        "damaged-MANIFEST.json.1x.bad", "damaged-MANIFEST.json.bad.txt", "damaged-.lease.bad",
        "MANIFEST.json.bad", "results.h5", "results.h5.head", "mine.quarantine.json",
    ],
)  # fmt: skip
def test_similar_names_are_not(name: str) -> None:
    assert not is_own(name)
