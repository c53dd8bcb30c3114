"""Commands as people type them: options anywhere, stores by a part of their name, one bad file."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
import numpy as np
import pytest

from conftest import photo
from featcache import extract, load_bundle, make_bundle
from featcache.cli import main
from featcache.cli.extraction import extract as extract_command
from featcache.errors import StoreError
from featcache.store.store_names import find_store
from heads import LogisticHead

SMALL = ["--weights", "random", "--image-size", "32"]


def test_choices_of_the_command_are_those_of_the_function() -> None:
    hints = get_type_hints(extract)
    choices = {
        parameter.name: tuple(parameter.type.choices)
        for parameter in extract_command.params
        if isinstance(parameter.type, click.Choice)
    }
    aliases = {
        name: get_args(part)
        for name, hint in hints.items()
        for part in (hint, *get_args(hint))
        if get_origin(part) is Literal and name not in ("preprocessing", "augmentation")
    }
    assert choices == aliases
    assert len(choices) == 7


@pytest.mark.parametrize(
    "words",
    [
        ["extract", *SMALL, "mobilenet", "PHOTOS"],
        ["extract", "mobilenet", *SMALL, "PHOTOS"],
        ["extract", "mobilenet", "--image-size", "32", "PHOTOS", "--weights", "random"],
        ["extract", "mobilenet", "PHOTOS", "--image-size", "32x32", "--weights=random"],
    ],
    ids=["before", "between", "around", "after"],
)
def test_options_stand_anywhere(
    words: list[str], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(photos) if w == "PHOTOS" else w for w in words] + ["--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["rows"], record["width"]) == (12, 1024)


def test_height_and_width(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explain", "mobilenet", "--weights", "random", "--image-size", "48x32", str(photos)]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["spec"]["image_size"] == [48, 32]
    assert main(["explain", "mobilenet", "--image-size", "big", str(photos)]) == 2
    assert "'big' is not a size" in capsys.readouterr().err


def test_a_wrong_option_is_an_error_that_points_to_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["extract", "vgg16", "--colour", "x"]) == 2
    error = capsys.readouterr().err
    assert "--colour" in error
    assert "featcache extract --help" in error


@pytest.fixture
def two(photos: Path, tiny_model: Any) -> tuple[Path, Path]:
    """Stores of a backbone of the table and of an own model."""
    one = extract("mobilenet", photos, weights="random", image_size=32).summary.folder
    return one, extract(tiny_model, photos).summary.folder


def test_a_store_is_known_by_any_part_that_is_unique(two: tuple[Path, Path]) -> None:
    table, own = two
    stores = table.parent
    key = table.name.rsplit("-", 1)[1]
    for name in (table.name, str(table), "mobile", "MobileNet", key[:8], table.name[:14]):
        assert find_store(name, stores) == table
    assert find_store("custom", stores) == own


def test_an_own_model_is_known_by_its_name(
    two: tuple[Path, Path], tiny_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, own = two
    assert find_store(tiny_model.name, own.parent) == own
    assert main(["ls"]) == 0
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith(own.name))
    assert tiny_model.name in line


def test_ls_tells_what_sets_stores_apart(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extract("mobilenet", photos, weights="random", image_size=32)
    extract("mobilenet", photos, weights="random:1", image_size=40, precision="bfloat16")
    extract("mobilenet", photos, weights="random:1", image_size=48, row_dtype="float16")
    assert main(["ls"]) == 0
    out = capsys.readouterr().out
    assert "32x32 px, float32, random (seed 0); used within the last hour" in out
    assert "40x40 px, bfloat16, random (seed 1)" in out
    assert "48x48 px, float32, rows of float16, random (seed 1)" in out


def test_several_stores_that_fit_are_listed(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [
        extract("mobilenet", photos, weights=f"random:{i}", image_size=32).summary.folder.name
        for i in range(2)
    ]
    assert main(["verify", "mobilenet"]) == 2
    error = capsys.readouterr().err
    assert all(name in error for name in names)


@pytest.mark.parametrize("name", ["", ".", "..", "../stores", "no\0name", "x" * 300])
def test_a_name_that_is_none_is_an_error(name: str, tmp_path: Path) -> None:
    stores = tmp_path / "cache" / "stores"
    stores.mkdir(parents=True)
    with pytest.raises(StoreError, match="no store"):
        find_store(name, stores)


def test_verify_without_a_name_checks_all(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify"]) == 0
    assert capsys.readouterr().out.count("all bytes are as committed") == 2
    shard = next(two[1].glob("*.h5"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert main(["verify"]) == 1
    out = capsys.readouterr().out
    assert f"{two[1].name}: damaged: {shard.name}" in out
    (two[0] / "MANIFEST.json").unlink()
    assert main(["verify", "--json"]) == 1
    assert all(json.loads(capsys.readouterr().out).values())


def test_rm_deletes_one_store_once_it_is_confirmed(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    table, own = two
    assert main(["rm", "mobilenet"]) == 2  # nobody is there to answer
    assert "12 rows" in capsys.readouterr().err
    assert table.is_dir()
    assert main(["rm", "mobilenet", "--yes"]) == 0
    assert "deleted" in capsys.readouterr().out
    assert not table.exists()
    assert own.is_dir()


@pytest.fixture
def bundle(photos: Path, tiny_model: Any, tmp_path: Path) -> list[str]:
    path = tmp_path / "net.keras"
    tiny_model.save(path)
    features = extract(path, photos)
    head = LogisticHead().fit(np.asarray(features.X), features.labels)
    file = tmp_path / "m.featcache"
    make_bundle(features, head.to_classifier()).save(file)
    return [str(file), "--backbone", str(path)]


def test_one_bad_file_costs_one_prediction(
    bundle: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no photo")
    good = str(photo(tmp_path / "x.jpg", 3))
    bad = [str(tmp_path / "none.jpg"), str(tmp_path / "notes.txt")]
    assert main(["predict", *bundle, bad[0], good, bad[1]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "none.jpg: no prediction" in lines[0]
    assert " %" in lines[1]
    assert "notes.txt: no prediction" in lines[2]
    assert main(["predict", *bundle, bad[0], good, "--strict"]) == 1


def test_the_column_of_paths_of_a_table_can_be_named(
    bundle: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(tmp_path / "x.png", 3)
    (tmp_path / "t.csv").write_text("picture,kind\nx.png,b\n")
    command = ["predict", *bundle, str(tmp_path / "t.csv")]
    assert main(command) == 2
    assert main([*command, "--path-column", "picture"]) == 0
    assert capsys.readouterr().out.startswith("x.png: ")
    assert main(["predict", *bundle, str(tmp_path / "x.png"), "--path-column", "picture"]) == 2
    assert "goes with a CSV file" in capsys.readouterr().err


def test_an_archive_is_no_photo(
    bundle: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("a.zip", 2), ("b.zip", 1)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for number in range(count):
                archive.write(photo(tmp_path / f"{number}.png", number), f"{number}.png")
    archives = [str(tmp_path / "a.zip"), str(tmp_path / "b.zip")]
    assert main(["predict", *bundle, *archives]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" (is an archive")[0] for line in lines] == [
        f"{path}: no prediction" for path in archives
    ]


def test_predictions_need_no_layout_of_folders(
    bundle: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_model: Any
) -> None:
    for name in ("1.png", "trip/2.png", "train/3.png", "test/4.png"):
        photo(tmp_path / "loose" / name, 5)
    assert main(["predict", *bundle, str(tmp_path / "loose")]) == 0
    assert capsys.readouterr().out.count(" %\n") == 4
    found = load_bundle(bundle[0]).predict(tmp_path / "loose", backbone=tiny_model)
    assert len(found) == 4


def test_a_folder_without_images_costs_one_line(
    bundle: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    folders = [str(tmp_path / "empty"), str(tmp_path / "notes")]
    good = str(photo(tmp_path / "x.jpg", 3))
    assert main(["predict", *bundle, *folders, good]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"{folders[0]}: no prediction (is a folder without images)"
    assert second.endswith("is a folder without images. It holds other files: 1 .txt)")
    assert " %" in third
    assert main(["predict", *bundle, folders[0], "--strict"]) == 1


def test_predictions_are_under_the_path_that_was_typed(
    bundle: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo(tmp_path / "some" / "x.jpg", 3)
    monkeypatch.chdir(tmp_path)
    typed = ["some/x.jpg", "./some/../some/x.jpg", "none.jpg", "http://127.0.0.1:9/x.jpg"]
    assert main(["predict", *bundle, *typed, "some", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [one["path"] for one in record] == [*typed, "some/x.jpg"]
    assert record[3]["reason"].startswith("cannot be read")
    assert record[0]["top_classes"] == record[4]["top_classes"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_FEATCACHE_COMPLETE" in capsys.readouterr().out


def test_the_shell_is_offered_backbones() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from featcache.cli import main; main()"],
        env={
            "_FEATCACHE_COMPLETE": "bash_complete",
            "COMP_WORDS": "featcache extract resnet50",
            "COMP_CWORD": "2",
            "PATH": "",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "plain,resnet50_v2" in done.stdout.split()


def test_options_of_all_commands_stand_before_the_command_as_well(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = str(tmp_path / "elsewhere")
    extracted = ["extract", "pocket", str(photos), "--weights", "random", "--image-size", "32"]
    assert main(["-q", "--cache-dir", cache, *extracted]) == 0
    capsys.readouterr()
    assert main(["--json", f"--cache-dir={cache}", "ls"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1
    assert main(["--cache-dir", cache, "gc", "--keep", "1G"]) == 0
    assert "0 removals, 0.0 MiB; 1 store of" in capsys.readouterr().out


# Commands of other packages


class Point:
    """An entry point, as an installed package has."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value, self.module = name, value, value.split(":")[0]

    def load(self) -> Any:
        import importlib

        return getattr(importlib.import_module(self.module), self.value.split(":")[1])


