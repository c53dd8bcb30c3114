"""The commands that maintain a cache in an object store."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from featcache._io.cache_dirs import cache_folder, stores_folder
from featcache.cli import main
from featcache.errors import StoreWriteError
from featcache.store.bucket.leases import mark_bucket_in_use
from featcache.store.bucket.manifests import store_prefix
from featcache.store.bucket.objects import Bucket
from featcache.store.bucket.push import push_rows
from featcache.store.bucket.store import find_bucket_store
from featcache.store.store import Store
from stores import HALF, SPEC, WIDTH, filled, ids_of

pytest.importorskip("fsspec", reason="fsspec is not installed")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A bucket with two stores."""
    url = f"file://{tmp_path}/bucket"
    for spec in (SPEC, HALF):
        store = Store.create(stores_folder(tmp_path / "a") / spec.folder, spec, WIDTH, {})
        push_rows(filled(store, (1, 2), (3,)), url, tmp_path / "a")
    return url


def run(url: str, *words: str) -> int:
    return main([*words, "--cache-dir", url])


def record(capsys: Capture) -> Any:
    return json.loads(capsys.readouterr().out)


def test_verify_and_repair(url: str, tmp_path: Path, capsys: Capture) -> None:
    assert run(url, "verify") == 0
    assert capsys.readouterr().out.count("intact") == 2
    assert run(url, "verify", SPEC.folder, "--json") == 0
    assert record(capsys) == []
    (bad,) = (tmp_path / "bucket" / store_prefix(SPEC.folder)).glob("*-2-*.h5")
    bad.write_bytes(b"")
    assert run(url, "verify", SPEC.folder) == 1
    assert f"damaged: {bad.name} (2 of 2 rows lost)" in capsys.readouterr().out
    assert run(url, "repair", SPEC.folder) == 0
    assert f"replaced: {bad.name}" in capsys.readouterr().out
    assert run(url, "verify", "--json") == 0
    assert record(capsys) == {SPEC.folder: [], HALF.folder: []}
    (tmp_path / "bucket" / "stores" / "other-0123456789abcdef").mkdir()
    assert run(url, "verify") == 1
    assert "has no store" in capsys.readouterr().out
    assert run(url, "verify", "nothing") == 2
    assert run(url, "repair", "tiny") == 2
    assert "2 stores match 'tiny'" in capsys.readouterr().err
    assert run(url, "verify", SPEC.folder, "--sample", "1", "--data", ".") == 2
    assert "works on a cache folder" in capsys.readouterr().err


def test_gc(url: str, tmp_path: Path, capsys: Capture) -> None:
    assert run(url, "gc") == 0
    assert capsys.readouterr().out.startswith("0 removals")
    for path in (tmp_path / "bucket").rglob("*"):
        os.utime(path, (1e9, 1e9))
    assert run(url, "gc", SPEC.folder, "--unused-days", "30", "--dry-run") == 0
    assert "would remove" in capsys.readouterr().out
    assert run(url, "gc", SPEC.folder, "--unused-days", "30") == 0
    out = capsys.readouterr().out
    assert f"removed: {SPEC.folder}, 3 rows" in out
    assert "2 stores of 0.0 MiB remain" in out
    assert run(url, "gc", "--grace-days", "0", "--json") == 0
    (removed,) = record(capsys)["removed"]
    assert removed["reason"] == "4 objects of shards that are not listed"
    change = tmp_path / "bucket" / store_prefix(SPEC.folder) / "manifest"
    for path in change.iterdir():
        path.write_bytes(b"damaged")
    (tmp_path / "bucket" / "stores" / "other-0123456789abcdef").mkdir()
    assert run(url, "gc") == 1
    out = capsys.readouterr().out
    assert f"kept: {SPEC.folder}" in out
    assert "1 store of" in out
    assert main(["gc", "--grace-days", "2", "--unused-days", "3"]) == 2
    assert "is for a cache in an object store" in capsys.readouterr().err


def test_rm(url: str, tmp_path: Path, capsys: Capture) -> None:
    assert run(url, "rm", HALF.folder) == 2
    assert "Confirm with --yes" in capsys.readouterr().err
    with mark_bucket_in_use(Bucket(url), HALF.folder):
        assert run(url, "rm", HALF.folder, "--yes") == 2
    assert "was not removed: it is in use" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bucket, "create", Mock(side_effect=StoreWriteError("Denied.")))
        assert run(url, "rm", HALF.folder, "--yes") == 2
    assert capsys.readouterr().err.endswith("was not removed: Denied.\n")
    assert run(url, "rm", HALF.folder, "--yes") == 0
    assert f"deleted: {HALF.folder}, 3 rows" in capsys.readouterr().out
    store = find_bucket_store(url, HALF.folder, tmp_path / "b")
    assert store is not None
    assert len(store) == 0


def test_copies_are_listed_separately(url: str, tmp_path: Path, capsys: Capture) -> None:
    store = find_bucket_store(url, SPEC.folder, cache_folder())
    assert store is not None
    assert main(["ls"]) == 0
    assert "Local copies" not in capsys.readouterr().out
    store.read(ids_of(1))
    assert main(["ls"]) == 0
    assert "Local copies of stores in object stores: 0.0 MiB" in capsys.readouterr().out
