"""Files that a store did not write: links, pipes, numbers that cannot be, and the user's own."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from featcache._io import file_state
from featcache._io.atomic import read_memo, write_memo
from featcache.cli import main
from featcache.data import file_index
from featcache.errors import InvalidRequest, StoreCorrupt, StoreError
from featcache.store import maintenance
from featcache.store import survey as survey_module
from featcache.store.maintenance import compact, repair, verify
from featcache.store.manifest import read_manifest
from featcache.store.pack import pack
from featcache.store.removal import remove
from featcache.store.store import Store
from featcache.store.store_names import find_store
from stores import SPEC, WIDTH, filled, ids_of, signed


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    filled(Store.create(tmp_path / "cache" / "stores" / SPEC.folder, SPEC, WIDTH), (1, 2), (3,))
    return tmp_path / "cache"


def home(cache: Path) -> Path:
    return cache / "stores" / SPEC.folder


def as_pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def as_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("plant", [as_pipe, as_link])
@pytest.mark.parametrize("kind", ["sidecar", "quarantine", "manifest", "shard"])
def test_pipes_and_links_are_neither_waited_for_nor_followed(
    cache: Path, tmp_path: Path, kind: str, plant: Any
) -> None:
    folder = home(cache)
    shard = sorted(folder.glob("*.h5"))[0]
    path = {
        "sidecar": shard.with_name(shard.name + ".head"),
        "quarantine": folder / f"00000000-000001-{'a' * 64}.quarantine.json",
        "manifest": folder / "MANIFEST.json",
        "shard": shard,
    }[kind]
    outside = tmp_path / "outside"
    if path.exists():
        path.rename(outside)  # the link leads to the very bytes
    else:
        outside.write_text("{}")
    before = outside.stat().st_atime_ns, outside.read_bytes()
    os.utime(outside, ns=(1, 1))
    plant(path, outside)
    named = {damage.name for damage in verify(folder)}
    assert path.name in named
    if kind not in ("manifest", "shard"):
        assert len(Store(folder)) == 3
    repair(folder)
    assert verify(folder) == []
    assert len(Store(folder)) == (3 if kind != "shard" else 3 - int(shard.name.split("-")[2]))
    assert outside.read_bytes() == before[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"width": float("inf")}, {"width": "6"}, {"width": True}, {"width": 6.0}, {"width": 0},
        {"width": 10**30}, {"generation": float("inf")}, {"generation": -1},
        {"spec": {**SPEC.components(), "image_size": [10**300, 1]}},
        {"spec": {**SPEC.components(), "image_size": [-1, 1]}},
        {"spec": {**SPEC.components(), "layer": "x" * 10**6}},
    ],
    ids=range(11),
)  # fmt: skip
def test_numbers_that_no_store_has_are_refused_though_the_checksum_fits(
    cache: Path, changes: dict[str, Any]
) -> None:
    signed(home(cache), **changes)
    with pytest.raises(StoreCorrupt, match="cannot be used"):
        read_manifest(home(cache))
    repair(home(cache))
    assert len(Store(home(cache))) == 3


@pytest.mark.parametrize(
    "body", [b"[]", b'{"quarantine": []}', b'{"quarantine": ' + b"[" * 10**5 + b"]" * 10**5 + b"}"]
)
def test_a_quarantine_list_that_is_none_is_passed_over(cache: Path, body: bytes) -> None:
    name = f"00000000-000001-{hashlib.sha256(body).hexdigest()}.quarantine.json"
    (home(cache) / name).write_bytes(body)
    assert Store(home(cache)).quarantined == {}


def test_a_remembered_value_is_not_read_through_a_link(tmp_path: Path) -> None:
    write_memo(tmp_path / "kept.json", {"a": 1}, "a value")
    (tmp_path / "link.json").symlink_to("kept.json")
    assert read_memo(tmp_path / "kept.json") == {"a": 1}
    assert read_memo(tmp_path / "link.json") is None


# Files of the user's own


def test_a_folder_of_other_hdf5_files_is_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "results.h5").write_bytes(b"my own")
    for command in (verify, repair):
        with pytest.raises(StoreError, match="is not a store"):
            command(mine)
    monkeypatch.chdir(tmp_path)
    for command in (["repair", "mine"], ["verify", "./mine"], ["rm", "mine", "--yes"]):
        assert main([*command, "--cache-dir", str(cache)]) == 2
    assert [path.name for path in mine.iterdir()] == ["results.h5"]


def test_a_name_means_a_store_of_the_cache_before_a_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    filled(Store.create(tmp_path / "tiny", SPEC, WIDTH), (9,))
    assert find_store("tiny", cache / "stores") == home(cache)
    assert find_store("./tiny", cache / "stores") == tmp_path / "tiny"
    filled(Store.create(tmp_path / "other", SPEC, WIDTH), (9,))
    assert find_store("other", cache / "stores") == tmp_path / "other"


def test_repair_leaves_files_alone_that_no_store_writes(cache: Path) -> None:
    folder = home(cache)
    (folder / "results.h5").write_bytes(b"my own")
    shard = sorted(folder.glob("*.h5"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    repair(folder)
    assert (folder / "results.h5").read_bytes() == b"my own"
    assert [damage.name for damage in verify(folder)] == ["results.h5"]


def test_a_manifest_without_shards_is_set_aside_and_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "MANIFEST.json").write_text('{"mine": 1}')
    repair(tmp_path)
    assert (tmp_path / "damaged-MANIFEST.json.bad").read_text() == '{"mine": 1}'


def test_a_store_with_other_files_in_it_is_not_removed(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thesis = home(cache) / "thesis" / "chapter.tex"
    thesis.parent.mkdir()
    thesis.write_text("x")
    kept = remove(home(cache))
    assert kept is not None
    assert "'thesis'" in kept.reason
    assert main(["rm", "tiny", "--yes", "--cache-dir", str(cache)]) == 2
    assert main(["gc", "--keep", "0", "--cache-dir", str(cache)]) == 0
    assert "thesis" in capsys.readouterr().out
    assert thesis.exists()
    assert Store(home(cache)).contains(ids_of(1, 2, 3)).all()


def test_ids_of_an_index_that_are_none_are_computed_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_state, "_RACY_NS", 0)
    time.sleep(0.02)
    identify = file_index.identify
    paths = sorted(str(path) for path in photos.glob("*/*.png"))
    identify(paths, "root", tmp_path)
    (file,) = tmp_path.glob("*.json")
    kept = read_memo(file)
    for value in ([1], 5, None, "AB" * 32, "a" * 65):
        entries = {path: [*_state(path), value] for path in paths}
        write_memo(file, {**kept, "entries": entries}, "the file index")
        found = identify(paths, "root", tmp_path)
        assert [one.image_id for one in found] == [
            hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths
        ]


def _state(path: str) -> list[int]:
    from featcache._io.file_state import file_state

    return list(file_state(os.stat(path)))


def test_a_pack_of_a_spec_that_cannot_be_is_refused(tmp_path: Path) -> None:
    from featcache.backbones.spec import BackboneSpec

    for changes in ({"image_size": [-1, 8]}, {"layer": "x" * 10**6}, {"decode_version": -1}):
        with pytest.raises(InvalidRequest):
            BackboneSpec.from_components({**SPEC.components(), **changes})
    assert json.dumps(SPEC.components())


# Between a look and what follows it


def test_a_holder_that_lost_its_lease_removes_no_further_shard(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(home(cache))
    shards = set(store.shard_names)
    true = maintenance.metadata_path

    def taken_over(shard: Path) -> Path:
        if shard.name in shards:  # another process takes the lease over between two removals
            (home(cache) / ".lease").unlink(missing_ok=True)
            (home(cache) / ".lease").write_text("{}")
        return true(shard)

    monkeypatch.setattr(maintenance, "metadata_path", taken_over)
    assert compact(store, many=2) == 0
    assert len(shards & {path.name for path in home(cache).glob("*.h5")}) == 1
    assert Store(home(cache)).contains(ids_of(1, 2, 3)).all()


def test_a_store_that_is_removed_while_it_is_checked_is_not_damaged(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = survey_module.find_shards

    def removed(folder: Path) -> Any:
        folder.rename(folder.with_name(".gone"))
        return true(folder)

    (home(cache) / "MANIFEST.json").unlink()
    monkeypatch.setattr(survey_module, "find_shards", removed)
    with pytest.raises(StoreError, match=r"any more|no folder"):
        verify(home(cache))


def test_a_pack_replaces_files_alone_and_none_of_a_store(cache: Path, tmp_path: Path) -> None:
    store = Store(home(cache))
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", home(cache) / "MANIFEST.json", home(cache) / "new.h5"):
        with pytest.raises(StoreError):
            pack(store, target)
    assert verify(home(cache)) == []
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(
    "arguments",
    [
        ["gc", "--unused-days", "nan"], ["gc", "--unused-days", "inf"], ["gc", "--keep", "9" * 400],
        ["extract", "pocket", "--image-size", "9" * 5000],
        ["extract", "pocket", "--weights", "random:" + "9" * 5000],
        ["extract", "pocket", "--workers", "100000"], ["extract", "pocket", "--batch-size", "0"],
        ["predict", "x", "y", "--top", "9" * 5000], ["rm", "."], ["rm", "..", "--yes"],
    ],
    ids=range(10),
)  # fmt: skip
def test_numbers_and_names_that_make_no_sense_are_one_error(
    cache: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--cache-dir", str(cache)]) == 2
    assert "Traceback" not in capsys.readouterr().err
