"""Tables as they are found: other names of columns, other separators."""

import logging
from pathlib import Path

import pandas as pd
import pytest

import featcache
from featcache.errors import DatasetError, InvalidRequest


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_columns_are_named(tmp_path):
    text = "picture,breed,path,label,split\na.png,pug,x,1,train\nb.png,beagle,y,2,test\n"
    path = write(tmp_path / "t.csv", text)
    frame = pd.read_csv(path)
    frame["picture"] = [str(tmp_path / name) for name in frame["picture"]]
    for table in (path, str(path), frame):
        found = featcache.load_dataset(table, path_column="picture", label_column="breed")
        assert found.paths == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
        assert found.labels == ["pug", "beagle"]
        assert found.split == ["train", "test"]
        assert {k: v.tolist() for k, v in found.attributes.items()} == {
            "path": ["x", "y"],
            "label": [1, 2],
        }


@pytest.mark.parametrize(
    "name", ["Path", "paths", "image_path", "ImagePath", "filename", "File Name", "file", "image",
             "img-path", "image_url", "photo"],
)  # fmt: skip
def test_the_only_column_with_a_usual_name_has_the_paths(tmp_path, caplog, name):
    path = write(tmp_path / "t.csv", f"id,{name},label\n7,a.png,x\n")
    with caplog.at_level(logging.INFO):
        found = featcache.load_dataset(path)
    assert found.paths == [str(tmp_path / "a.png")]
    assert found.labels == ["x"]
    assert list(found.attributes) == ["id"]
    assert f"the paths are those of the column '{name}'" in caplog.text


def test_the_column_path_wins_without_a_word(tmp_path, caplog):
    path = write(tmp_path / "t.csv", "filename,path,url\nx.png,a.png,b.png\n")
    with caplog.at_level(logging.INFO):
        found = featcache.load_dataset(path)
    assert found.paths == [str(tmp_path / "a.png")]
    assert not caplog.records


def test_several_columns_that_may_be_meant_are_listed(tmp_path):
    path = write(tmp_path / "t.csv", "filename,url,label\na.png,b.png,x\n")
    message = r"'filename', 'url'.*path_column='filename'.*\['filename', 'url', 'label'\]"
    with pytest.raises(DatasetError, match=message):
        featcache.load_dataset(path)
    assert featcache.load_dataset(path, path_column="url").paths == [str(tmp_path / "b.png")]


def test_an_id_is_a_path_only_if_all_are_files(tmp_path):
    (tmp_path / "1.png").touch()
    path = write(tmp_path / "t.csv", "id,label\n1.png,x\n")
    assert featcache.load_dataset(path).paths == [str(tmp_path / "1.png")]
    write(path, "id,label\n1.png,x\n2.png,y\n")
    with pytest.raises(DatasetError, match="no column 'path'"):
        featcache.load_dataset(path)
    with pytest.raises(DatasetError, match="no column 'path'"):
        featcache.load_dataset(pd.DataFrame({"id": [1, 2]}))


@pytest.mark.parametrize(
    ("header", "row", "columns"),
    [
        ("path;label;age", "a.png;x;0,5", ["age"]),
        ("path\tlabel\tage", "a.png\tx;y\t3", ["age"]),
        ("path,label,a;b", "a.png,x,1", ["a;b"]),
        ("path,label,a\tb", "a.png,x,1", ["a\tb"]),
        ('"path";"label";"a,b"', "a.png;x;1", ["a,b"]),
        ("path", "a.png", []),
    ],
)
def test_the_header_says_what_separates_cells(tmp_path, header, row, columns):
    found = featcache.load_dataset(write(tmp_path / "t.csv", f"\n{header}\n{row}\n"))
    assert found.paths == [str(tmp_path / "a.png")]
    assert list(found.attributes) == columns


def test_a_quoted_comma_is_no_separator(tmp_path):
    path = write(tmp_path / "t.csv", '"path, relative";label\na.png;x\n')
    found = featcache.load_dataset(path, path_column="path, relative")
    assert found.paths == [str(tmp_path / "a.png")]


def test_semicolons_beside_tabs_are_refused(tmp_path):
    path = write(tmp_path / "t.csv", "path;label\tage\na.png;x\t3\n")
    with pytest.raises(DatasetError, match="both semicolons and tabs"):
        featcache.load_dataset(path)


def test_a_row_with_another_number_of_cells_names_the_separator(tmp_path):
    path = write(tmp_path / "t.csv", "path;label\na.png;x;y\n")
    with pytest.raises(DatasetError, match=r"row 2: 3 values.*hold a semicolon"):
        featcache.load_dataset(path)


def test_blank_lines_are_no_rows(tmp_path):
    path = write(tmp_path / "t.csv", "path,label\na.png,x\n  \nb.png,y\n\t\n")
    assert featcache.load_dataset(path).labels == ["x", "y"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path_column": "nope"}, r"no column 'nope' \(path_column\); its columns are"),
        ({"label_column": "nope"}, r"no column 'nope' \(label_column\); its columns are"),
        ({"path_column": "path", "label_column": "path"}, "are both 'path'"),
        ({"path_column": 3}, "must be the name of a column"),
    ],
)
def test_names_of_columns_are_checked(tmp_path, arguments, message):
    path = write(tmp_path / "t.csv", "path,label\na.png,x\n")
    with pytest.raises((DatasetError, InvalidRequest), match=message):
        featcache.load_dataset(path, **arguments)


@pytest.mark.parametrize("data", ["FOLDER", ["a.png"], "stanford-dogs", None])
def test_data_without_columns_refuse_their_names(tmp_path, data):
    data = tmp_path if data == "FOLDER" else data
    with pytest.raises(DatasetError, match="go with a table"):
        featcache.explain("pocket", data, label_column="breed", cache_dir=tmp_path)


def test_columns_that_may_be_labels_are_named_in_the_log(tmp_path, caplog):
    path = write(tmp_path / "t.csv", "path,class\na.png,x\n")
    with caplog.at_level(logging.INFO):
        assert featcache.load_dataset(path).labels is None
    assert "label_column='class'" in caplog.text


def test_any_column_can_have_any_role(tmp_path):
    path = write(tmp_path / "t.csv", "label,split\na.png,007\n")
    found = featcache.load_dataset(path, path_column="label", label_column="split")
    assert found.paths == [str(tmp_path / "a.png")]
    assert found.labels == ["007"]
    assert found.split is None


def test_commands_take_the_names(tmp_path, capsys):
    from bench.__main__ import main as bench_main
    from featcache.cli import main

    path = write(tmp_path / "t.csv", "picture;breed\na.png;x\n")
    shared = [str(path), "--path-column", "picture", "--label-column", "breed"]
    assert main(["explain", "pocket", *shared, "--cache-dir", str(tmp_path)]) == 0
    assert "1 image" in capsys.readouterr().out
    assert bench_main(["--data", *shared, "--cache-dir", str(tmp_path), "--quiet"]) == 2
    assert "has one class, 'x'" in capsys.readouterr().err


def test_a_table_of_very_many_columns_is_refused_at_once(tmp_path):
    names = ",".join(f"c{i}" for i in range(50_000))
    path = write(tmp_path / "t.csv", f"{names}\n{names}\n")
    with pytest.raises(DatasetError, match=r"'c49'\] and 49,950 more") as caught:
        featcache.load_dataset(path)
    assert len(str(caught.value)) < 2000
