"""Names that come from files never lead out of the cache folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from featcache._io.names import is_name
from featcache.backbones.spec import BackboneSpec, backbone_entries
from featcache.datasets.oxford_pets import _listed
from featcache.datasets.stanford_dogs import _parts
from featcache.errors import DatasetError, InvalidRequest, StoreCorrupt, StoreMismatch
from featcache.store.maintenance import repair, verify
from featcache.store.manifest import read_manifest
from featcache.store.pack import pack, unpack
from featcache.store.store import Store
from stores import SPEC, WIDTH, filled, signed

WRONG: list[Any] = [
    "../../../outside", "/absolute", "..", ".", "", ".hidden", "a/b", "a\\b", "a..b", "-x", "a b",
    "nul\0", "line\n", "\x1b[31mred", "\u202ename", "caf\u00e9", "\udc80", "x" * 101, "x" * 300,
    None, 7, ["a"],
]  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_spec_refuses_what_is_no_name(name: Any) -> None:
    components = {**SPEC.components(), "backbone": name}
    with pytest.raises(InvalidRequest) as told:
        BackboneSpec.from_components(components)
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 400
    assert not is_name(name)


def test_every_backbone_of_the_table_and_own_ones_have_names() -> None:
    for name in [*backbone_entries(), "custom-0123456789abcdef", "x" * 100]:
        assert is_name(name)
        assert len(BackboneSpec(name, *list(SPEC.components().values())[1:]).folder) < 255


@pytest.mark.parametrize("field", [name for name in SPEC.components() if name != "backbone"])
@pytest.mark.parametrize("value", [None, {}, [], 1.5, True, [1], ["a", "b"]])
def test_a_spec_refuses_fields_of_a_wrong_type(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest):
        BackboneSpec.from_components({**SPEC.components(), field: value})


@pytest.mark.parametrize("listed", ["../../other/file.h5", "/etc/passwd", "a.h5", "x\0.h5"])
def test_a_manifest_names_no_file_outside_its_store(tmp_path: Path, listed: str) -> None:
    store = filled(Store.create(tmp_path / "stores" / "store", SPEC, WIDTH), (1,))
    outside = tmp_path / "other" / "file.h5"
    outside.parent.mkdir()
    outside.write_bytes(b"somebody's")
    signed(store.folder, shards={listed: 5})
    with pytest.raises(StoreCorrupt, match="not that of a shard"):
        read_manifest(store.folder)
    repair(store.folder)
    assert outside.read_bytes() == b"somebody's"
    assert verify(store.folder) == []
    assert len(Store(store.folder)) == 1


@pytest.mark.parametrize("name", [name for name in WRONG if isinstance(name, str)])
def test_a_pack_is_not_unpacked_outside_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The spec of a pack is text that anybody can write."""
    store = filled(Store.create(tmp_path / "a" / "store", SPEC, WIDTH), (1,))
    hostile = {**SPEC.components(), "backbone": name}
    monkeypatch.setattr(BackboneSpec, "components", lambda _: hostile)
    pack(store, tmp_path / "p.h5")
    monkeypatch.undo()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreMismatch, match="The backbone of a spec cannot be"):
        unpack(tmp_path / "p.h5", tmp_path / "deep" / "er" / "cache")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../n-a", "n-a\0", "n-" + "a" * 300, "n-\x1b[1m", ".n-a"])
def test_lists_of_data_sets_name_no_file_outside(tmp_path: Path, name: str) -> None:
    for text in (f"{name}/photo.jpg", f"n-breed/{name}"):
        with pytest.raises(DatasetError):
            _parts(text)
    (tmp_path / "list.txt").write_text(f"{name}_1 1 1 1\n")
    with pytest.raises(DatasetError):
        _listed(tmp_path / "list.txt")


@pytest.mark.parametrize("name", ["../x", "a\0b", "n" * 300, "\U00020000" * 90, "\udc80" * 300])
def test_results_are_written_under_a_name_of_any_contender(tmp_path: Path, name: str) -> None:
    from bench.evaluation.results import _file_name

    file = tmp_path / f"per_class_{_file_name(name)}.csv"
    file.write_text("x")
    assert list(tmp_path.iterdir()) == [file]
    assert _file_name(name + "2") != _file_name(name + "3")
