"""Names from data that a terminal, UTF-8, a drawing or a spreadsheet would stumble over."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.evaluation.tables import cell, write_csv, write_frame
from conftest import photo
from featcache._io.console import run_command
from featcache._io.logs import get_logger
from featcache.errors import InvalidRequest
from featcache.printable import printable

NAMES = [
    "caf\udce9", "\x1b[31mred\x1b[0m", "$\\frac$", "=1+1", "+1", "-2", "@x", "a\tb", "\u202egnp",
    "two\nlines", "\x7f\x9b31m", "<b>bold</b>", 'quo"te,s', "狗", "🐕‍🦺",
]  # fmt: skip
HARMFUL = [chr(i) for i in (0x1B, 0x7F, 0x9B, 0x202E, 0xDCE9)]


@pytest.mark.parametrize("name", NAMES)
def test_printable_text_can_be_encoded_and_steers_nothing(name: str) -> None:
    shown = printable(name)
    shown.encode()
    assert not set(shown) & {*HARMFUL, "\n"}
    assert printable(shown) == shown


@pytest.mark.parametrize("name", ["狗", "🐕‍🦺", "naïve café", "a\\b", "שלום", "$\\frac$"])
def test_other_text_is_unchanged(name: str) -> None:
    assert printable(name) == name


def test_errors_and_logs_are_escaped_and_keep_the_raw_value(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = InvalidRequest("no folder '\x1b]0;x\x07'\nthere", received="\x1b")
    assert str(error) == "no folder '\\x1b]0;x\\x07'\nthere"
    assert error.received == "\x1b"
    get_logger("featcache.some.module").warning("%s is %d", "\x1b[2J", 3)
    assert caplog.messages == ["\\x1b[2J is 3"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_strict_standard_output_ends_no_command(tmp_path: Path, encoding: str) -> None:
    code = (
        "import sys; from featcache._io.console import run_command\n"
        "sys.exit(run_command('x', lambda: print(*map(chr, "
        "[0x1b, 0xdce9, 0x72d7, 0xe9, 10])) or 3, quiet=True))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (3, b"")
    assert b"\x1b" not in done.stdout
    assert done.stdout.decode(encoding).startswith("\\x1b \\xe9 ")


def test_the_exit_status_and_the_output_are_those_of_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command("x", lambda: print("a\x1b\tb") or 7, quiet=True) == 7  # type: ignore[func-returns-value]
    print("\x1b")  # after it nothing is changed
    assert capsys.readouterr().out == "a\\x1b\tb\n\x1b\n"


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_is_a_formula_and_numbers_stay(name: str) -> None:
    assert cell(name)[0] not in "=+-@\t\r"
    assert (cell(-1.5), cell(-2), cell(None)) == (-1.5, -2, None)


def test_tables_are_written_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    write_csv(file, [{"class": name, "value": -1.5} for name in NAMES])
    with open(file, encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["class"] for row in rows] == [cell(name) for name in NAMES]
    assert {row["value"] for row in rows} == {"-1.5"}
    # As objects: pyarrow, if it is installed, refuses names that are not valid UTF-8.
    names = pd.Index(NAMES, dtype=object)
    frame = pd.DataFrame([[-1] * len(NAMES)] * len(NAMES), names, names)
    write_frame(file, frame, index=True)
    again = pd.read_csv(file, index_col=0, keep_default_na=False)
    assert list(again.index) == [cell(name) for name in NAMES]
    assert again.to_numpy().min() == again.to_numpy().max() == -1
    write_frame(file, pd.DataFrame({"class": names, "n": range(len(NAMES))}), index=False)
    assert list(pd.read_csv(file)["class"]) == [cell(name) for name in NAMES]


def _run(words: list[str], cwd: Path) -> Any:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-m", *words], env=environment, cwd=cwd, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "backslashreplace")
    assert not set(done.stdout.decode()) & set(HARMFUL)
    assert not set(done.stderr.decode()) & set(HARMFUL[:4])
    return done.stdout.decode()


def test_a_benchmark_on_names_of_any_kind_ends_with_all_its_files(tmp_path: Path) -> None:
    names = [name for name in NAMES if "\n" not in name and "/" not in name]
    for number, name in enumerate(names):
        for i in range(4):
            photo(tmp_path / "\x1b[31mdata" / name / f"{i}\udcff.png", 10 * number + i)
    data = str(tmp_path / "\x1b[31mdata")
    out = _run(
        ["bench", "--data", data, "--backbones", "pocket", "--heads", "logistic", "--image-size",
         "32", "--report", "out", "--test-size", "0.25"],
        tmp_path,
    )  # fmt: skip
    assert "The report is" in out
    for file in (tmp_path / "out").rglob("*"):
        if file.suffix in (".csv", ".html", ".json"):
            assert not set(file.read_text("utf-8")) & set(HARMFUL), file
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["classes"] == sorted(names)  # data keep the raw names
    photos = str(next((tmp_path / "\x1b[31mdata" / names[0]).iterdir()))
    printed = _run(["featcache", "predict", "out/model.featcache", photos], tmp_path)
    assert printed.count("\n") == 1
    assert "\\x1b[31mdata" in printed
    assert "\\xff.png" in printed
