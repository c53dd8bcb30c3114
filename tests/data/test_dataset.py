"""Folders, tables and lists become one kind of data set, or say why not."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pandas as pd
import pytest

from conftest import photo
from featcache import Dataset, load_dataset
from featcache.data.content_ids import content_ids
from featcache.errors import DatasetError, DatasetNotFound, InvalidRequest


def table(path: Path, rows: list[list[str]]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_class_folders_label_their_images_in_sorted_order(photos: Path) -> None:
    dataset = load_dataset(photos)
    assert dataset.classes == ["cat", "dog"]
    assert [Path(p).name for p in dataset.paths] == [f"{i:02d}.png" for i in range(12)]
    assert list(dataset.labels or []) == ["cat"] * 6 + ["dog"] * 6


def test_a_flat_folder_has_no_labels(photos: Path) -> None:
    dataset = load_dataset(photos / "cat")
    assert (len(dataset), dataset.labels, dataset.classes) == (6, None, None)


def test_train_and_test_folders_become_the_split(tmp_path: Path) -> None:
    for part in ("train", "test"):
        photo(tmp_path / part / "owl" / "a.png", 1)
    dataset = load_dataset(tmp_path)
    assert (list(dataset.split or []), dataset.classes) == (["test", "train"], ["owl"])


def test_images_beside_class_folders_are_an_error_not_a_guess(photos: Path) -> None:
    photo(photos / "stray.png", 99)
    with pytest.raises(DatasetError, match=r"1 image beside class folders .*'stray.png'"):
        load_dataset(photos)


def test_hidden_and_foreign_files_are_passed_over(photos: Path) -> None:
    (photos / "cat" / "notes.txt").write_text("x")
    (photos / ".DS_Store").write_text("x")
    photo(photos / "__MACOSX" / "cat" / "a.png", 5)
    photo(photos / "cat" / ".hidden.png", 5)
    assert len(load_dataset(photos)) == 12


def test_a_data_set_describes_itself_in_text_and_in_a_notebook(tmp_path: Path) -> None:
    dataset = Dataset(
        ["a.png", "b.png", "c.png"],
        labels=["<cat>", None, "dog"],
        split=["train", "test", "train"],
        attributes={"age": [1, 2, 3]},
        boxes=[(0, 0, 5, 5)] * 3,
        crop="box",
        ignored=["x.cr2"],
        name="pets",
    )
    assert repr(dataset) == (
        "<Dataset 'pets': images 3, classes 2 ('<cat>', 'dog'), unlabelled 1, split train 2, "
        "test 1, columns age (int64), crop box, ignored files 1>"
    )
    page = dataset._repr_html_()
    for fact in ("unlabelled", "train 2, test 1", "age (int64)", "box", "ignored files"):
        assert fact in page
    assert "&lt;cat&gt;" in page
    assert "<cat>" not in page


def test_a_data_set_without_labels_describes_its_images_alone() -> None:
    assert repr(Dataset(["a.png"], name="one")) == "<Dataset 'one': images 1>"


def test_a_loop_of_links_ends(photos: Path) -> None:
    os.symlink(photos, photos / "cat" / "again")
    assert len(load_dataset(photos)) == 12


def test_csv_with_label_split_and_other_columns(photos: Path) -> None:
    path = table(
        photos / "images.csv",
        [
            ["path", "label", "split", "light"],
            ["cat/00.png", "a", "train", "dim"],
            ["dog/06.png", "b", "test", "lit"],
        ],
    )  # fmt: skip
    dataset = load_dataset(path)
    assert list(dataset.paths) == [str(photos / "cat/00.png"), str(photos / "dog/06.png")]
    assert list(dataset.split or []) == ["train", "test"]
    assert {k: v.tolist() for k, v in dataset.attributes.items()} == {"light": ["dim", "lit"]}


def test_dataframe_and_list_of_paths_agree_with_the_csv(photos: Path) -> None:
    paths = [str(photos / "cat/00.png"), str(photos / "dog/06.png")]
    frame = load_dataset(pd.DataFrame({"path": paths, "label": ["a", "b"]}))
    listed = load_dataset(paths, labels=["a", "b"])
    assert (frame.paths, frame.labels) == (listed.paths, listed.labels)


def test_labels_of_another_length_than_the_paths_are_refused(photos: Path) -> None:
    with pytest.raises(DatasetError, match="1 path came with 2 values of 'labels'"):
        load_dataset([photos / "cat/00.png"], labels=["a", "b"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [["picture", "label"], ["a.png", "x"]],
            r"no column 'path'; its columns are \['picture', 'label'\]",
        ),
        ([["path", "label"], ["a.png"]], "row 2: 1 value, but the header names 2 columns"),
        ([["path", "split"], ["a.png", "maybe"]], "row 1 has split 'maybe'"),
        ([["path", "label", "label"], ["a.png", "x", "y"]], "several columns called 'label'"),
        ([["path"]], "no rows below its header"),
    ],
)
def test_a_csv_that_cannot_be_used_says_why(
    tmp_path: Path, rows: list[list[str]], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        load_dataset(table(tmp_path / "t.csv", rows))


def test_a_missing_folder_names_the_nearest_one_and_what_is_in_it(photos: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r"nearest folder that does is .*photos.*cat, dog"):
        load_dataset(photos / "cta" / "x")


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"No image was found.*\.jpeg"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("data", [[], 7])
def test_what_is_no_data_set_is_refused(data: object) -> None:
    with pytest.raises(DatasetError):
        load_dataset(data)


def test_names_with_newlines_emoji_and_foreign_bytes_are_images_like_others(tmp_path: Path) -> None:
    for i, name in enumerate([b"a\nb.png", "\U0001f415.png".encode(), b"caf\xe9.png"]):
        photo(Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"k", name))), i)
    dataset = load_dataset(tmp_path)
    assert len(dataset) == 3
    assert all(os.path.exists(p) for p in dataset.paths)


def test_a_dataset_whose_parts_do_not_agree_is_refused() -> None:
    with pytest.raises(DatasetError, match="has no images"):
        Dataset([])
    with pytest.raises(DatasetError, match="does not go with no boxes"):
        Dataset(["a.png"], crop="box")
    with pytest.raises(DatasetError, match="does not go with boxes"):
        Dataset(["a.png"], boxes=[(0, 0, 1, 1)])


def test_labels_go_with_lists_alone(photos: Path) -> None:
    with pytest.raises(DatasetError, match="labels= goes with an array or a list"):
        load_dataset(photos, labels=["a"])


def test_a_name_of_a_set_that_was_not_fetched_says_how_to() -> None:
    with pytest.raises(DatasetNotFound, match="featcache fetch"):
        load_dataset("stanford-dogs")
    with pytest.raises(DatasetNotFound, match="does not exist"):
        load_dataset("no-such-dogs")


def test_one_image_a_dataset_and_a_file_of_another_kind(photos: Path) -> None:
    image = photos / "cat" / "00.png"
    assert load_dataset(image).paths == [str(image)]
    dataset = load_dataset(image)
    assert load_dataset(dataset) is dataset
    note = photos / "note.txt"
    note.write_text("nothing")
    with pytest.raises(DatasetError, match="neither a folder, nor a CSV file, nor an image"):
        load_dataset(note)


def test_tables_that_cannot_be_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "latin.csv").write_bytes(b"path\n\xff\xfe.png\n")
    with pytest.raises(DatasetError, match="not a CSV text in UTF-8"):
        load_dataset(tmp_path / "latin.csv")
    sound = table(tmp_path / "sound.csv", [["path"], ["a.png"]])
    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(DatasetNotFound, match="cannot be read: Permission denied"):
        load_dataset(sound)


def denied(*arguments: object, **options: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_table_with_an_empty_path_names_the_row(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", [["path", "label"], ["a.png", "x"], ["", "y"]])
    with pytest.raises(DatasetError, match="the path of row 2 is empty"):
        load_dataset(path)


def test_a_table_without_labels_has_none(tmp_path: Path) -> None:
    assert load_dataset(table(tmp_path / "t.csv", [["path"], ["a.png"]])).labels is None


def test_a_folder_that_cannot_be_listed_is_told(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DatasetError, match="cannot be listed: Permission denied"):
        load_dataset(photos)


def test_an_entry_that_cannot_be_looked_at_is_taken_by_its_name(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Entry:
        name, path = "odd.png", str(photos / "cat" / "odd.png")

        def is_dir(self) -> bool:
            raise OSError("a loop of links")

    scandir = os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda p: [*scandir(p), *([Entry()] if Path(p).name == "cat" else [])]
    )
    assert str(photos / "cat" / "odd.png") in load_dataset(photos).paths


def test_paths_on_different_drives_have_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    def apart(paths: object) -> str:
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(os.path, "commonpath", apart)
    dataset = load_dataset(["a/x.png", "b/y.png"])
    assert (dataset.root, dataset.name) == ("", "images")


def test_a_set_that_is_cropped_is_not_cropped_again(photos: Path) -> None:
    image = str(photos / "cat" / "00.png")
    edges = {"left": ["0"], "top": ["0"], "right": ["5"], "bottom": ["5"]}
    boxed = load_dataset(pd.DataFrame({"path": [image], **edges}), crop="box")
    with pytest.raises(InvalidRequest, match="cropped already"):
        load_dataset(boxed, crop="box")


def test_ids_that_came_with_a_set_are_taken() -> None:
    assert content_ids(Dataset(["a.png"], ids=["ab" * 32]), None) == ["ab" * 32]


def test_blanks_around_the_cells_of_a_csv_file_are_no_part_of_them(photos: Path) -> None:
    path = photos / "t.csv"
    path.write_text('path, label, fold, note\n cat/00.png, 10 , 0, "a, b"\ndog/06.png , 9, 1, c\n')
    dataset = load_dataset(path)
    assert list(dataset.paths) == [str(photos / "cat/00.png"), str(photos / "dog/06.png")]
    assert dataset.labels == [10, 9]
    assert dataset.attributes["fold"].dtype == "int64"
    assert dataset.attributes["note"].tolist() == ["a, b", "c"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Label", "label"), ("labels", "label"), ("SPLIT", "split")],
)
def test_columns_that_differ_in_case_or_number_alone_are_refused(
    photos: Path, name: str, expected: str
) -> None:
    columns = {"path": "cat/00.png", "label": "x", "split": "train"}
    columns = {name if k == expected else k: v for k, v in columns.items()}
    message = f"has a column '{name}', but none called '{expected}'"
    with pytest.raises(DatasetError, match=message):
        load_dataset(table(photos / "t.csv", [list(columns), list(columns.values())]))
    with pytest.raises(DatasetError, match=message):
        load_dataset(pd.DataFrame([columns]))
    both = pd.DataFrame([{**columns, expected: "test"}])
    assert list(load_dataset(both).attributes) == [name]


def test_a_url_of_a_kind_that_is_not_opened_is_refused_in_one_sentence(tmp_path: Path) -> None:
    url = "reference://example.org/x.jpg"
    csv_file = table(tmp_path / "t.csv", [["path"], [url]])
    for data in (url, [url], csv_file):
        with pytest.raises(DatasetError, match=r"example.org/x.jpg is a URL of a kind that is not"):
            load_dataset(data)


def test_a_table_named_in_capitals_is_read_by_its_kind(photos: Path) -> None:
    for name, comma in (("T.TSV", "\t"), ("T.CSV", ",")):
        (photos / name).write_text(f"path{comma}label\ncat/00.png{comma}a\n")
        assert load_dataset(photos / name).labels == ["a"]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_a_path_of_blanks_in_a_table_names_its_row(tmp_path: Path, name: str) -> None:
    comma = "," if name == "t.csv" else "\t"
    (tmp_path / name).write_text(f"path{comma}label\na.png{comma}a\n  {comma}b\n")
    with pytest.raises(DatasetError, match="the path of row 2 is empty"):
        load_dataset(tmp_path / name)
