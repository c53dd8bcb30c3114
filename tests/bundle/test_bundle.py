"""A bundle says elsewhere what the head said here, and no file can make it do anything else."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import featcache
from bench.__main__ import main as bench_main
from conftest import make_tiny_model, photo
from featcache import Classifier, ClassifierStep, extract, load_bundle, make_bundle
from featcache.bundle.bundle_file import _encode_array
from featcache.cli import main
from featcache.errors import BundleError, BundleMismatch, InvalidRequest
from heads import HEADS, make_head


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty photos of noise of three brightnesses, one folder each."""
    from PIL import Image

    root = tmp_path_factory.mktemp("dogs")
    for i in range(60):
        generator = np.random.default_rng(i)
        pixels = generator.integers(0, 60, (20, 24, 3), np.uint8) + np.uint8(90 * (i % 3))
        path = root / ("dark", "grey", "light")[i % 3] / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def made(dogs: Path, tmp_path: Path) -> tuple[featcache.Bundle, Path, Any]:
    features = extract("mobilenet", dogs, weights="random", image_size=32)
    head = make_head("logistic").fit(features.X, features.labels)
    bundle = make_bundle(
        features, head.to_classifier(), metrics={"top1": 0.9}, metadata={"Data": "noise"}
    )
    bundle.save(tmp_path / "dogs.featcache")
    return bundle, tmp_path / "dogs.featcache", head.predict_proba(features.X)


@pytest.mark.parametrize("name", list(HEADS))
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


def test_a_photo_that_was_predicted_is_not_computed_again(made: Any, tmp_path: Path) -> None:
    new = photo(tmp_path / "new.png", 900)
    load_bundle(made[1]).predict([new])
    features = extract("mobilenet", [new], weights="random", image_size=32)
    assert (features.summary.stored, features.summary.computed) == (1, 0)


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


# Hostile files


