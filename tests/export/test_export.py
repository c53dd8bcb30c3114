"""Exported files hold the rows, labels and columns, and open with the usual tools."""

from __future__ import annotations

import csv
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featcache
from conftest import make_tiny_model, photo
from featcache import extract, load_dataset
from featcache.cli import main
from featcache.errors import InvalidRequest, MissingExtra, StoreWriteError
from featcache.export import rows as export_rows

FORMATS = ["npy", "npz", "parquet", "csv", "hf"]
UGLY = "=cmd|' /C calc'!A0"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> featcache.Features:
    """Twelve rows: five photos, one of them twice, and their mirror images."""
    root = tmp_path_factory.mktemp("photos")
    paths = [str(photo(root / f"{i},\u2603.png", i)) for i in range(5)]
    data = featcache.Dataset(
        paths=[*paths, paths[0]],
        labels=["b", UGLY, None, "b", "ü\n", "b"],
        split=["train", "train", "test", "test", "train", "train"],
        attributes={
            "age": [1, 2, 3, 4, 5, 6], "weight": [0.5, None, 1, 2, 3, 4],
            "note": ["x", None, "@y", "-1.5", "z", ""], "good": [True, False] * 3,
        },  # type: ignore[dict-item]
    )  # fmt: skip
    cache = tmp_path_factory.mktemp("cache")
    return extract(
        make_tiny_model(), data, views=2, augmentation="flip", cache_dir=cache, progress=False,
        on_conflict="keep",
    )  # fmt: skip


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_rows, "_MAX_BLOCK_ROWS", 5)


def target(folder: Path, format: str) -> Path:
    return folder / ("data" if format == "hf" else f"data.{format}")


def export(features: featcache.Features, folder: Path, format: str, **options: Any) -> Path:
    return features.export(target(folder, format), format, **options)[0]  # type: ignore[arg-type]


