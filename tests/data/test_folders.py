"""Split folders are read in one way only, and files that are left out are counted and named."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.splits import make_split
from conftest import photo
from featcache import extract, load_dataset
from featcache.cli.main import main
from featcache.data.folder import split_of
from featcache.errors import DatasetError


def layout(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        photo(root / name, number)
    return root


def labelled(*parts: str) -> list[str]:
    return [f"{p}/{c}/{i}.png" for p in parts for c in ("cat", "dog") for i in range(3)]


def test_a_flat_test_folder_is_an_unlabelled_part(
    tmp_path: Path, tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    root = layout(tmp_path, *labelled("train"), "test/1.png", "test/2.png")
    features = extract(tiny_model, root)
    assert features.classes == ["cat", "dog"]
    assert features.summary.unlabelled == 2
    train, test = features.split()
    assert set(train.labels or []) == {"cat", "dog"}
    assert (len(test), test.labels) == (2, [None, None])
    with pytest.raises(DatasetError, match="no labels, so nothing can be scored"):
        make_split(load_dataset(root))
    assert len(make_split(load_dataset(root), 0.5).test) > 0


@pytest.mark.parametrize("part", ["test/images", "test/test", "val/unknown", "test/a/b"])
def test_a_part_without_a_folder_of_a_training_class_is_unlabelled(
    tmp_path: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = load_dataset(layout(tmp_path, *labelled("train"), f"{part}/1.png"))
    assert dataset.classes == ["cat", "dog"]
    assert dataset.unlabelled == 1
    assert "is a training class" in caplog.text
    assert "so its images are unlabelled" in caplog.text
    assert "cannot be learnt" not in caplog.text


@pytest.mark.parametrize(
    "names",
    [
        ["train/cat.0.jpg", "train/dog.0.jpg", "test/1.jpg"],
        ["train/cat.0.jpg", "train/dog.0.jpg", "test1/1.jpg"],
        ["train/cat.0.jpg", "train/dog.0.jpg"],
        ["train/cat.0.jpg", *labelled("test")],
        ["test/1.png", "val/1.png"],
    ],
)
def test_flat_split_folders_are_an_error_that_shows_the_layout(
    tmp_path: Path, names: list[str]
) -> None:
    with pytest.raises(DatasetError, match=r"without class folders.* train/<class>/\.\.\."):
        load_dataset(layout(tmp_path, *names))


def test_a_flat_test_folder_alone_is_a_part_without_classes(tmp_path: Path) -> None:
    dataset = load_dataset(layout(tmp_path, "test/1.png", "test/2.png"))
    assert (dataset.labels, list(dataset.split or [])) == (None, ["test", "test"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([*labelled("train"), "train/loose.png"], "images beside class folders"),
        (["cat/1.png", "dog/1.png", "test/1.png"], "'test' beside 'cat', 'dog': a part"),
        ([*labelled("train"), "extra/1.png"], "'train' beside 'extra'"),
        (["training_set/training_set/cat/1.png"], "split folders within split folders"),
        (["data/train/cat/1.png", "data/test/cat/1.png"], "one folder, 'data'"),
        (["images/cat/1.png", "images/dog/2.png"], "pass .*images instead"),
        (["train/images/cat/1.png", "test/images/dog/2.png"], "one level up, out of 'images'"),
        (["images/c/1.png", "images/d/2.png", "masks/c/3.png"], "'c' in 'images', 'masks'"),
        (["fold0/c/1.png", "fold0/d/2.png", "fold1/c/3.png"], "which of them are the classes"),
        ([*labelled("train"), "test/images/cat/1.png"], "one level too deep, below 'images'"),
        (["train/a/c/1.png", "train/b/c/2.png", "test/a/d/2.png"], "'c' in 'a', 'b'"),
    ],
)
def test_layouts_with_two_meanings_are_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset(layout(tmp_path, *names))


def test_folders_below_a_class_belong_to_it(tmp_path: Path) -> None:
    names = ["cat/spring/1.png", "cat/spring/2/2.png", "dog/autumn/3.png", "owl/4.png"]
    assert load_dataset(layout(tmp_path / "a", *names)).classes == ["cat", "dog", "owl"]
    names = ["cat/1.png", "cat/more/2.png", "dog/3.png", "dog/more/4.png"]
    assert load_dataset(layout(tmp_path / "b", *names)).classes == ["cat", "dog"]


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    assert load_dataset(layout(tmp_path, "train/1.png", "bus/1.png")).classes == ["bus", "train"]


def test_usual_names_of_parts_are_known(tmp_path: Path) -> None:
    dataset = load_dataset(layout(tmp_path, *labelled("training_set", "Test_set", "valid")))
    assert set(dataset.split or []) == {"train", "test", "validation"}
    assert dataset.classes == ["cat", "dog"]
    assert [split_of(n) for n in ("tests", "trainer", "valley", "development", "devil")] == [
        None
    ] * 5


def test_classes_without_training_images_and_nested_parts_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_dataset(layout(tmp_path / "a", *labelled("train", "test"), "test/unknown/1.png"))
    assert "no training image of 'unknown'" in caplog.text
    load_dataset(layout(tmp_path / "b", "cat/train/1.png", "cat/test/2.png", "dog/train/3.png"))
    assert "not read as a split" in caplog.text


def test_ignored_files_are_counted_by_ending_and_named(
    photos: Path, tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("a.cr2", "b.CR2", "c.psd", "notes", "list.txt", ".hidden.png", ".DS_Store"):
        (photos / "cat" / name).write_bytes(b"\0" * 40)
    (photos / ".git").mkdir()
    (photos / ".git" / "x.png").write_bytes(b"")
    summary = extract(tiny_model, photos).summary
    assert dict(summary.ignored) == {
        ".cr2": 2, "(hidden folder)": 1, "(no ending)": 1, ".psd": 1, ".txt": 1,
        "(hidden file)": 1,
    }  # fmt: skip
    names = {os.path.basename(p.rstrip(os.sep)) for p in summary.ignored_files}
    assert names == {"a.cr2", "b.CR2", "c.psd", "notes", "list.txt", ".hidden.png", ".git"}
    assert "7 other files ignored: 2 .cr2" in str(summary)
    assert any("ignored" in r.getMessage() and r.levelname == "WARNING" for r in caplog.records)


def test_text_files_beside_photos_are_no_warning(
    photos: Path, tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "labels.txt").write_text("x")
    assert dict(extract(tiny_model, photos).summary.ignored) == {".txt": 1}
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_json_lists_ignored_files(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "cat" / "a.psd").write_bytes(b"8BPS")
    command = ["extract", "mobilenet", str(photos), "--weights", "random", "--image-size", "32"]
    assert main([*command, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["ignored"] == {".psd": 1}
    assert record["ignored_files"] == [str(photos / "cat" / "a.psd")]


def test_a_folder_of_other_files_alone_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.psd").write_bytes(b"8BPS")
    with pytest.raises(DatasetError, match=r"No image was found.*other files: 1 \.psd"):
        load_dataset(tmp_path)


def test_a_folder_of_shards_says_how_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "train-00000.parquet").touch()
    with pytest.raises(
        DatasetError, match=r"1 \.parquet\. To read archives or Parquet files, pass"
    ):
        load_dataset(tmp_path)


def test_files_without_an_ending_are_judged_by_their_first_bytes(photos: Path) -> None:
    (photos / "cat" / "00.png").rename(photos / "cat" / "unnamed")
    (photos / "cat" / "README").write_text("no image")
    os.mkfifo(photos / "cat" / "pipe")
    dataset = load_dataset(photos)
    assert str(photos / "cat" / "unnamed") in dataset.paths
    assert sorted(os.path.basename(p) for p in dataset.ignored) == ["README", "pipe"]
    assert load_dataset(photos / "cat" / "unnamed").labels is None


def test_files_with_an_unknown_ending_are_judged_by_their_first_bytes(photos: Path) -> None:
    cats = photos / "cat"
    content = (cats / "00.png").read_bytes()
    (cats / "00.png").rename(cats / "scan.dat")
    (cats / "01.png").rename(cats / "2024.05.31")
    (cats / "half.png.part").write_bytes(content)
    (cats / "table.csv").write_bytes(content)
    (cats / "raw.nef").write_bytes(b"II*\0" + bytes(200))  # begins as TIFF does
    dataset = load_dataset(photos)
    assert {"scan.dat", "2024.05.31"} <= {os.path.basename(p) for p in dataset.paths}
    ignored = sorted(os.path.basename(p) for p in dataset.ignored)
    assert ignored == ["half.png.part", "raw.nef", "table.csv"]


def test_what_may_be_pictures_is_counted_first(photos: Path, tiny_model: Any) -> None:
    for number in range(3):
        (photos / f"{number}.txt").write_text("x")
    (photos / "a.cr2").write_bytes(b"II*\0")
    assert list(extract(tiny_model, photos).summary.ignored) == [".cr2", ".txt"]


def test_no_file_with_a_known_ending_is_opened(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> int:
        raise AssertionError("a file was opened to list it")

    (photos / "list.txt").write_text("x")
    monkeypatch.setattr(os, "open", refuse)
    assert len(load_dataset(photos)) == 12


def test_a_part_without_training_labels_cannot_be_split(tmp_path: Path, tiny_model: Any) -> None:
    features = extract(tiny_model, layout(tmp_path, *labelled("train"), "test/1.png"))
    nothing = np.array([part == "test" for part in features.parts or []])
    assert features[nothing].is_labelled.sum() == 0
