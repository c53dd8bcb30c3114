"""A bundle says elsewhere what the head said here."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bundles import make_dogs_bundle, write_dogs

import featcache
from bench.__main__ import main as bench_main
from conftest import make_tiny_model, photo
from featcache import extract, load_bundle, make_bundle
from featcache.cli import main
from featcache.errors import BundleMismatch, DatasetError, InvalidRequest
from heads import HEADS, KNNHead, make_head

BUNDLED = [name for name in HEADS if make_head(name).can_be_bundled]


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs(tmp_path_factory.mktemp("dogs"))


@pytest.fixture
def made(dogs: Path, tmp_path: Path) -> tuple[featcache.Bundle, Path, Any]:
    return make_dogs_bundle(dogs, tmp_path / "dogs.featcache")


def test_a_head_that_keeps_its_training_rows_is_refused(dogs: Path) -> None:
    features = extract(make_tiny_model(), dogs)
    head = KNNHead().fit(features.X, features.labels)
    with pytest.raises(InvalidRequest, match="would hold all its training rows"):
        make_bundle(features, head)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_head_says_the_same_from_a_file(name: str, dogs: Path, tmp_path: Path) -> None:
    features = extract(make_tiny_model(), dogs)
    head = make_head(name).fit(features.X, features.labels)
    make_bundle(features, head.to_classifier()).save(tmp_path / "b")
    again = load_bundle(tmp_path / "b")
    assert list(again.classes) == ["dark", "grey", "light"]
    assert np.abs(again.predict_proba(features) - head.predict_proba(features.X)).max() < 1e-6
    told = again.predict(dogs, backbone=make_tiny_model())
    assert [p.top_classes[0][0] for p in told] == head.predict(features.X).tolist()


def test_photos_are_told_in_their_order_and_bad_ones_in_their_place(
    made: Any, dogs: Path, tmp_path: Path
) -> None:
    bundle, path, proba = made
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")
    names = [str(dogs / "light" / "02.png"), str(bad), str(dogs / "dark" / "00.png")]
    told = load_bundle(path).predict(names, top=2)
    assert [p.path for p in told] == names
    assert "not an image" in (told[1].reason or "")
    assert told[1].top_classes == []
    assert [len(p.top_classes) for p in told] == [2, 0, 2]
    # Rows of the data set are sorted by folder: dark first.
    assert told[2].top_classes[0][1] == pytest.approx(float(proba[0].max()), abs=1e-6)
    only_bad = load_bundle(path).predict([str(bad)])
    assert [p.reason for p in only_bad] == [told[1].reason]
    with pytest.raises(InvalidRequest, match="top="):
        bundle.predict(names, top=0)
    with pytest.raises(InvalidRequest, match="top='3'"):
        bundle.predict(names, top="3")


def test_arguments_that_describe_photos_are_those_of_extract(
    made: Any, dogs: Path, tmp_path: Path
) -> None:
    name = str(dogs / "light" / "02.png")
    (tmp_path / "t.csv").write_text(f"picture,kind\n{name},x\n")
    expected = made[0].predict([name])
    assert made[0].predict([name], labels=["x"]) == expected
    table = {"path_column": "picture", "label_column": "kind"}
    assert made[0].predict(tmp_path / "t.csv", **table) == expected
    with pytest.raises(DatasetError, match="go with a table"):
        made[0].predict(dogs, **table)


def test_a_photo_that_was_predicted_is_not_computed_again(made: Any, tmp_path: Path) -> None:
    new = photo(tmp_path / "new.png", 900)
    load_bundle(made[1]).predict([new])
    features = extract("mobilenet", [new], weights="random", image_size=32)
    assert (features.summary.stored, features.summary.computed) == (1, 0)


def test_a_matrix_is_no_features(made: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"not of a ndarray.*classifier.predict_proba"):
        made[0].predict_proba(np.zeros((2, 4)))


def test_features_of_another_key_are_refused(made: Any, dogs: Path) -> None:
    other = extract("mobilenet", dogs, weights="random:1", image_size=32)
    with pytest.raises(BundleMismatch, match="in weights,") as raised:
        made[0].predict_proba(other)
    assert raised.value.differing == ["weights"]
    with pytest.raises(BundleMismatch):
        made[0].predict(dogs, weights="random:1")
    with pytest.raises(BundleMismatch, match="image_size"):
        made[0].predict(dogs, image_size=40)


def test_a_model_of_ones_own_must_be_passed_and_be_the_same(dogs: Path, tmp_path: Path) -> None:
    features = extract(make_tiny_model(), dogs)
    head = make_head("logistic").fit(features.X, features.labels)
    make_bundle(features, head.to_classifier()).save(tmp_path / "b")
    with pytest.raises(BundleMismatch, match="pass that model"):
        load_bundle(tmp_path / "b").predict(dogs)
    with pytest.raises(BundleMismatch, match="weights"):
        load_bundle(tmp_path / "b").predict(dogs, backbone=make_tiny_model(seed=1))


def test_a_bundle_of_boxes_takes_whole_photos(dogs: Path, tmp_path: Path) -> None:
    rows = [
        f"{p},{p.parent.name},2,2,18,18\n{p},{p.parent.name},4,0,20,20"
        for p in sorted(dogs.glob("*/*.png"))
    ]
    table = tmp_path / "boxes.csv"
    table.write_text("path,label,left,top,right,bottom\n" + "\n".join(rows))
    features = extract("mobilenet", table, weights="random", image_size=32, crop="box")
    head = make_head("logistic").fit(features.X, features.labels)
    make_bundle(features, head.to_classifier()).save(tmp_path / "b")
    told = load_bundle(tmp_path / "b").predict([dogs / "dark" / "00.png"])
    assert told[0].top_classes[0][0] == "dark"


def test_the_same_bundle_is_the_same_file_with_a_card(made: Any, tmp_path: Path) -> None:
    bundle, path, _ = made
    load_bundle(path).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        card = archive.read("model_card.md").decode()
    assert card == bundle.card()
    for text in ("3 classes", "mobilenet", bundle.spec.key, "| top1 | 0.9000 |", "Data: noise"):
        assert text in card


def test_a_head_of_another_width_is_refused(made: Any, dogs: Path) -> None:
    with pytest.raises(InvalidRequest, match="width 1024; these have width 8"):
        make_bundle(extract(make_tiny_model(), dogs), made[0].classifier)


# The command


def test_the_command_predicts_files_folders_and_lists(
    made: Any,
    dogs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, one = str(made[1]), str(dogs / "light" / "02.png")
    assert main(["predict", path, one, "--top", "1", "-q"]) == 0
    assert capsys.readouterr().out.startswith(f"{one}: light ")
    assert main(["predict", path, str(dogs / "grey"), "--json", "-q"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert len(record) == 20
    assert set(record[0]["top_classes"][0]) == {"label", "probability"}
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{one}\n\n{dogs / 'nowhere.jpg'}\n"))
    assert main(["predict", path, "-", "-q"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2
    assert "nowhere.jpg: no prediction (cannot be opened: " in out[1]
    assert main(["predict", str(tmp_path / "none"), one]) == 2
    assert "There is no bundle" in capsys.readouterr().err


def test_paths_of_a_csv_are_printed_as_they_are_written_there(
    made: Any, dogs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, other = dogs / "photos.csv", str(dogs / "grey" / "01.png")
    table.write_text(f"path\nlight/02.png\n./light/03.png\nnowhere.png\n{other}\n")
    try:
        for folder, name in ((dogs, table.name), (dogs.parent, str(table))):
            monkeypatch.chdir(folder)
            assert main(["predict", str(made[1]), name, "--top", "1", "-q"]) == 0
            lines = capsys.readouterr().out.splitlines()
            paths = [line.partition(": ")[0] for line in lines]
            assert paths == ["light/02.png", "./light/03.png", "nowhere.png", other]
            assert "no prediction" not in lines[0]
            assert "no prediction" in lines[2]
    finally:
        table.unlink()


def test_a_benchmark_leaves_its_best_head_as_a_bundle(
    dogs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--data", str(dogs), "--backbones", "mobilenet", "--heads", "logistic,lightgbm",
        "--weights", "random", "--image-size", "32", "--out", str(tmp_path / "out"), "--quiet",
    ]  # fmt: skip
    assert bench_main(command) == 0
    assert "featcache predict" in capsys.readouterr().out
    bundle = load_bundle(tmp_path / "out" / "model.featcache")
    assert list(bundle.classes) == ["dark", "grey", "light"]
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    best = max(results["contenders"], key=lambda c: c["top1"])
    assert bundle.metrics["top1"] == best["top1"]
    assert bundle.metadata["Contender"] == best["contender"]


def test_a_bundle_of_another_spec_is_another_bundle(made: Any) -> None:
    assert replace(made[0], spec=replace(made[0].spec, layer="x")) != made[0]
    assert "3 classes on mobilenet" in repr(made[0])