def test_the_benchmark_is_a_command_and_its_errors_are_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    points = [Point("bench", "bench.__main__:main")]
    monkeypatch.setattr("featcache.cli.plugins.entry_points", lambda group: points)
    assert main(["--help"]) == 0
    assert "bench  " in capsys.readouterr().out
    assert main(["bench", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--finetune" in text
    assert "usage: featcache bench" in text
    assert "\n  featcache bench --data" in text
    assert "python -m" not in text
    assert main(["bench", "--nonsense"]) == 2
    assert "--nonsense" in capsys.readouterr().err
    drawn = ["bench", "--drawn", "2x6", "--backbones", "pocket", "--heads", "logistic"]
    assert main([*drawn, "--out", str(tmp_path / "out"), "-q"]) == 0
    assert "logistic" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["bench", "heads"])
def test_a_file_that_hides_a_package_of_ours_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for module in list(sys.modules):
        if module.split(".")[0] in ("bench", "heads"):
            monkeypatch.delitem(sys.modules, module)
    points = [Point("bench", "bench.__main__:main")]
    monkeypatch.setattr("featcache.cli.plugins.entry_points", lambda group: points)
    assert main(["bench"]) == 2
    assert f"{name}.py has the name of a package" in capsys.readouterr().err


def test_a_command_that_cannot_be_imported_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [Point("other", "no_such_package.commands:main")]
    monkeypatch.setattr("featcache.cli.plugins.entry_points", lambda group: points)
    assert main(["other"]) == 2
    assert "cannot be imported from no_such_package.commands" in capsys.readouterr().err
