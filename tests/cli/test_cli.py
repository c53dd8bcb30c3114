"""What a person sees on the command line: answers, and errors in one paragraph."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featcache import extract
from featcache.cli import main

MODEL = ["mobilenet", "--weights", "random", "--image-size", "32"]


def test_extract_then_ls_info_explain_verify(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "cat" / "bad.jpg").write_bytes(b"")
    assert main(["extract", *MODEL[:1], str(photos), *MODEL[1:]]) == 0
    out = capsys.readouterr().out
    assert (
        "<Features 12 x 1024 of mobilenet/global_average_pooling2d, 2 classes, 1 quarantined>"
        in out
    )
    assert "bad.jpg' the file is empty" in out
    assert main(["explain", MODEL[0], str(photos), *MODEL[1:]]) == 0
    assert "13 images: 12 stored, 0 to compute, 1 quarantined" in capsys.readouterr().out
    assert main(["ls", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["rows"], record["width"], record["weights"]) == (12, 1024, "random (seed 0)")
    assert main(["info", record["name"]]) == 0
    assert "image_size: [32, 32]" in capsys.readouterr().out
    assert main(["verify", record["name"]]) == 0
    assert "intact" in capsys.readouterr().out


def test_verify_exits_with_1_on_damage_and_repair_mends(
    photos: Path, tiny_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    features = extract(tiny_model, photos, batch_size=6)
    folder, expected = features.summary.folder, np.asarray(features.X)
    shard = next(folder.glob("*.h5"))
    with h5py.File(shard) as file:
        rows = file["embeddings"]
        place = rows.id.get_chunk_info(0).byte_offset + 2 * rows.nbytes // 6 + 5
        hit = bytes(file["image_id"][2]).hex()
    data = bytearray(shard.read_bytes())
    data[place] ^= 4
    shard.write_bytes(data)
    assert main(["verify", str(folder)]) == 1
    out = capsys.readouterr().out
    assert f"{shard.name} (1 of 6 rows lost): its SHA-256" in out
    assert f"  row {hit}\n" in out
    assert main(["repair", str(folder)]) == 0
    assert main(["verify", str(folder)]) == 0
    again = extract(tiny_model, photos)
    assert again.summary.computed == 1
    assert np.array_equal(np.asarray(again.X), expected)


def test_verify_names_five_of_many_lost_rows(
    photos: Path, tiny_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = extract(tiny_model, photos).summary.folder
    (shard,) = folder.glob("*.h5")
    shard.write_bytes(b"")
    assert main(["verify", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "(12 of 12 rows lost)" in out
    assert out.count("  row ") == 5
    assert "and 7 more; --json lists all" in out
    assert main(["verify", str(folder), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)[0]["ids"]) == 12


def test_dry_run_and_json(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", MODEL[0], str(photos), *MODEL[1:], "--dry-run", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["to_compute"], record["exists"]) == (12, False)
    assert main(["extract", MODEL[0], str(photos), *MODEL[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["computed"] == 12


def test_backbones_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 43
    assert "`featcache backbones --hub`" in out.splitlines()[-1]
    assert "inception_resnet_v2" in out


def test_ls_of_an_empty_cache_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    assert "featcache extract" in capsys.readouterr().out


BAD = {
    "missing folder": (["extract", "vgg19", "no/such/folder"], "does not exist"),
    "empty folder": (["extract", "vgg19", "EMPTY"], "No image was found"),
    "unknown backbone": (["extract", "vgg91", "EMPTY"], "Did you mean 'vgg19'"),
    "missing column": (["extract", "vgg19", "CSV"], "no column 'path'"),
    "missing weights": (["extract", "vgg19", "PHOTOS", "--weights", "no.h5"], "no weights file"),
    "all bad": (
        ["extract", "mobilenet", "TEXT", "--weights", "random"],
        "No image can be used: 1 image",
    ),
    "unknown store": (["info", "nothing"], "There is no store 'nothing'"),
    "bad size": (["extract", "vgg19", "PHOTOS", "--image-size", "0"], "image_size=0"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_error_is_one_paragraph_without_a_traceback(
    case: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.jpg").write_text("no image")
    (tmp_path / "t.csv").write_text("picture,label\na.png,x\n")
    places = {"EMPTY": "empty", "CSV": "t.csv", "PHOTOS": "photos", "TEXT": "text"}
    arguments, message = BAD[case]
    status = main([str(tmp_path / places[a]) if a in places else a for a in arguments] + ["-q"])
    captured = capsys.readouterr()
    assert status == 2
    assert captured.err.startswith("featcache: ")
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def test_help_teaches() -> None:
    for arguments in (["--help"], ["extract", "--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "featcache", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "example" in done.stdout or "the classification layer" in done.stdout


def test_no_progress_bar_where_there_is_no_terminal(photos: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "featcache",
        "extract",
        MODEL[0],
        str(photos),
        *MODEL[1:],
        "-q",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
