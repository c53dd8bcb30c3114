"""The command of the model: constants, tables, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.perf import cluster
from bench.scale import calibrate
from bench.scale.__main__ import main
from bench.scale.constants import Constants, describe, load_constants, names
from bench.scale.tables import RECORDED
from featcache.errors import InvalidRequest


def test_a_prediction_names_its_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--images", "1e9", "--workers", "1000"]) == 0
    shown = capsys.readouterr().out
    assert "the client finds the ids" in shown.partition("# now")[2]
    assert "NOT POSSIBLE: the client" in shown


def test_constants_come_from_a_file_and_then_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"machine": {}, "get_seconds": 0.01, "put_seconds": 0.02}))
    found = load_constants(file, {"put_seconds": 0.03})
    assert (found.get_seconds, found.put_seconds) == (0.01, 0.03)
    sources = {name: source for name, _, _, source in describe(found)}
    assert sources["put_seconds"] == "given by you"
    assert sources["width"] != "given by you"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected an object"),
        ('{"speed": 1}', "no constant 'speed'"),
        ('{"width": 0}', "above 0"),
        ('{"width": "7"}', "above 0"),
        ('{"width": true}', "above 0"),
    ],
)
def test_a_file_that_is_not_one_of_constants_is_refused(
    tmp_path: Path, text: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(InvalidRequest, match=expected):
        load_constants(file, {})
    assert main(["constants", "--constants", str(file)]) == 2
    assert expected in capsys.readouterr().err


def test_every_constant_has_a_unit_and_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["constants"]) == 0
    shown = capsys.readouterr().out
    for name, _, unit, source in describe(Constants()):
        assert f"{name} = " in shown
        assert unit
        assert source


@pytest.mark.parametrize("wrong", ["width", "width=wide"])
def test_an_assignment_without_a_number_is_refused(wrong: str) -> None:
    with pytest.raises(SystemExit):
        main(["constants", "--set", wrong])


@pytest.mark.parametrize("wrong", ["1.5", "-1", "many"])
def test_a_part_of_an_image_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--images", wrong, "--workers", "1"])
    assert f"{wrong} is not a whole number of 0 or more" in capsys.readouterr().err


def test_the_tables_are_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables"]) == 0
    shown = capsys.readouterr().out
    assert "| 2 workers | 201 |" in shown
    assert shown.count("| --- |") >= 6


def test_the_pictures_follow_light_and_dark_mode(tmp_path: Path) -> None:
    assert main(["pictures", "--out", str(tmp_path)]) == 0
    written = sorted(tmp_path.glob("*.svg"))
    assert len(written) == 4
    for path in written:
        text = path.read_text("utf-8")
        root = ElementTree.fromstring(text)
        assert root.attrib["aria-label"]
        assert "prefers-color-scheme: dark" in text
        assert text.count("#010203") == 0


def test_what_is_measured_are_constants(tmp_path: Path) -> None:
    found = calibrate._stores(tmp_path) | calibrate._bucket(f"file://{tmp_path}/bucket")
    assert set(found) <= set(names())
    assert found["index_memory_bytes"] == 104
    Constants().replaced(found)


@pytest.mark.distributed
@pytest.mark.timeout(900)
def test_this_machine_can_be_measured(tmp_path: Path) -> None:
    out = tmp_path / "mine.json"
    made = ["--backbone", "pocket", "--folder", str(tmp_path / "made")]
    assert main(["calibrate", *made, "--out", str(out)]) == 0
    found = load_constants(out, {})
    assert found.width == 256
    assert found.task_seconds < 60


def test_the_recorded_figures_are_those_of_the_results() -> None:
    results = Path(cluster.__file__).with_name("RESULTS.md").read_text("utf-8")
    for way, rate in RECORDED.items():
        assert f"| {way} | {rate:.0f} (" in results