def test_numpy_files_hold_all_rows_without_pickle(
    features: featcache.Features, tmp_path: Path, small_blocks: None
) -> None:
    found = np.load(export(features, tmp_path, "npz"), allow_pickle=False)
    assert np.array_equal(found["X"], features.X)
    assert np.array_equal(found["y"], np.asarray(features.y), equal_nan=True)
    assert found["classes"].tolist() == features.classes
    assert found["paths"].tolist() == features.paths
    assert found["ids"].tolist() == features.ids
    assert found["views"].tolist() == features.views.tolist()
    assert found["split"].tolist() == features.parts
    assert found["age"].dtype == np.int64
    assert found["good"].dtype == np.bool_
    assert np.isnan(found["weight"]).sum() == 2
    assert found["note"].tolist()[:3] == ["x", "", "@y"]
    assert f"featcache_key={features.spec.key}" in found["metadata"].tolist()
    files = features.export(tmp_path / "m.npy")
    assert [file.name for file in files] == ["m.npy", "m.rows.csv"]
    assert np.array_equal(np.load(files[0], mmap_mode="r"), features.X)
    with open(files[1], newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == features.paths


def test_a_csv_file_holds_all_rows_and_no_formula(
    features: featcache.Features, tmp_path: Path, small_blocks: None
) -> None:
    with open(export(features, tmp_path, "csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = np.array([[row[f"f{i}"] for i in range(8)] for row in rows], np.float32)
    assert np.array_equal(found, features.X)
    assert [row["label"] for row in rows[:5]] == ["b", f"'{UGLY}", "", "b", "ü\\n"]
    assert [row["note"] for row in rows[:5]] == ["x", "", "'@y", "-1.5", "z"]
    assert [row["view"] for row in rows] == ["0"] * 6 + ["1"] * 6
    assert not any(cell.startswith(("=", "@", "+")) for row in rows for cell in row.values())


def test_a_parquet_file_holds_all_rows_types_and_the_key(
    features: featcache.Features, tmp_path: Path, small_blocks: None
) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    file = pq.ParquetFile(export(features, tmp_path, "parquet"))
    assert file.num_row_groups == 3
    table = file.read()
    types = {name: str(table.schema.field(name).type) for name in table.schema.names}
    assert types == {
        "path": "string", "id": "string", "view": "int64", "label": "string", "split": "string",
        "age": "int64", "weight": "double", "note": "string", "good": "bool",
        "embedding": "fixed_size_list<element: float>[8]",
    }  # fmt: skip
    assert np.array_equal(np.stack(table["embedding"].to_pylist()), features.X)
    assert table["label"].to_pylist() == features.labels
    assert table["path"].to_pylist() == features.paths
    metadata = table.schema.metadata
    assert metadata[b"featcache_key"].decode() == features.spec.key
    assert json.loads(metadata[b"featcache_spec"]) == features.spec.components()


def test_a_folder_for_hugging_face_has_class_labels(
    features: featcache.Features, tmp_path: Path, small_blocks: None
) -> None:
    datasets = pytest.importorskip("datasets")
    was_enabled = datasets.is_progress_bar_enabled()
    found = datasets.load_from_disk(str(export(features, tmp_path, "hf")))
    assert found.features["label"].names == features.classes
    assert found["label"][:5] == [1, 0, None, 1, 2]
    assert np.array_equal(np.array(found["embedding"]), features.X)
    assert found["path"][:] == features.paths
    assert features.spec.key in found.info.description
    assert datasets.is_progress_bar_enabled() == was_enabled
    assert sorted(os.listdir(tmp_path)) == ["data"]
    assert not (tmp_path / "data" / "rows.arrow").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_overwritten_unless_asked(
    features: featcache.Features, tmp_path: Path, format: str
) -> None:
    export(features[:3], tmp_path, format)
    with pytest.raises(InvalidRequest, match=r"exists and is not overwritten.*overwrite=True"):
        export(features, tmp_path, format)
    before = sorted(os.listdir(tmp_path))
    export(features, tmp_path, format, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("format", FORMATS)
def test_a_failed_export_leaves_what_was_there(
    features: featcache.Features, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(features[:3], tmp_path, format)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def refuse(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_rows.ExportedRows, "read", refuse)
    with pytest.raises(StoreWriteError, match="the disk is full"):
        export(features, tmp_path, format, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_with_other_files_is_not_replaced(
    features: featcache.Features, tmp_path: Path
) -> None:
    export(features, tmp_path, "hf")
    (tmp_path / "data" / "notes.txt").write_text("mine")
    with pytest.raises(InvalidRequest, match=r"holds 'notes.txt'"):
        export(features, tmp_path, "hf", overwrite=True)
    (tmp_path / "data.npz").mkdir()
    with pytest.raises(InvalidRequest, match="is a folder; name a file"):
        export(features, tmp_path, "npz", overwrite=True)


@pytest.mark.parametrize(("path", "format"), [("x", None), ("x.h5", None), ("x.csv", "npy")])
def test_the_ending_says_the_format(
    features: featcache.Features, tmp_path: Path, path: str, format: Any
) -> None:
    with pytest.raises(InvalidRequest, match=r"[Ee]nd"):
        features.export(tmp_path / path, format)
    with pytest.raises(InvalidRequest, match="format"):
        features.export(tmp_path / path, "h5")  # type: ignore[arg-type]


@pytest.mark.parametrize("format", FORMATS)
def test_no_rows_give_a_file_that_opens_or_an_error(
    features: featcache.Features, tmp_path: Path, format: str
) -> None:
    if format == "hf":
        with pytest.raises(InvalidRequest, match="no rows to export"):
            export(features[[]], tmp_path, format)
        return
    path = export(features[[]], tmp_path, format)
    if format in ("npy", "npz"):
        found: Any = np.load(path)
        assert (found if format == "npy" else found["X"]).shape == (0, 8)
    with pytest.raises(InvalidRequest, match="null character"):
        features.export(f"a\0.{format}")


def test_odd_names_and_labels_are_kept_apart(features: featcache.Features, tmp_path: Path) -> None:
    few = features[:3]
    odd = replace(few, paths=["a\udcff.png", "-b.png", "c\td.png"])
    with open(export(odd, tmp_path, "csv"), newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [
            "a\\xff.png", "'-b.png", "c\\td.png"
        ]  # fmt: skip
    found = np.load(export(odd, tmp_path, "npz"))
    assert found["paths"].tolist() == ["a\\xff.png", "-b.png", "c\td.png"]
    same = replace(few, classes=["a\udcff", "a\\xff", "c"])
    with pytest.raises(InvalidRequest, match="Two classes would be written as the same text"):
        export(same, tmp_path / "same", "npz")
    for name, format in {"path": "csv", "f0": "csv", "embedding": "parquet", "X": "npz"}.items():
        named = replace(few, attributes={name: np.arange(3)})
        with pytest.raises(InvalidRequest, match="rename"):
            export(named, tmp_path / "named", format)
    named = replace(few, attributes={"../a/b": np.arange(3), "c:d": np.arange(3)})
    with zipfile.ZipFile(export(named, tmp_path / "zip", "npz")) as archive:
        assert {"_a_b.npy", "c_d.npy"} <= set(archive.namelist())
    named = replace(few, attributes={"a/b": np.arange(3), "a:b": np.arange(3)})
    with pytest.raises(InvalidRequest, match="Two columns would be named 'a_b'"):
        export(named, tmp_path / "zip2", "npz")


def test_a_data_set_of_boxes_can_be_read_again(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png", 0)
    table = tmp_path / "boxes.csv"
    table.write_text(f"path,label,left,top,right,bottom\n{path},x,0,0,9,9\n{path},y,5,5,20,20\n")
    features = extract(make_tiny_model(), load_dataset(table, crop="box"))
    again = load_dataset(features.export(tmp_path / "out.npy")[1], crop="box")
    assert again.boxes == features.boxes
    assert again.labels == features.labels
    assert len(np.load(export(features, tmp_path, "npz"))["left"]) == 2


def test_times_are_text_and_the_table_of_the_data_is_kept(
    features: featcache.Features, tmp_path: Path
) -> None:
    times = np.array(["2024-05-01T10:00", "NaT", "2024-05-02"], "datetime64[ns]")
    few = replace(features[:3], attributes={"taken": times})
    (tmp_path / "data.csv").write_text("the table that the photos come from")
    export(few, tmp_path, "npy", overwrite=True)
    assert (tmp_path / "data.csv").read_text() == "the table that the photos come from"
    found = np.load(export(few, tmp_path, "npz"))["taken"].tolist()
    assert found == ["2024-05-01T10:00:00.000000000", "", "2024-05-02T00:00:00.000000000"]


def test_labels_keep_their_type(features: featcache.Features, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    few = replace(features[:2], y=np.array([0, 1]), classes=[3, 7])
    found = pq.read_table(export(few, tmp_path, "parquet"))
    assert found["label"].to_pylist() == [3, 7]
    assert np.load(export(few, tmp_path, "npz"))["classes"].tolist() == [3, 7]
    bare = replace(few, y=None, classes=None)
    assert "y" not in np.load(export(bare, tmp_path / "bare", "npz"))


@pytest.mark.parametrize(("format", "package"), [("parquet", "pyarrow"), ("hf", "datasets")])
def test_a_missing_package_is_named_with_its_extra(
    features: featcache.Features, tmp_path: Path, format: str, package: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install -e '\.\[(parquet|datasets)\]'"):
        export(features, tmp_path, format)


def test_the_command_extracts_and_exports(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "pocket", str(photos), "--out", str(tmp_path / "x.npz")]
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["files"] == [str(tmp_path / "x.npz")]
    assert (record["rows"], record["width"]) == (12, 256)
    assert np.load(tmp_path / "x.npz")["X"].shape == (12, 256)
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--quiet"]) == 0
    assert "12 rows" in capsys.readouterr().out
    assert main(["export", "pocket", str(photos), "--out", str(tmp_path / "x")]) == 2
    assert "--format hf" in capsys.readouterr().err