def rewritten(path: Path, target: Path, **changes: Any) -> Path:
    """Copy a bundle with other members, or none where a value is None."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    kind = changes.pop("compression", zipfile.ZIP_STORED)
    members |= changes.pop("members", {})
    head = json.loads(members["bundle.json"])
    change = changes.pop("head", None)
    if change is not None:
        change(head)
        members["bundle.json"] = json.dumps(head).encode()
    with zipfile.ZipFile(target, "w", kind) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    return target


def set_to(*path: Any, value: Any) -> Any:
    def change(head: Any) -> None:
        for part in path[:-1]:
            head = head[part]
        head[path[-1]] = value

    return change


HEADS_THAT_LIE = {
    "later version": (set_to("format_version", value=2), "Upgrade featcache"),
    "no format": (set_to("format", value="zip"), "does not have the format"),
    "one class": (set_to("classes", value=["a"]), "not a valid bundle"),
    "equal classes": (set_to("classes", value=["a", "a", "b"]), "distinct"),
    "classes of several types": (set_to("classes", value=[1, "b", True]), "distinct"),
    "classes of lists": (set_to("classes", value=[[1], [2], [3]]), "not a valid"),
    "unknown step": (set_to("steps", 0, "kind", value="pickle"), "not a valid"),
    "no steps": (set_to("steps", value=[]), "not a valid"),
    "many steps": (
        set_to("steps", value=[{"kind": "relu", "arrays": {}}] * 99),
        "than 16 steps",
    ),
    "wrong width": (set_to("width", value=3), "not for width 3"),
    "width in words": (set_to("width", value="many"), "not a number"),
    "no temperature": (set_to("temperature", value=0), "temperature"),
    "other hash": (
        set_to("steps", 0, "arrays", "bias", "sha256", value="0" * 64),
        "not those that were written",
    ),
    "file elsewhere": (
        set_to("steps", 0, "arrays", "bias", "file", value="../../etc/passwd"),
        "not a valid",
    ),
    "wrong spec": (set_to("spec", value={"backbone": "x"}), "not a valid"),
    "unknown argument": (set_to("arguments", "model", value="x"), "arguments"),
    "huge temperature": (set_to("temperature", value=10**400), "not a valid bundle"),
    "huge metric": (set_to("metrics", "top1", value=10**400), "not a valid bundle"),
    "image_size in words": (set_to("arguments", "image_size", value="64"), "image_size is a str"),
    "long backbone": (set_to("arguments", "backbone", value="x" * 5000), "5,000 characters"),
    "three sides": (set_to("arguments", "image_size", value=[1, 2, 3]), "two integers"),
    **{
        f"{name} {value}": (set_to("arguments", name, value=value), f"argument {name} is a")
        for name in ("preprocessing", "pooling", "weights", "resize", "layer", "backbone")
        for value in ([], {}, True)
    },
    "metric in words": (set_to("metrics", "top1", value="good"), "metric"),
}


@pytest.mark.parametrize(("change", "message"), HEADS_THAT_LIE.values(), ids=HEADS_THAT_LIE.keys())
def test_a_head_that_lies_is_refused(made: Any, tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        load_bundle(rewritten(made[1], tmp_path / "lie", head=change))


@pytest.mark.parametrize(
    ("name", "value", "component"),
    [
        ("image_size", [40, 40], "image_size"), ("pooling", "max", "pooling"),
        ("precision", "bfloat16", "precision"), ("resize", "pad", "resize"),
        ("preprocessing", "caffe", "preprocessing"), ("preprocessing", None, None),
        ("backbone", "mobilenet_v2", "backbone"), ("weights", "random:1", "weights"),
    ],
)  # fmt: skip
def test_arguments_that_give_other_features_are_refused_before_the_work(
    made: Any, dogs: Path, tmp_path: Path, name: str, value: Any, component: str | None
) -> None:
    lie = rewritten(made[1], tmp_path / "lie", head=set_to("arguments", name, value=value))
    cache = tmp_path / "empty"
    if component is None:  # the backbone's own rule is what it was
        assert load_bundle(lie).predict([dogs / "dark" / "00.png"], cache_dir=cache)
        return
    with pytest.raises(BundleMismatch, match=f"in {component}"):
        load_bundle(lie).predict(dogs, cache_dir=cache)
    assert not (cache / "stores").exists()


def test_a_weights_file_that_a_bundle_names_is_not_opened(
    dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras

    file = tmp_path / "own.weights.h5"
    model = keras.applications.MobileNet(weights=None)
    model.save_weights(file)
    features = extract("mobilenet", dogs, weights=file, image_size=32)
    head = make_head("logistic").fit(features.X, features.labels)
    make_bundle(features, head.to_classifier()).save(tmp_path / "b")
    one = dogs / "dark" / "00.png"
    with monkeypatch.context() as patched:
        patched.setattr(
            "featcache.bundle.bundle.make_request", lambda *_, **__: pytest.fail("it is opened")
        )
        with pytest.raises(BundleMismatch, match=r"weights= \(--weights\)"):
            load_bundle(tmp_path / "b").predict([one])
    assert main(["predict", str(tmp_path / "b"), str(one), "-q"]) == 2
    assert "--weights" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "b"), str(one), "-q", "--weights", str(file)]) == 0
    assert load_bundle(tmp_path / "b").file_options == ("--weights", str(file))
    told = load_bundle(tmp_path / "b").predict([one], weights=file)
    assert told[0].top_classes[0][0] == "dark"


def test_archives_that_are_not_plain_are_refused(made: Any, tmp_path: Path) -> None:
    path = made[1]
    with pytest.raises(BundleError, match="compressed"):
        load_bundle(rewritten(path, tmp_path / "a", compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(BundleError, match="which no step uses"):
        load_bundle(rewritten(path, tmp_path / "b", members={"code.py": b"1"}))
    with pytest.raises(BundleError, match="has no"):
        load_bundle(rewritten(path, tmp_path / "c", members={"model_card.md": None}))
    (tmp_path / "d").write_bytes(b"PK no archive")
    with pytest.raises(BundleError, match="not a valid bundle"):
        load_bundle(tmp_path / "d")
    with pytest.raises(BundleError, match="not a valid bundle"):
        load_bundle(tmp_path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "twice", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        with pytest.warns(UserWarning, match="Duplicate name"):
            new.writestr("bundle.json", b"{}")
    with pytest.raises(BundleError, match="a name occurs twice"):
        load_bundle(tmp_path / "twice")


def test_a_member_that_claims_more_than_the_file_has_is_refused(made: Any, tmp_path: Path) -> None:
    data = bytearray(made[1].read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (2**31).to_bytes(4, "little")  # its size, unpacked
    (tmp_path / "bomb").write_bytes(data)
    with pytest.raises(BundleError, match="declares 2,147,483,648 bytes"):
        load_bundle(tmp_path / "bomb")


def test_endless_bundles_and_heads_are_not_read(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.bundle.bundle_file._MAX_HEAD_BYTES", 10)
    with pytest.raises(BundleError, match=r"bundle.json has more than 10 bytes"):
        load_bundle(made[1])
    (tmp_path / "endless").touch()
    os.truncate(tmp_path / "endless", 2**41)
    with pytest.raises(BundleError, match="it has more than"):
        load_bundle(tmp_path / "endless")


def test_parts_that_are_no_tables_are_refused(made: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"an entry of bundle.json is not an object"):
        load_bundle(rewritten(made[1], tmp_path / "x", head=set_to("about", value=[])))


def test_an_array_of_a_kind_that_no_head_has_is_not_written() -> None:
    with pytest.raises(TypeError, match="cannot hold an array of complex128"):
        _encode_array(np.zeros(2, complex))


def test_an_array_with_another_header_is_refused(made: Any, tmp_path: Path) -> None:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.zeros(3, np.float32), version=(2, 0))
    data = out.getvalue()

    def change(head: Any) -> None:
        array = head["steps"][0]["arrays"]["bias"]
        array["sha256"] = hashlib.sha256(data).hexdigest()
        place.append(array["file"])

    place: list[str] = []
    rewritten(made[1], tmp_path / "y", head=change)
    path = rewritten(made[1], tmp_path / "x", head=change, members={place[0]: data})
    with pytest.raises(BundleError, match="an array has an unknown header"):
        load_bundle(path)


STANDARD = {"mean": np.zeros(2), "scale": np.ones(2)}
LINEAR = {"weights": np.zeros((2, 2)), "bias": np.zeros(2)}


@pytest.mark.parametrize(
    ("kind", "arrays"),
    [
        ("standardise", {"mean": np.zeros(2)}),
        ("standardise", {**STANDARD, "mean": np.zeros((2, 1))}),
        ("standardise", {**STANDARD, "mean": np.zeros(2, complex)}),
        ("standardise", {**STANDARD, "mean": np.zeros(3)}),
        ("standardise", {**STANDARD, "scale": np.array([1.0, 0.0])}),
        ("linear", {**LINEAR, "bias": np.zeros(3)}),
        ("linear", {**LINEAR, "weights": np.full((2, 2), np.inf)}),
    ],
)
def test_steps_that_do_not_fit_are_refused(kind: str, arrays: Any) -> None:
    last = [] if kind == "linear" else [ClassifierStep("linear", LINEAR)]
    with pytest.raises(InvalidRequest, match="does not fit"):
        Classifier([ClassifierStep(kind, arrays), *last], ["a", "b"], 2)


def test_a_pickled_array_is_never_loaded(made: Any, tmp_path: Path) -> None:
    import hashlib

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "trapped",))

    out = io.BytesIO()
    np.save(out, np.array([Trap()], object), allow_pickle=True)
    digest = hashlib.sha256(out.getvalue()).hexdigest()
    hostile = rewritten(
        made[1],
        tmp_path / "trap",
        members={"arrays/0-bias.npy": out.getvalue()},
        head=set_to("steps", 0, "arrays", "bias", "sha256", value=digest),
    )
    with pytest.raises(BundleError):
        load_bundle(hostile)
    assert not (tmp_path / "trapped").exists()


def test_every_damaged_bundle_is_refused_or_says_the_same(made: Any, tmp_path: Path) -> None:
    bundle, path, _ = made
    data = path.read_bytes()
    generator = np.random.default_rng(3)
    damaged = tmp_path / "damaged"
    refused = 0
    for place in generator.integers(0, len(data), 300):
        changed = bytearray(data)
        changed[place] ^= 1 << int(generator.integers(8))
        damaged.write_bytes(bytes(changed))
        try:
            again = load_bundle(damaged)
        except BundleError:
            refused += 1
            continue
        # Whatever is still taken for sound has the same arrays: their hashes were checked.
        for mine, theirs in zip(bundle.classifier.steps, again.classifier.steps, strict=True):
            assert all(np.array_equal(mine.arrays[k], theirs.arrays[k]) for k in mine.arrays)
    assert refused > 200
    for end in range(0, len(data), max(1, len(data) // 50)):
        damaged.write_bytes(data[:end])
        with pytest.raises(BundleError):
            load_bundle(damaged)


TREES = {
    "root": np.array([0, 3], np.int32),
    "column": np.array([0, 0, 0, 0], np.int32),
    "threshold": np.array([0.5, 0, 0, 0]),
    "left": np.array([1, -1, -1, -1], np.int32),
    "right": np.array([2, -1, -1, -1], np.int32),
    "value": np.array([0, 1.0, 2.0, 5.0]),
}


def test_trees_are_walked_to_their_leaves() -> None:
    classifier = Classifier([ClassifierStep("trees", TREES)], ["a", "b"], 1)
    assert classifier.scores([[0.5], [0.6]]).tolist() == [[1, 5], [2, 5]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("left", [0, -1, -1, -1]),  # a circle
        ("right", [9, -1, -1, -1]),
        ("column", [7, 0, 0, 0]),
        ("root", [0, 99]),
        ("root", [0]),
        ("value", [0.0, np.nan, 0, 0]),
        ("left", [1.5, -1, -1, -1]),
        ("right", [2, -1]),
    ],
)
def test_trees_that_lead_nowhere_are_refused(name: str, value: Any) -> None:
    kind = TREES[name].dtype if name not in ("left",) or value[0] != 1.5 else np.float64
    arrays = {**TREES, name: np.array(value, kind)}
    with pytest.raises(InvalidRequest, match="does not fit"):
        Classifier([ClassifierStep("trees", arrays)], ["a", "b"], 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 99), st.floats(0.1, 10))
def test_steps_are_plain_algebra(width: int, classes: int, seed: int, temperature: float) -> None:
    g = np.random.default_rng(seed)
    mean, scale = g.normal(size=width), g.uniform(0.5, 2, width)
    inner, outer = g.normal(size=(width, 4)), g.normal(size=(4, classes))
    steps = [
        ClassifierStep("standardise", {"mean": mean, "scale": scale}),
        ClassifierStep("linear", {"weights": inner, "bias": np.zeros(4)}),
        ClassifierStep("relu"),
        ClassifierStep("linear", {"weights": outer, "bias": np.ones(classes)}),
    ]
    classifier = Classifier(steps, [str(i) for i in range(classes)], width, temperature)
    X = g.normal(size=(7, width)).astype(np.float32)
    expected = np.maximum(((X - mean) / scale) @ inner, 0) @ outer + 1
    assert np.allclose(classifier.scores(X), expected)
    proba = classifier.predict_proba(X)
    powers = np.exp(expected / temperature - (expected / temperature).max(axis=1, keepdims=True))
    assert np.allclose(proba, powers / powers.sum(axis=1, keepdims=True))
    with pytest.raises(InvalidRequest, match="takes embeddings"):
        classifier.scores(X[:, :-1])


def test_a_bundle_of_another_spec_is_another_bundle(made: Any) -> None:
    assert replace(made[0], spec=replace(made[0].spec, layer="x")) != made[0]
    assert "3 classes on mobilenet" in repr(made[0])
